//! `probe` attempts: finds out what is allowed in here by trying it.
//!
//! An attempt that the kernel refuses is a result, not an error.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chroot};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use check::seen::Attempt;
use check::sys::{self, SysV};
use clap::{Subcommand, ValueEnum};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_close, mq_open};
use nix::pty::{posix_openpt, ptsname_r};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use nix::unistd::{Pid, sethostname};
use syscalls::Sysno;

use crate::network;
use crate::odd_caller;
use crate::other_user::OtherUser;
use crate::resources;

/// Things to try.
#[derive(Subcommand)]
pub(crate) enum Attempts {
    /// Read a file, at most 64 KiB of it: some of /proc have no end
    Read {
        /// Its path
        path: PathBuf,
    },
    /// List a directory
    List {
        /// Its path
        path: PathBuf,
    },
    /// Write a text into a file, creating it if it is missing
    Write {
        /// Its path
        path: PathBuf,
        /// What to write
        text: String,
    },
    /// Set the host name
    Sethostname {
        /// The name
        name: String,
    },
    /// Make a block device node for a disk
    Mknod {
        /// Where
        path: PathBuf,
    },
    /// Mount a tmpfs, or another file system without a source, on a directory
    Mount {
        /// Where
        path: PathBuf,
        /// What
        #[arg(default_value = "tmpfs")]
        fstype: String,
    },
    /// Look at a file, or at a link itself: kind, mode, and device number or
    /// target
    Stat {
        /// Its path
        path: PathBuf,
    },
    /// Open /dev/ptmx and print the name of the terminal
    Terminal,
    /// Send a signal to itself
    Raise {
        /// Its number
        signal: i32,
    },
    /// Send a signal to another process; 0 only asks whether it is there
    Kill {
        /// Its PID in this PID namespace
        pid: i32,
        /// The signal's number
        signal: i32,
    },
    /// Make a System V object and print its identifier
    MakeSysv {
        /// Which kind
        kind: SysV,
    },
    /// Make a POSIX message queue
    MqOpen {
        /// Its name, with the slash
        name: PathBuf,
    },
    /// Connect to a Unix socket in the abstract namespace (unix(7))
    Connect {
        /// Its name, without the NUL byte
        name: String,
    },
    /// Make a system call
    Call {
        /// Through which interface; the number is the native one's, for x86 its own
        #[arg(long, value_enum, default_value_t = Interface::Native)]
        through: Interface,
        /// Its number, or its name
        call: String,
        /// Its arguments, as numbers
        #[arg(allow_negative_numbers = true)]
        arguments: Vec<i64>,
    },
    /// Move into a new user namespace (unshare(2)), all others staying as they are
    UnshareUser,
    /// Leave an orphan behind that ends at once, and print its PID
    Orphan,
    /// Leave an orphan behind that waits for ever, and print its PID
    Sleeper,
    /// Wait for signals and print each one's name as it comes, until SIGTERM
    Signals,
    /// Execute a command for which clone3(2) fails with this errno
    WithoutClone3 {
        /// The number of the errno
        errno: i32,
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Execute a command for which every keyctl(2) fails with EPERM
    WithoutKeyctl {
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Execute a command of which whoever asks for a signal at its parent's
    /// death hangs
    Hanging {
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Execute a command as a caller of whom nothing should get into a container
    OddCaller {
        /// The name of a key in its session keyring
        key: String,
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Look for a key in the session keyring
    FindKey {
        /// Its name
        name: String,
    },
    /// Execute a command as another user, perhaps with another /etc
    As {
        #[command(flatten)]
        user: OtherUser,
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Allocate memory and use every page of it
    Alloc {
        /// How much, in MiB
        mib: usize,
    },
    /// Compute for so long, and print the CPU time that it got
    Burn {
        /// In milliseconds
        millis: u64,
    },
    /// Fork children that wait, and print how many there were when fork(2) failed
    Fork {
        /// At most so many
        count: usize,
    },
    /// Open a file
    Open {
        /// Its path
        path: PathBuf,
        /// r, w or rw
        mode: String,
    },
    /// Read all of a file, throw it away, and print how many bytes it was
    ReadAll {
        /// Its path
        path: PathBuf,
    },
    /// Execute a command in another cgroup
    InGroup {
        /// The directory of the group
        dir: PathBuf,
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Execute a command for which all cgroup file systems are read-only
    ReadOnlyGroups {
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Ask a server and print its answer
    Talk {
        /// How
        protocol: Protocol,
        /// Whom: IP:PORT
        to: SocketAddr,
        /// From which port, of UDP; any by default
        #[arg(long, default_value_t = 0)]
        from: u16,
        /// How long to wait for the answer, in milliseconds
        #[arg(long, default_value_t = 3000)]
        patience: u64,
    },
    /// Ask for 127.0.0.1 by way of a neighbour, as if that were a router
    Forge {
        /// The neighbour
        via: Ipv4Addr,
        /// The port
        port: u16,
        /// How long to wait for the answer, in milliseconds
        #[arg(long, default_value_t = 3000)]
        patience: u64,
    },
    /// Execute a command in a new network, whose loopback device is up
    Elsewhere {
        /// The command
        command: Vec<std::ffi::OsString>,
    },
    /// Escape from a chroot: chroot again below the working directory, then
    /// climb; prints the entries of the root directory thus reached
    Escape,
}

/// The interfaces through which a call can be made.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Interface {
    Native,
    X86,
    X32,
}

/// The protocols that a server answers by.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Attempts {
    /// Makes the attempt.
    pub(crate) fn run(self) -> Result<Attempt> {
        match self {
            Attempts::Read { path } => Ok(io_result(read(path))),
            Attempts::List { path } => Ok(io_result(list(path))),
            Attempts::Write { path, text } => {
                Ok(io_result(fs::write(path, text).map(|()| String::new())))
            }
            Attempts::Sethostname { name } => Ok(result(sethostname(name).map(|()| String::new()))),
            Attempts::Mknod { path } => Ok(result(
                mknod(
                    &path,
                    SFlag::S_IFBLK,
                    Mode::from_bits_truncate(0o600),
                    makedev(8, 0),
                )
                .map(|()| String::new()),
            )),
            Attempts::Mount { path, fstype } => Ok(result(
                mount(
                    Some("probe"),
                    &path,
                    Some(fstype.as_str()),
                    MsFlags::empty(),
                    None::<&str>,
                )
                .map(|()| String::new()),
            )),
            Attempts::Stat { path } => Ok(io_result(stat(path))),
            Attempts::Call {
                through,
                call,
                arguments,
            } => system_call(through, &call, &arguments),
            Attempts::Terminal => Ok(result(terminal())),
            Attempts::Raise { signal } => {
                let signal = Signal::try_from(signal).context("signal")?;
                Ok(result(raise(signal).map(|()| "survived".to_owned())))
            }
            Attempts::Kill { pid, signal } => Ok(result(
                kill(Pid::from_raw(pid), some_signal(signal)?).map(|()| String::new()),
            )),
            Attempts::MakeSysv { kind } => {
                Ok(result(sys::make_sysv(kind).map(|id| id.to_string())))
            }
            Attempts::MqOpen { name } => Ok(result(make_queue(&name).map(|()| String::new()))),
            Attempts::Connect { name } => {
                let address = UnixAddr::from_abstract_name(name).context("name of a socket")?;
                Ok(io_result(
                    UnixStream::connect_addr(&address).map(|_| String::new()),
                ))
            }
            Attempts::UnshareUser => Ok(result(
                unshare(CloneFlags::CLONE_NEWUSER).map(|()| String::new()),
            )),
            Attempts::Orphan => Ok(allowed(sys::orphan(false)?.to_string())),
            Attempts::Sleeper => Ok(allowed(sys::orphan(true)?.to_string())),
            Attempts::Signals => signals(),
            Attempts::WithoutClone3 { errno, command } => {
                sys::forbid_clone3(Errno::from_raw(errno))?;
                execute(&command)
            }
            Attempts::WithoutKeyctl { command } => {
                sys::forbid_keyctl()?;
                execute(&command)
            }
            Attempts::Hanging { command } => {
                sys::hang_in_pdeathsig()?;
                execute(&command)
            }
            Attempts::OddCaller { key, command } => {
                odd_caller::become_odd(&key)?;
                execute(&command)
            }
            Attempts::FindKey { name } => Ok(result(sys::find_key(&name).map(|()| String::new()))),
            Attempts::As { user, command } => {
                user.take()?;
                execute(&command)
            }
            Attempts::Alloc { mib } => Ok(allowed(format!("{} MiB", resources::allocate(mib)))),
            Attempts::Burn { millis } => {
                Ok(result(resources::burn(millis).map(|used| used.to_string())))
            }
            Attempts::Fork { count } => resources::fork_many(count),
            Attempts::Open { path, mode } => Ok(io_result(
                fs::OpenOptions::new()
                    .read(mode.contains('r'))
                    .write(mode.contains('w'))
                    .open(path)
                    .map(|_| String::new()),
            )),
            Attempts::ReadAll { path } => Ok(io_result(
                fs::File::open(path)
                    .and_then(|mut file| io::copy(&mut file, &mut io::sink()))
                    .map(|bytes| bytes.to_string()),
            )),
            Attempts::InGroup { dir, command } => {
                fs::write(dir.join("cgroup.procs"), "0").context("write to cgroup.procs")?;
                execute(&command)
            }
            Attempts::ReadOnlyGroups { command } => {
                resources::make_groups_read_only()?;
                execute(&command)
            }
            Attempts::Talk {
                protocol,
                to,
                from,
                patience,
            } => {
                let udp = matches!(protocol, Protocol::Udp);
                let patience = Duration::from_millis(patience);
                Ok(io_result(network::talk(udp, to, from, patience)))
            }
            Attempts::Forge {
                via,
                port,
                patience,
            } => {
                let patience = Duration::from_millis(patience);
                Ok(io_result(network::forge(via, port, patience)?))
            }
            Attempts::Elsewhere { command } => {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                check::rtnl::set_up("lo")?;
                execute(&command)
            }
            Attempts::Escape => Ok(io_result(escape())),
        }
    }
}

fn execute(command: &[std::ffi::OsString]) -> Result<Attempt> {
    let (program, args) = command.split_first().context("no command")?;
    Err(std::process::Command::new(program).args(args).exec()).context("exec")
}

/// The signal of a number; `None` for 0.
fn some_signal(number: i32) -> Result<Option<Signal>> {
    if number == 0 {
        return Ok(None);
    }
    Signal::try_from(number).map(Some).context("signal")
}

fn make_queue(name: &Path) -> nix::Result<()> {
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
    // nix passes the mode only together with attributes.
    let attributes = MqAttr::new(0, 1, 64, 0);
    mq_open(
        name,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
        Some(&attributes),
    )
    .and_then(mq_close)
}

fn system_call(through: Interface, call: &str, arguments: &[i64]) -> Result<Attempt> {
    const X32: i64 = 0x4000_0000;
    let number: i64 = match call.parse() {
        Ok(number) => number,
        Err(_) => call
            .parse::<Sysno>()
            .map_err(|()| anyhow::anyhow!("no call {call:?}"))?
            .id()
            .into(),
    };
    let argument = |n: usize| arguments.get(n).copied().unwrap_or(0);
    let all = std::array::from_fn(argument);
    let made = match through {
        Interface::Native => sys::raw::call(number, all),
        Interface::X32 => sys::raw::call(number | X32, all),
        Interface::X86 => {
            sys::raw::call_32(number as i32, std::array::from_fn(|n| argument(n) as i32))
        }
    };
    Ok(result(made.map(|value| value.to_string())))
}

/// The result of an attempt that succeeded.
pub(crate) fn allowed(text: String) -> Attempt {
    Attempt {
        allowed: true,
        errno: String::new(),
        text,
    }
}

/// The result of an attempt that the kernel refused; any other error is the
/// probe's own.
pub(crate) fn refused(error: &anyhow::Error) -> Result<Attempt> {
    let io = error
        .downcast_ref::<io::Error>()
        .context(format!("{error:#}"))?;
    Ok(result(Err(Errno::from_raw(io.raw_os_error().unwrap_or(0)))))
}

fn result(result: nix::Result<String>) -> Attempt {
    match result {
        Ok(text) => allowed(text),
        Err(errno) => Attempt {
            allowed: false,
            errno: format!("{errno:?}"),
            text: String::new(),
        },
    }
}

fn io_result(outcome: io::Result<String>) -> Attempt {
    result(outcome.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))))
}

/// Blocks the signals that the launcher may pass on, reports that it is ready,
/// and then each signal that arrives.
fn signals() -> Result<Attempt> {
    let set: SigSet = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGTERM,
    ]
    .into_iter()
    .collect();
    set.thread_block().context("sigprocmask")?;
    crate::print(&allowed("ready".to_owned()))?;
    loop {
        let signal = set.wait().context("sigwait")?;
        if signal == Signal::SIGTERM {
            return Ok(allowed(signal.to_string()));
        }
        crate::print(&allowed(signal.to_string()))?;
    }
}

fn read(path: PathBuf) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(64 << 10)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Describes a file: `directory 755`, `file 644`, `character 666 1:3`, `link
/// /proc/self/fd`…
fn stat(path: PathBuf) -> io::Result<String> {
    let seen = fs::symlink_metadata(&path)?;
    let (kind, mode) = (seen.file_type(), format!("{:o}", seen.mode() & 0o7777));
    let number = || format!("{}:{}", major(seen.rdev()), minor(seen.rdev()));
    Ok(if kind.is_symlink() {
        format!("link {}", fs::read_link(path)?.display())
    } else if kind.is_dir() {
        format!("directory {mode}")
    } else if kind.is_char_device() {
        format!("character {mode} {}", number())
    } else if kind.is_block_device() {
        format!("block {mode} {}", number())
    } else {
        format!("file {mode}")
    })
}

fn terminal() -> nix::Result<String> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    ptsname_r(&master)
}

fn list(path: PathBuf) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

/// chroot(2): "This call does not change the current working directory, so
/// that after the call '.' can be outside the tree rooted at '/'."
fn escape() -> io::Result<String> {
    let inner = tempfile::Builder::new().prefix("escape-").tempdir_in("/")?;
    chroot(inner.path())?;
    for _ in 0..64 {
        std::env::set_current_dir("..")?;
    }
    chroot(".")?;
    list("/".into())
}

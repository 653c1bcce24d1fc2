//! How a monitor leaves its caller: two forks, a session of its own, no terminal
//! (daemon(7)), and a line that says how the start went.
//!
//! The caller waits for that line, so a container that cannot start is the
//! caller's error, as if it had been in the foreground.
//!
//! Then the program is executed again, with nothing but the container's id. What
//! the monitor needs is in the record, which nobody else can read. Its command
//! line, which everybody can read as long as the container lives, has no `-e
//! PASSWORD=…` in it, and its memory nothing that only the start needed.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Error, Result, bail};
use engine::cli::places::Places;
use kit::SignalSet;
use kit::sys::close_except;
use kit::sys::signals::{block, kill, read_signal, set_mask, signalfd};
use kit::sys::{Arguments, exit, fork};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, setsid};
use process::{Failure, LAUNCHER_FAILED};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};

/// Has glibc keep no freed pieces of memory for itself: a start among hundreds of
/// containers leaves some in every page, and with them no page can be given back
/// ([`trim`](kit::sys::memory::trim)). Another C library ignores it.
const SPARING: &str = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0";

/// What the monitor says to its caller, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// Its PID: signals to the caller are passed on until the command runs.
    Monitor(i32),
    /// The command runs.
    Started {
        /// The container's id.
        id: String,
        /// And its name.
        name: String,
    },
    /// It does not, and will not.
    Failed {
        /// The exit status.
        status: u8,
        /// The causes, outermost first.
        causes: Vec<String>,
    },
}

/// A container that a monitor has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The monitor's way to its caller.
#[derive(Debug)]
pub struct Caller(Option<UnixStream>);

impl Caller {
    fn say(&mut self, said: &Said) -> Result<()> {
        let Some(stream) = &mut self.0 else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(said).context("write JSON")?;
        line.push(b'\n');
        // A caller that was killed has nothing to hear: the container runs all
        // the same.
        match stream.write_all(&line) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("write to the caller"),
        }
    }

    /// Tells the caller that the command runs, and lets go of its standard
    /// error.
    pub fn started(&mut self, id: &str, name: &str) -> Result<()> {
        self.say(&Said::Started {
            id: id.to_owned(),
            name: name.to_owned(),
        })?;
        self.0 = None;
        let null = null()?;
        dup2_stderr(&null).context("dup2(/dev/null, 2)")
    }
}

/// The null device, for reading and writing.
pub(crate) fn null() -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")
}

impl Caller {
    /// The caller at the other end of an inherited descriptor.
    pub fn of(descriptor: OwnedFd) -> Self {
        Caller(Some(descriptor.into()))
    }

    /// Tells the caller that the command will not run.
    pub fn failed(&mut self, error: &Error) {
        let said = Said::Failed {
            status: Failure::status_of(error),
            causes: error.chain().map(ToString::to_string).collect(),
        };
        if let Err(error) = self.say(&said) {
            kit::say!("{error:#}");
        }
    }
}

/// A descriptor that the monitor needs, and the option by which it learns its
/// number.
#[derive(Clone, Copy, Debug)]
pub struct Passed<'a> {
    /// Such as `--attached`.
    pub option: &'static str,
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
}

/// Executes this program with `args` in a process of its own, and waits until it
/// has called [`Caller::started`]. It gets the descriptors in `passed`, and the
/// one to its caller by `--caller`. All others are closed, so that a caller's
/// pipe ends when the caller does.
///
/// # Errors
/// What the monitor reports before that call, with its exit status.
pub fn detach(args: &[OsString], passed: &[Passed<'_>]) -> Result<Started> {
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    // Blocked from here on: a signal between the forks would leave a monitor
    // that nobody knows.
    let stopping: SignalSet = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect();
    let signals = signalfd(stopping)?;
    let before = block(stopping)?;
    match fork()? {
        ForkResult::Child => {
            drop((ours, signals));
            let mut caller = Caller(Some(theirs));
            let Err(error) = leave(args, passed, &mut caller, before);
            caller.failed(&error);
            exit(LAUNCHER_FAILED)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            waitpid(child, None).context("waitpid")?;
            let heard = hear(&ours, signals.as_fd());
            set_mask(before)?;
            heard
        }
    }
}

/// The first child: makes a session, forks the monitor and ends. The monitor
/// executes the program.
// ANCHOR: leave
fn leave(
    args: &[OsString],
    passed: &[Passed<'_>],
    caller: &mut Caller,
    mask: SignalSet,
) -> Result<Infallible> {
    // ANCHOR: exercise_leave
    setsid().context("setsid")?;
    // A process that leads no session can never get a terminal.
    if let ForkResult::Parent { .. } = fork()? {
        exit(0);
    }
    let null = null()?;
    dup2_stdin(&null).context("dup2(/dev/null, 0)")?;
    dup2_stdout(&null).context("dup2(/dev/null, 1)")?;
    drop(null);
    // The caller's directory may be on a file system that is to be unmounted.
    chdir("/").context("chdir(/)")?;
    caller.say(&Said::Monitor(Pid::this().as_raw()))?;
    let program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let socket = caller.0.as_ref().context("no caller")?;
    let passed: Vec<Passed<'_>> = passed
        .iter()
        .copied()
        .chain([Passed {
            option: "--caller",
            fd: socket.as_fd(),
        }])
        .collect();
    let mut argv = args.to_vec();
    for one in &passed {
        fcntl(one.fd, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
        argv.push(one.option.into());
        argv.push(one.fd.as_raw_fd().to_string().into());
    }
    let kept: Vec<BorrowedFd<'_>> = passed
        .iter()
        .map(|one| one.fd)
        .chain([program.as_fd()])
        .collect();
    close_except(&kept)?;
    set_mask(mask)?;
    let environment = [environment(), vec![SPARING.into()]].concat();
    let arguments = Arguments::new(&argv, &environment)?;
    Err(arguments.execve_open(program.as_fd())).context("execveat(/proc/self/exe)")
    // ANCHOR_END: exercise_leave
}
// ANCHOR_END: leave

/// The words with which this program is executed again: those of every command.
pub fn again(places: &Places) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["drydock".into()];
    words.extend(["--root".into(), places.root.clone().into()]);
    words.extend(["--state".into(), places.state.clone().into()]);
    if kit::say::verbose() {
        words.push("--verbose".into());
    }
    words
}

/// What the program reads from its environment. The rest is the caller's.
// ANCHOR: environment
pub fn environment() -> Vec<OsString> {
    [
        "PATH",
        "HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "DRYDOCK_STATE",
    ]
    .into_iter()
    .filter_map(|name| {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(std::env::var_os(name)?);
        Some(pair)
    })
    .collect()
}
// ANCHOR_END: environment

/// Hears what the monitor says until the command runs. Signals that ask this
/// process to stop are passed on to the monitor, which ends the set-up.
fn hear(ours: &UnixStream, signals: BorrowedFd<'_>) -> Result<Started> {
    let mut monitor = None;
    let mut lines = BufReader::new(ours);
    let mut asked = Vec::new();
    loop {
        if lines.buffer().is_empty() {
            let mut fds = [
                PollFd::new(ours, PollFlags::IN),
                PollFd::from_borrowed_fd(signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("poll"),
            }
            let (said, signal) = (fds[0].revents(), fds[1].revents());
            if signal.contains(PollFlags::IN) {
                asked.push(read_signal(signals)?.0);
            }
            if let Some(monitor) = monitor {
                for signal in asked.drain(..) {
                    match kill(monitor, signal) {
                        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                        Err(errno) => return Err(errno).context("kill(the monitor)"),
                    }
                }
            }
            if said.is_empty() {
                continue;
            }
        }
        let mut line = String::new();
        let length = lines
            .read_line(&mut line)
            .context("read from the monitor")?;
        if length == 0 {
            bail!("the monitor has ended without a word");
        }
        match serde_json::from_str(&line).context("the monitor's words")? {
            Said::Monitor(pid) => monitor = Some(Pid::from_raw(pid)),
            Said::Started { id, name } => return Ok(Started { id, name }),
            Said::Failed { status, causes } => {
                let mut causes = causes.into_iter().rev();
                let root = Failure::new(status, causes.next().unwrap_or_default());
                return Err(causes.fold(Error::new(root), Error::context));
            }
        }
    }
}

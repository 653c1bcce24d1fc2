//! The server's own process. It ends with the mount and holds nothing of the
//! process that started it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use fuser::{Config, Session, SessionACL};
use kit::sys;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, pipe2};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{
    Resource, Rlimit, getrlimit, set_parent_process_death_signal, setrlimit, umask,
};

use crate::options::Options;
use crate::server::Server;
use crate::{Union, device};
use mount::file_system::attach;

/// The number of threads that answer requests.
const THREADS: usize = 4;

/// When a server in the background ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Die {
    /// With its mount.
    WithMount,
    /// With its mount, or with the process that started it, also if that is
    /// killed.
    WithParent,
}

/// A server in a process of its own. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct ServerHandle {
    /// Its PID in the PID namespace of its starter.
    pub pid: Pid,
}

/// Mounts a union on `mountpoint` and serves it until it is unmounted. Calls
/// `ready` when the mount answers. SIGTERM, SIGINT and SIGHUP unmount it.
///
/// # Errors
/// If the union cannot be mounted or served. Until the server answers, the
/// mount is detached: it ends with the process, also after `kill -9`.
pub fn serve(options: &Options, mountpoint: &Path, ready: impl FnOnce()) -> Result<()> {
    let signals = ending_signals();
    signals.thread_block().context("sigprocmask(SIG_BLOCK)")?;
    let union = Union::open(options)?;
    let device = device::open()?;
    let mountpoint = mountpoint
        .canonicalize()
        .with_context(|| format!("mount point {mountpoint:?}"))?;
    let mount = device::mount(&device, options)?;
    let target = mountpoint.clone();
    answer(union, device, Some(mountpoint), move || {
        attach(&mount, &target)?;
        ready();
        Ok(())
    })
}

/// Mounts a union on `mountpoint`, served by a process of its own that is ready
/// when this returns.
///
/// # Errors
/// If the union cannot be mounted or served. Nothing is mounted then, and the
/// server ends.
pub fn mount_in_background(options: &Options, mountpoint: &Path, die: Die) -> Result<ServerHandle> {
    let mountpoint = mountpoint
        .canonicalize()
        .with_context(|| format!("mount point {mountpoint:?}"))?;
    let (server, mount) = start(options, die, Some(mountpoint.clone()))?;
    attach(&mount, &mountpoint)?;
    Ok(server)
}

/// Makes a detached mount of a union, served by a process of its own. The
/// server ends when the last reference to the mount is gone.
pub fn detached(options: &Options, die: Die) -> Result<(ServerHandle, OwnedFd)> {
    start(options, die, None)
}

fn start(
    options: &Options,
    die: Die,
    mountpoint: Option<PathBuf>,
) -> Result<(ServerHandle, OwnedFd)> {
    let device = device::open()?;
    let (await_mount, mounted) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let (report, reporter) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let starter = Pid::this();
    let ForkResult::Parent { child } = sys::fork()? else {
        let parts = Parts {
            starter,
            device,
            await_mount,
            reporter,
        };
        let served = run(options, die, mountpoint, parts);
        sys::exit(u8::from(served.is_err()))
    };
    drop((await_mount, reporter));
    let mut report = File::from(report);
    // The server reports that the branches are open, or why not.
    expect(&mut report)?;
    let mount = device::mount(&device, options)?;
    drop(device);
    drop(mounted);
    expect(&mut report)?;
    Ok((ServerHandle { pid: child }, mount))
}

/// The byte that reports a part as done.
const DONE: u8 = 0;

fn expect(report: &mut File) -> Result<()> {
    let mut first = [0];
    match report
        .read(&mut first)
        .context("read from the server's pipe")?
    {
        0 => bail!("the server of the union died"),
        _ if first == [DONE] => Ok(()),
        _ => {
            let mut text = first.to_vec();
            report
                .read_to_end(&mut text)
                .context("read from the server's pipe")?;
            Err(anyhow!("{}", String::from_utf8_lossy(&text)))
        }
    }
}

/// What the server's process keeps of its starter: the PID and descriptors.
struct Parts {
    starter: Pid,
    device: OwnedFd,
    await_mount: OwnedFd,
    reporter: OwnedFd,
}

fn run(options: &Options, die: Die, mountpoint: Option<PathBuf>, parts: Parts) -> Result<()> {
    let mut reporter = File::from(parts.reporter);
    let opened = become_server(
        die,
        parts.starter,
        &parts.device,
        &parts.await_mount,
        &reporter,
    )
    .and_then(|()| Union::open(options));
    let served = opened.and_then(|union| {
        rustix::process::chdir("/").context("chdir(\"/\")")?;
        reporter.write_all(&[DONE]).context("tell the starter")?;
        // The end of the pipe means that the mount exists.
        let mut await_mount = File::from(parts.await_mount);
        await_mount
            .read_to_end(&mut Vec::new())
            .context("wait for the mount")?;
        answer(union, parts.device, mountpoint, || {
            // A starter that has gone needs no answer.
            reporter.write_all(&[DONE]).ok();
            Ok(())
        })
    });
    if let Err(error) = &served {
        // As above.
        reporter.write_all(format!("{error:#}").as_bytes()).ok();
    }
    served
}

/// Gives up everything that belongs to the starter: its session, its signal
/// mask, its descriptors. A pipe that stays open would make its reader wait for
/// ever.
fn become_server(
    die: Die,
    starter: Pid,
    device: &OwnedFd,
    await_mount: &OwnedFd,
    reporter: &File,
) -> Result<()> {
    ending_signals()
        .thread_set_mask()
        .context("sigprocmask(SIG_SETMASK)")?;
    rustix::process::setsid().context("setsid")?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open(\"/dev/null\")")?;
    rustix::stdio::dup2_stdin(&null).context("dup2(stdin)")?;
    rustix::stdio::dup2_stdout(&null).context("dup2(stdout)")?;
    rustix::stdio::dup2_stderr(&null).context("dup2(stderr)")?;
    drop(null);
    sys::close_except(&[device.as_fd(), await_mount.as_fd(), reporter.as_fd()])?;
    if die == Die::WithParent {
        set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .context("prctl(PR_SET_PDEATHSIG)")?;
        // It may have ended before the call.
        if Pid::parent() != starter {
            bail!("the starter has ended");
        }
    }
    Ok(())
}

/// Answers the kernel's requests until the mount is gone. Calls `ready` after
/// the handshake with the kernel (FUSE_INIT); if `ready` fails, nothing is
/// served.
fn answer(
    union: Union,
    device: OwnedFd,
    mountpoint: Option<PathBuf>,
    ready: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // Files are made with the mode that the kernel asks for.
    umask(rustix::fs::Mode::empty());
    raise_file_limit();
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let raw = device.as_raw_fd();
    let session = Session::from_fd(Server(Arc::new(union)), device, SessionACL::All, config)
        .with_context(|| format!("FUSE_INIT over descriptor {raw}"))?;
    // A signal that arrives before `ready` has returned is pending until then:
    // there may be nothing to unmount yet but another's mount.
    let (begin, begins) = mpsc::channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if begins.recv().is_ok() {
                end_by_signal(mountpoint);
            }
        })
        .context("start a thread")?;
    ready()?;
    begin.send(()).context("tell the thread for signals")?;
    session.run().context("serve the union")
}

/// Raises the limit on open files to the maximum: each open file of the union
/// is one of this process.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A lower limit works for fewer files.
    setrlimit(Resource::Nofile, raised).ok();
}

fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect()
}

/// Waits for a signal to end, and unmounts. Files that are still open in the
/// union end with the process.
fn end_by_signal(mountpoint: Option<PathBuf>) {
    if ending_signals().wait().is_err() {
        return;
    }
    if let Some(mountpoint) = mountpoint {
        // It may be unmounted already.
        unmount(&mountpoint, UnmountFlags::DETACH).ok();
    }
    sys::exit(0)
}

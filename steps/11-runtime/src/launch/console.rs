//! The command's standard streams, and its terminal: a pseudo-terminal of the
//! container's own, whose other side goes to whoever listens on
//! `--console-socket` (unix(7), `SCM_RIGHTS`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kit::say;
use mount::detached::Detached;
use mount::target::{FileKind, Target};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::unistd::setsid;
use process::handover::send;
use process::{Isolation, inside};
use rustix::fs::{Gid, Uid, fchown, fstatfs};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::config::ConsoleSize;
use crate::launch::rootfs::SharedRoot;

/// The type of devpts (statfs(2)).
const DEVPTS_SUPER_MAGIC: u32 = 0x1cd1;

/// The isolation that gives the command a session, and a terminal if it wants
/// one.
pub(crate) struct Console {
    /// Where the terminal's other side goes. `None`: no terminal.
    pub socket: Option<PathBuf>,
    /// The root while it is not `/`; `None` in a container that exists.
    pub root: Option<SharedRoot>,
    pub size: Option<ConsoleSize>,
    /// Who gets the streams.
    pub owner: (u32, u32),
    pub connected: Option<UnixStream>,
}

impl Console {
    pub(crate) fn new(
        socket: Option<PathBuf>,
        root: Option<SharedRoot>,
        size: Option<ConsoleSize>,
        owner: (u32, u32),
    ) -> Self {
        Console {
            socket,
            root,
            size,
            owner,
            connected: None,
        }
    }
}

impl Isolation for Console {
    fn name(&self) -> &'static str {
        "console"
    }

    fn prepare(&mut self) -> Result<()> {
        if let Some(path) = &self.socket {
            let socket = UnixStream::connect(path)
                .with_context(|| format!("--console-socket: connect to {path:?}"))?;
            self.connected = Some(socket);
        }
        Ok(())
    }

    /// The socket until the terminal's other side is sent.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.connected.iter().map(AsFd::as_fd).collect()
    }

    fn in_container(&mut self) -> Result<()> {
        // The leader of a process group may not make a session; a new process is
        // none, unless the caller has made it one.
        match setsid() {
            Ok(_) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno).context("setsid"),
        }
        if let Some(socket) = self.connected.take() {
            let terminal = self.open(socket)?;
            // Before the wait for the start: whoever reads what `create` prints
            // waits until nobody has that pipe open.
            ioctl_tiocsctty(&terminal).context("ioctl(TIOCSCTTY)")?;
            dup2_stdin(&terminal).context("dup2(0)")?;
            dup2_stdout(&terminal).context("dup2(1)")?;
            dup2_stderr(&terminal).context("dup2(2)")?;
        }
        for stream in [stdin(), stdout(), stderr()] {
            give(stream, self.owner)?;
        }
        Ok(())
    }
}

impl Console {
    /// Makes a terminal of the container's, and sends its other side.
    fn open(&self, socket: UnixStream) -> Result<OwnedFd> {
        let own;
        let root = match &self.root {
            Some(root) => root.get()?.fd(),
            None => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                own = inside::open(Path::new("/"), flags).context("open(/)")?;
                own.as_fd()
            }
        };
        let master = multiplexer(root)?;
        unlockpt(&master).context("ioctl(TIOCSPTLCK)")?;
        // By the master's descriptor: the terminal's name could lead anywhere.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&master, flags).context("ioctl(TIOCGPTPEER)")?;
        if let Some(ConsoleSize { height, width }) = self.size {
            let size = Winsize {
                ws_row: height,
                ws_col: width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&master, size).context("ioctl(TIOCSWINSZ)")?;
        }
        // Programs without another terminal write to /dev/console.
        if self.root.is_some() {
            let console = Target::new(Path::new("/dev/console"))?;
            let console = console.open_or_make(root, FileKind::File)?;
            Detached::copy_of_fd(terminal.as_fd(), Path::new("the terminal"))?
                .attach(console.as_fd())
                .context("mount the terminal on /dev/console")?;
        }
        send(&socket, master.as_fd()).context("--console-socket")?;
        Ok(terminal)
    }
}

/// Opens the multiplexer of the container's own devpts. An image may have put
/// anything by that name.
fn multiplexer(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    const PTMX: &str = "dev/pts/ptmx";
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let master = openat2(root, PTMX, how).with_context(|| {
        format!("open(/{PTMX}): a terminal needs a devpts, mounted on /dev/pts")
    })?;
    let kind = fstatfs(&master).context("fstatfs")?.f_type;
    ensure!(
        kind as u64 == u64::from(DEVPTS_SUPER_MAGIC),
        "/{PTMX} of the container is not on a devpts"
    );
    say!("the terminal is descriptor {}", master.as_raw_fd());
    Ok(master)
}

/// Gives a stream to the command's user, who otherwise could not open
/// /dev/stdout. The null device is everybody's.
fn give(stream: impl AsFd, (uid, gid): (u32, u32)) -> Result<()> {
    let Ok(stat) = fstat(&stream) else {
        // It is closed.
        return Ok(());
    };
    if stat.st_rdev == nix::sys::stat::makedev(1, 3) || stat.st_uid == uid {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match fchown(&stream, Some(uid), Some(gid)) {
        Ok(()) => Ok(()),
        // Another's, not mapped, or on a file system that has no owners.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => Ok(()),
        Err(errno) => Err(errno).context("fchown(a standard stream)"),
    }
}

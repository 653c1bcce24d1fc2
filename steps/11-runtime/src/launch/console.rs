//! The command's standard streams, and its terminal: a pseudo-terminal of the
//! container's own. Its other side goes to whoever listens on
//! `--console-socket` (unix(7), `SCM_RIGHTS`), or stays with the runtime, which
//! relays between it and the caller's streams as long as the command runs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine::terminal::pty::{HostSide, copy_size, hosts_terminal};
use kit::{SignalNumber, say};
use mount::detached::Detached;
use mount::target::{FileKind, Target};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::unistd::{Pid, setsid};
use process::handover::send;
use process::{Isolation, inside};
use rustix::fs::{Uid, fchown, fstatfs};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::config::ConsoleSize;
use crate::launch::rootfs::SharedRoot;

/// The type of devpts (statfs(2)).
const DEVPTS_SUPER_MAGIC: u32 = 0x1cd1;

/// Whether the command gets a terminal, and who gets its other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// No terminal.
    None,
    /// Whoever listens on this socket.
    SentTo(PathBuf),
    /// The runtime, which stays until the command ends.
    Relayed,
}

impl Terminal {
    /// The terminal for a process that `wants` one or not.
    ///
    /// # Errors
    /// If nobody would take the other side: a runtime that `leaves` cannot.
    pub(crate) fn choose(wants: bool, socket: Option<&Path>, leaves: bool) -> Result<Terminal> {
        match (wants, socket) {
            (true, Some(socket)) => Ok(Terminal::SentTo(socket.to_owned())),
            (true, None) => {
                ensure!(
                    !leaves,
                    "cannot allocate tty if the runtime will detach without setting console \
                     socket: process.terminal is true, so give --console-socket"
                );
                Ok(Terminal::Relayed)
            }
            (false, None) => Ok(Terminal::None),
            (false, Some(_)) => bail!(
                "--console-socket needs a terminal: process.terminal, or --tty of exec, to be true"
            ),
        }
    }
}

/// The isolation that gives the command a session, and a terminal if it wants
/// one.
pub(crate) struct Console {
    pub terminal: Terminal,
    /// The root while it is not `/`; `None` in a container that exists.
    pub root: Option<SharedRoot>,
    pub size: Option<ConsoleSize>,
    /// Who gets the streams.
    pub owner: u32,
    /// The child's way to whoever gets the other side.
    connected: Option<OwnedFd>,
    /// The launcher's end of it, for a terminal that is relayed.
    launchers: Option<OwnedFd>,
    host: HostSide,
}

impl Console {
    pub(crate) fn new(
        terminal: Terminal,
        root: Option<SharedRoot>,
        size: Option<ConsoleSize>,
        owner: u32,
    ) -> Self {
        Console {
            terminal,
            root,
            size,
            owner,
            connected: None,
            launchers: None,
            host: HostSide::default(),
        }
    }
}

impl Isolation for Console {
    fn name(&self) -> &'static str {
        "console"
    }

    fn prepare(&mut self) -> Result<()> {
        match &self.terminal {
            Terminal::None => {}
            Terminal::SentTo(path) => {
                let socket = UnixStream::connect(path)
                    .with_context(|| format!("--console-socket: connect to {path:?}"))?;
                self.connected = Some(socket.into());
            }
            Terminal::Relayed => {
                let kind = SocketType::STREAM;
                let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
                let (ours, theirs) = pair.context("socketpair")?;
                self.launchers = Some(ours);
                self.connected = Some(theirs);
            }
        }
        Ok(())
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        // Only the child has it now: if it dies, the socket is at its end.
        self.connected = None;
        match self.launchers.take() {
            Some(socket) => self.host.open(socket, true),
            None => Ok(()),
        }
    }

    /// The socket until the terminal's other side is sent.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.connected.iter().map(AsFd::as_fd).collect()
    }

    fn in_container(&mut self) -> Result<()> {
        let terminal = match self.connected.take() {
            Some(socket) => {
                // Closed when this process was born: dropping it would close its
                // number again.
                let _closed = self.launchers.take().map(IntoRawFd::into_raw_fd);
                // It looks for the caller's terminal, which a session loses.
                Some(self.open(socket)?)
            }
            None => None,
        };
        // The leader of a process group may not make a session; a new process is
        // none, unless the caller has made it one.
        match setsid() {
            Ok(_) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno).context("setsid"),
        }
        // Before the wait for the start: whoever reads what `create` prints waits
        // until nobody has that pipe open.
        if let Some(terminal) = terminal {
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

    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        match self.terminal {
            Terminal::Relayed => self.host.signal(signal),
            _ => Ok(false),
        }
    }

    fn cleanup(&mut self) -> Result<()> {
        // After an aborted launch both ends may still be open.
        self.connected = None;
        self.launchers = None;
        self.host.close();
        Ok(())
    }
}

impl Console {
    /// Makes a terminal of the container's, and sends its other side.
    fn open(&self, socket: OwnedFd) -> Result<OwnedFd> {
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
        // The window in which it appears has a size already.
        if self.terminal == Terminal::Relayed
            && let Some(hosts) = hosts_terminal()?
        {
            copy_size(&hosts, &master)?;
        }
        // Programs without another terminal write to /dev/console.
        if self.root.is_some() {
            let console = Target::new(Path::new("/dev/console"))?;
            let console = console.open_or_make(root, FileKind::File)?;
            Detached::copy_of_fd(terminal.as_fd(), Path::new("the terminal"))?
                .attach(console.as_fd())
                .context("mount the terminal on /dev/console")?;
        }
        send(&socket, master.as_fd()).context("send the terminal")?;
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
///
/// The group stays: a terminal's is that of the programs that write to others'
/// terminals.
fn give(stream: impl AsFd, uid: u32) -> Result<()> {
    let Ok(stat) = fstat(&stream) else {
        // It is closed.
        return Ok(());
    };
    if stat.st_rdev == nix::sys::stat::makedev(1, 3) || stat.st_uid == uid {
        return Ok(());
    }
    match fchown(&stream, Some(Uid::from_raw(uid)), None) {
        Ok(()) => Ok(()),
        // Another's, not mapped, or on a file system that has no owners.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => Ok(()),
        Err(errno) => Err(errno).context("fchown(a standard stream)"),
    }
}

//! A pseudo-terminal of the container's own.
//!
//! The child makes it, in the devpts of its own `/dev/pts`, and sends the
//! master's descriptor to the launcher over a socket (unix(7), `SCM_RIGHTS`).
//! So the launcher opens nothing in the container's file system, where it would
//! have to trust what it finds. Inside, tty(1) prints `/dev/pts/0`, and that
//! name leads to this terminal.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use kit::{SignalNumber, say};
use mount::detached::Detached;
use mount::target::{FileKind, Target};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use process::handover::{receive, send};
use process::{Isolation, inside};
use rustix::fs::fstatfs;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use crate::terminal::handed::{Ends, Kept};
use crate::terminal::pipes::duplicate;
use crate::terminal::raw::Raw;
use crate::terminal::relay::{self, Relay, Unheard};
use crate::terminal::{Owner, give};

/// The type of devpts, the file system of pseudo-terminals (statfs(2)).
const DEVPTS_SUPER_MAGIC: u32 = 0x1cd1;

/// A pseudo-terminal, with both its sides.
pub struct Pty {
    interactive: bool,
    owner: Owner,
    /// The launcher's end, and the child's.
    socket: Option<(OwnedFd, OwnedFd)>,
    /// In the child: the terminal itself (the slave of pty(7)).
    terminal: Option<OwnedFd>,
    /// In the launcher.
    host: HostSide,
    /// Where the launcher's end of the socket goes, if the launcher is to
    /// receive the master itself.
    ends: Option<Ends>,
    /// Whether the terminal becomes the container's `/dev/console`.
    console: bool,
}

impl Pty {
    pub(super) fn new(interactive: bool, owner: Owner) -> Self {
        Pty {
            interactive,
            owner,
            socket: None,
            terminal: None,
            host: HostSide::default(),
            ends: None,
            console: true,
        }
    }

    pub(super) fn of_further_process(self) -> Self {
        Pty {
            console: false,
            ..self
        }
    }

    pub(super) fn handed_over(owner: Owner, ends: Ends) -> Self {
        Pty {
            ends: Some(ends),
            ..Pty::new(true, owner)
        }
    }
}

impl Isolation for Pty {
    fn name(&self) -> &'static str {
        "pty"
    }

    fn prepare(&mut self) -> Result<()> {
        let kind = SocketType::STREAM;
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        self.socket = Some(pair.context("socketpair")?);
        Ok(())
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        let Some((socket, theirs)) = self.socket.take() else {
            return Ok(());
        };
        // Only the child has that end now: if it dies, the socket is at its
        // end.
        drop(theirs);
        if let Some(ends) = &self.ends {
            ends.put(Kept::Terminal { socket });
            return Ok(());
        }
        self.host.open(socket, self.interactive)
    }

    /// The socket until the master is sent, and then the terminal until it is
    /// the standard streams.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let socket = self.socket.iter().map(|(_, socket)| socket.as_fd());
        socket
            .chain(self.terminal.iter().map(AsFd::as_fd))
            .collect()
    }

    // ANCHOR: in_container
    fn in_container(&mut self) -> Result<()> {
        let master = multiplexer()?;
        unlockpt(&master).context("ioctl(TIOCSPTLCK)")?;
        // By the master's descriptor: the terminal's name could lead anywhere
        // by now.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&master, flags).context("ioctl(TIOCGPTPEER)")?;
        if let Some(hosts) = hosts_terminal()? {
            copy_size(&hosts, &master)?;
        }
        let name = ptsname(&master, Vec::new()).context("ptsname")?;
        say!("the terminal is {name:?}");
        if self.console {
            mount_console(&terminal)?;
        }
        if let Some((launchers, socket)) = self.socket.take() {
            // Closed when this process was born: dropping it would close its
            // number again.
            let _closed = launchers.into_raw_fd();
            send(&socket, master.as_fd())?;
        }
        self.terminal = Some(terminal);
        Ok(())
    }
    // ANCHOR_END: in_container

    fn before_exec(&mut self) -> Result<()> {
        let Some(terminal) = self.terminal.take() else {
            return Ok(());
        };
        give(&terminal, &self.owner)?;
        ioctl_tiocsctty(&terminal).context("ioctl(TIOCSCTTY)")?;
        dup2_stdin(&terminal).context("dup2(0)")?;
        dup2_stdout(&terminal).context("dup2(1)")?;
        dup2_stderr(&terminal).context("dup2(2)")
    }

    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        self.host.signal(signal)
    }

    fn cleanup(&mut self) -> Result<()> {
        // After an aborted launch both ends may still be open.
        self.socket = None;
        self.host.close();
        Ok(())
    }
}

/// The launcher's side of a pseudo-terminal: relays between the master and the
/// caller's streams, whose terminal is raw meanwhile.
#[derive(Default)]
pub struct HostSide {
    /// The master, once it has arrived.
    master: Arc<OnceLock<Arc<OwnedFd>>>,
    carrier: Option<JoinHandle<Option<Relay>>>,
    raw: Option<Raw>,
}

impl HostSide {
    /// Waits for the master from `socket` in a thread, and relays. The child
    /// must have the only other end: if it dies, the socket is at its end.
    pub fn open(&mut self, socket: OwnedFd, interactive: bool) -> Result<()> {
        let (input, output) = (duplicate(stdin())?, duplicate(stdout())?);
        if interactive && stdin().is_terminal() {
            self.raw = Some(Raw::enter(duplicate(stdin())?)?);
        }
        let master = Arc::clone(&self.master);
        let carrier = thread::Builder::new().name("terminal".into());
        let carrier = carrier.spawn(move || {
            let received = receive(&socket).and_then(|received| {
                let received = Arc::new(received);
                master.get_or_init(|| Arc::clone(&received));
                if interactive {
                    relay::input(input, Arc::clone(&received))?;
                }
                Relay::output(received, output, Unheard::Read)
            });
            match received {
                Ok(relay) => Some(relay),
                Err(error) => {
                    say!("no terminal came: {error:#}");
                    None
                }
            }
        });
        self.carrier = Some(carrier.context("start a thread")?);
        Ok(())
    }

    /// SIGWINCH: copies the size of the window to the terminal. The kernel then
    /// signals the foreground process group there; nobody else needs the
    /// signal. SIGCONT: enters raw mode again.
    pub fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        match signal.named() {
            Some(Signal::SIGWINCH) => {
                if let (Some(hosts), Some(master)) = (hosts_terminal()?, self.master.get()) {
                    copy_size(&hosts, master)?;
                }
                Ok(true)
            }
            Some(Signal::SIGCONT) => {
                if let Some(raw) = &self.raw {
                    raw.again()?;
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Relays what the command has written, and restores the caller's terminal.
    pub fn close(&mut self) {
        if let Some(carrier) = self.carrier.take() {
            match carrier.join() {
                Ok(Some(relay)) => relay.finish(),
                Ok(None) => {}
                Err(_) => say!("the thread of the terminal panicked"),
            }
        }
        self.raw = None;
    }
}

/// Mounts the terminal on `/dev/console`: programs without another one write
/// there.
fn mount_console(terminal: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let root = inside::open(Path::new("/"), flags).context("open(/)")?;
    let console = Target::new(Path::new("/dev/console"))?;
    let console = console.open_or_make(root.as_fd(), FileKind::File)?;
    Detached::copy_of_fd(terminal.as_fd(), Path::new("the terminal"))?
        .attach(console.as_fd())
        .context("mount the terminal on /dev/console")
        .map(drop)
}

/// Opens the multiplexer of the container's own devpts. An image's mount on
/// `/dev` may hold anything by that name.
fn multiplexer() -> Result<OwnedFd> {
    const PTMX: &str = "/dev/pts/ptmx";
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = inside::open(Path::new(PTMX), flags).with_context(|| format!("open({PTMX})"))?;
    let found = fstatfs(&master).context("fstatfs")?;
    ensure!(
        found.f_type as u64 == u64::from(DEVPTS_SUPER_MAGIC),
        "{PTMX} of the container is not on a devpts: what is mounted on /dev?"
    );
    Ok(master)
}

/// The first of the standard streams that is a terminal.
pub fn hosts_terminal() -> Result<Option<OwnedFd>> {
    if stdin().is_terminal() {
        return duplicate(stdin()).map(Some);
    }
    if stdout().is_terminal() {
        return duplicate(stdout()).map(Some);
    }
    let found = stderr().is_terminal().then(|| duplicate(stderr()));
    found.transpose()
}

/// Gives a terminal the size of another one.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let size = tcgetwinsize(from).context("ioctl(TIOCGWINSZ)")?;
    tcsetwinsize(to, size).context("ioctl(TIOCSWINSZ)")
}

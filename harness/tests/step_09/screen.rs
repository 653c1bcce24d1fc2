//! A program on a terminal of the check's own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use check::prelude::*;
use check::sys::{Streams, spawn_on_pty};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A program on a terminal of its own, of which the check is the user.
pub(crate) struct Screen {
    child: Child,
    terminal: File,
    /// All that has been printed.
    text: String,
    /// How far of it has been waited for.
    read: usize,
}

impl Screen {
    /// Starts a program, with a window of 33 rows and 101 columns.
    pub(crate) fn start(step: &Step) -> Result<Self> {
        let (child, terminal) = spawn_on_pty(&mut step.command(), Streams::All)?;
        let mut screen = Screen {
            child,
            terminal: File::from(terminal),
            text: String::new(),
            read: 0,
        };
        screen.resize(33, 101)?;
        Ok(screen)
    }

    /// Makes the window another size, of which the kernel tells the foreground.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.terminal, size).context("ioctl(TIOCSWINSZ)")
    }

    /// Whether the terminal is as it was: lines, echo, signals.
    pub(crate) fn is_cooked(&self) -> Result<bool> {
        let modes = tcgetattr(&self.terminal).context("tcgetattr")?.local_modes;
        let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        Ok(modes.contains(cooked))
    }

    /// Types.
    pub(crate) fn press(&mut self, keys: &str) -> Result<()> {
        self.terminal
            .write_all(keys.as_bytes())
            .context("write to the terminal")
    }

    /// Reads until `text` is there, behind what was waited for before.
    pub(crate) fn until(&mut self, text: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.text[self.read..].find(text) {
                self.read += at + text.len();
                return Ok(());
            }
            if Instant::now() > end || !self.more()? {
                return Err(failed(
                    format!("{text:?} on the terminal"),
                    format!("{:?}", &self.text[self.read..]),
                ));
            }
        }
    }

    /// Reads what there is within a moment; whether there may be more.
    fn more(&mut self) -> Result<bool> {
        let mut fds = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(200_u8)).context("poll the terminal")? == 0 {
            return Ok(true);
        }
        let mut bytes = [0; 4096];
        match self.terminal.read(&mut bytes) {
            // EIO: nobody has it open any more.
            Ok(0) | Err(_) => Ok(false),
            Ok(length) => {
                self.text += &String::from_utf8_lossy(&bytes[..length]);
                Ok(true)
            }
        }
    }

    /// Waits for the program's end: its status and all that it printed.
    pub(crate) fn end(mut self) -> Result<(Option<i32>, String)> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.more()? && Instant::now() < end {
            if self.child.try_wait().context("wait")?.is_some() {
                while self.more()? && Instant::now() < end {}
                break;
            }
        }
        let Some(status) = ended(&mut self.child)? else {
            return Err(failed("the program to end", "it still running"));
        };
        Ok((status.code(), std::mem::take(&mut self.text)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            for left in host::children(self.child.id() as i32).unwrap_or_default() {
                kill_hard(left.pid);
            }
            kill_hard(self.child.id() as i32);
            if let Err(error) = self.child.wait() {
                eprintln!("wait: {error}");
            }
        }
    }
}

/// Waits ten seconds at most for a program's end.
pub(crate) fn ended(child: &mut Child) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match child.try_wait().context("wait")? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            found => return Ok(found),
        }
    }
}

fn kill_hard(pid: i32) {
    if let Err(errno) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
        eprintln!("kill {pid}: {errno}");
    }
}

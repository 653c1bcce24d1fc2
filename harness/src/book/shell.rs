//! Runs the sessions of the book: in the virtual machine, a shell a session,
//! command by command.
//!
//! The shell reads its commands from a pipe, and so do the shells that they
//! start: the pipe is their standard input too. That works because a command
//! is written only when the one before has ended. What tells the end is a
//! marker that the shell prints after each.

use std::io::{self, Read, Write, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A command takes this long at most; under emulation everything is slow.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// The byte around a marker: no program prints it by chance.
const MARK: char = '\u{1e}';

/// A root file system that no session has changed.
pub const PRISTINE: &str = "/srv/.busybox";

/// The commands of one page on one layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The page's name.
    pub name: String,
    /// What is typed, in order.
    pub lines: Vec<Line>,
}

/// One command of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// What is typed.
    pub text: String,
    /// What it does to the nesting of shells.
    pub kind: Kind,
}

/// What a command does to the nesting of shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Starts a shell that reads the next commands.
    Enters,
    /// Ends such a shell.
    Leaves,
}

/// What a command printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// The session.
    pub session: String,
    /// Its place in the session.
    pub place: usize,
    /// Standard output and standard error, as they came.
    pub text: String,
}

/// Gives the next session a root file system of its own, and no layers of the
/// one before.
///
/// # Errors
/// If it cannot be copied.
pub fn fresh_rootfs() -> Result<()> {
    let script = format!("rm -rf /var/lib/drydock /srv/busybox && cp -a {PRISTINE} /srv/busybox");
    let copied = Command::new("sh").args(["-c", &script]).status();
    match copied.context("run sh")?.success() {
        true => Ok(()),
        false => bail!("{script}: failed"),
    }
}

/// Runs one session and hands on each output. A session that hangs is ended,
/// and the outputs of its other commands are missing.
///
/// # Errors
/// If the shell cannot be started, ends too early, or a command does not end.
pub fn run(session: &Session, on_output: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
    let mut shell = Shell::start()?;
    for (place, line) in session.lines.iter().enumerate() {
        let text = shell
            .run(line)
            .with_context(|| format!("{}: {:?}", session.name, line.text))?;
        on_output(Output {
            session: session.name.clone(),
            place,
            text,
        })?;
    }
    Ok(())
}

struct Shell {
    child: Child,
    output: Receiver<Vec<u8>>,
    unread: Vec<u8>,
}

impl Shell {
    fn start() -> Result<Self> {
        let (mut reader, writer) = pipe().context("pipe")?;
        let child = Command::new("sh")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().context("dup")?)
            .stderr(writer)
            .spawn()
            .context("run sh")?;
        let (send, output) = channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Shell {
            child,
            output,
            unread: Vec::new(),
        })
    }

    fn run(&mut self, line: &Line) -> Result<String> {
        // The status is handed through, for a following `echo $?`.
        let mark = r"(s=$?; printf '\036'; exit $s)";
        let Line { text, kind } = line;
        match kind {
            Kind::Plain => {
                self.write(&format!("{text}\n{mark}\n"))?;
                self.until_mark()
            }
            // The outer shell has read its whole line before the first marker,
            // so the inner one finds what is written after it.
            Kind::Enters => {
                self.write(&format!("printf '\\036'; {text}; {mark}\n"))?;
                self.until_mark()
            }
            // The marker that the outer shell prints when the inner has ended.
            Kind::Leaves => {
                self.write(&format!("{text}\n"))?;
                self.until_mark()
            }
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the shell's input")?;
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .context("write to the shell")
    }

    fn until_mark(&mut self) -> Result<String> {
        let until = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == MARK as u8) {
                let bytes: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&bytes[..end]).into_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.unread.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {
                    let so_far = String::from_utf8_lossy(&self.unread).into_owned();
                    bail!("it did not end; so far it printed {so_far:?}");
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the shell ended"),
            }
        }
    }
}

impl Drop for Shell {
    /// Ends the shell and whatever it has left in the background: without job
    /// control all of that is in its process group.
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        let ended = killpg(group, Signal::SIGKILL)
            .map_err(io::Error::from)
            .and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("end the shell: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_in_shells_take_their_turns() {
        let line = |text: &str, kind| Line {
            text: text.to_owned(),
            kind,
        };
        let session = Session {
            name: "x".to_owned(),
            lines: vec![
                line("a=1; false", Kind::Plain),
                line("echo $?", Kind::Plain),
                line("sh", Kind::Enters),
                line("a=2; echo $a", Kind::Plain),
                line("exit 3", Kind::Leaves),
                line("echo $? $a", Kind::Plain),
                line("sleep 0 & cat <<E\nb\nE", Kind::Plain),
            ],
        };
        let mut outputs = Vec::new();
        run(&session, &mut |output| {
            outputs.push(output.text);
            Ok(())
        })
        .unwrap();
        assert_eq!(outputs, ["", "1\n", "", "2\n", "", "3 1\n", "b\n"]);
    }
}

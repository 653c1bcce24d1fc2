//! Runs the sessions of the book in the virtual machine: one shell per session,
//! command by command.
//!
//! The shell reads its commands from a pipe. So do the shells that these
//! commands start, whose standard input is the same pipe. That works because a
//! command is written only after the one before has ended. The shell prints a
//! marker after each command, which tells its end.

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

/// The time limit of one command. Everything is slow under emulation.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// The marker: a byte that no program prints by chance.
const MARK: char = '\u{1e}';

/// A root file system that no session has changed.
pub const PRISTINE: &str = "/srv/.busybox";

/// The commands of one page on one layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The page's name.
    pub name: String,
    /// The commands, in order.
    pub lines: Vec<Line>,
}

/// One command of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The text that is typed.
    pub text: String,
    /// The effect on the nesting of shells.
    pub kind: Kind,
}

/// The effect of a command on the nesting of shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Leaves the nesting as it is.
    Plain,
    /// Starts a shell that reads the next commands.
    Enters,
    /// Ends such a shell.
    Leaves,
}

/// The output of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// The name of the session.
    pub session: String,
    /// The index of the command in the session, from 0.
    pub place: usize,
    /// Standard output and standard error, in the order of arrival.
    pub text: String,
}

/// Gives the next session a fresh root file system and removes the state of the
/// session before.
pub fn fresh_rootfs() -> Result<()> {
    let script = format!("rm -rf /var/lib/drydock /srv/busybox && cp -a {PRISTINE} /srv/busybox");
    let copied = Command::new("sh").args(["-c", &script]).status();
    match copied.context("run sh")?.success() {
        true => Ok(()),
        false => bail!("{script}: failed"),
    }
}

/// Runs one session and passes on each output. If a command does not end, the
/// session is ended, and the outputs of the remaining commands are missing.
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
        // Passes the status on, for a following `echo $?`.
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
            // The outer shell prints this marker when the inner shell has
            // ended.
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
    /// Kills the shell and everything it has left in the background. Without
    /// job control all of that is in its process group.
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

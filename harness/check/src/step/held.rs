//! A held container: its command waits, and answers questions, while the check
//! looks at the host.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::outside::{self, Pipes};
use super::ran::{Ran, status, words};
use super::said;
use crate::expect::failed;
use crate::host;
use crate::outcome::Failed;
use crate::seen::Seen;

/// Longest time for a running program to answer or to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A container whose command is `probe hold`, which waits and answers
/// questions.
///
/// When dropped, it is killed together with its launcher.
pub struct Held {
    call: String,
    launcher: Option<Child>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pipes: Pipes,
    seen: Seen,
}

impl Held {
    /// Wraps a program that has just been started with pipes on its standard
    /// streams.
    pub(crate) fn of(call: String, mut launcher: Child) -> Result<Self> {
        let stdin = launcher.stdin.take().context("no standard input")?;
        let stdout = launcher.stdout.take().context("no standard output")?;
        Ok(Held {
            pipes: Pipes::of(&stdin, &stdout)?,
            call,
            launcher: Some(launcher),
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
            seen: Seen::default(),
        })
    }

    /// Waits until the probe inside has started and reported, and compares the
    /// report with what the host sees.
    ///
    /// # Errors
    /// [`Failed`] if the command does not run, or is not what the answer says.
    pub fn wait_until_held(&mut self) -> Result<()> {
        self.seen = self.read()?;
        outside::agrees(&self.call, self.launcher(), self.pipes, &self.seen)
    }

    /// Has the probe inside report again, and compares that report too with
    /// what the host sees.
    ///
    /// # Errors
    /// [`Failed`] without a report, or if it is not what the host sees.
    pub fn report(&mut self) -> Result<Seen> {
        let seen = self.ask(&["report"])?;
        outside::agrees(&self.call, self.launcher(), self.pipes, &seen)?;
        Ok(seen)
    }

    /// The report of the probe at its start.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The launcher's PID.
    pub fn launcher(&self) -> i32 {
        self.launcher.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// The PID, on the host, of the container's first process, which is the
    /// launcher's child.
    ///
    /// # Errors
    /// [`Failed`] if the launcher does not have exactly one child.
    pub fn pid(&self) -> Result<i32> {
        let children = host::children(self.launcher())?;
        match children.as_slice() {
            [child] => Ok(child.pid),
            others => Err(failed(
                format!("`{}` to have one child", self.call),
                format!("{}", others.len()),
            )),
        }
    }

    /// Makes the probe inside do something more that has no answer. `args` are
    /// its arguments.
    ///
    /// # Errors
    /// [`Failed`] if it is gone.
    pub fn tell(&mut self, args: &[&str]) -> Result<()> {
        let question = serde_json::to_string(args).context("write the question as JSON")? + "\n";
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin
            .write_all(question.as_bytes())
            .map_err(|e| anyhow!(Failed(format!("the probe in `{}` is gone: {e}", self.call))))
    }

    /// Makes the probe inside do something more. `args` are its arguments.
    ///
    /// # Errors
    /// [`Failed`] without an answer of this type.
    pub fn ask<T: DeserializeOwned>(&mut self, args: &[&str]) -> Result<T> {
        self.ask_within(args, ANSWER_LIMIT)
    }

    /// Does the same as [`ask`](Self::ask), with a time limit of its own.
    pub fn ask_within<T: DeserializeOwned>(&mut self, args: &[&str], limit: Duration) -> Result<T> {
        self.tell(args)?;
        self.read_within(limit)
    }

    /// Reads the next line of the probe as JSON.
    ///
    /// # Errors
    /// [`Failed`] without a line, or if it is not of this type.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.read_within(ANSWER_LIMIT)
    }

    /// Does the same as [`read`](Self::read), with a time limit of its own.
    pub fn read_within<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        let line = self.line_within(limit)?;
        serde_json::from_str(&line).map_err(|e| {
            let why = if line.is_empty() {
                self.last_words()
            } else {
                format!("{line:?} ({e})")
            };
            failed(format!("an answer from the probe in `{}`", self.call), why)
        })
    }

    /// The next line of the probe; empty at the end of its output.
    fn line_within(&mut self, limit: Duration) -> Result<String> {
        if self.stdout.buffer().is_empty() {
            let mut ready = [PollFd::new(
                self.stdout.get_ref().as_fd(),
                PollFlags::POLLIN,
            )];
            let timeout = PollTimeout::try_from(limit).context("a time limit")?;
            let answered = loop {
                match poll(&mut ready, timeout) {
                    // For example because this process was stopped and
                    // continued.
                    Err(Errno::EINTR) => {}
                    answered => break answered.context("poll the probe")?,
                }
            };
            if answered == 0 {
                return Err(failed(
                    format!("an answer from the probe in `{}`", self.call),
                    format!("none within {limit:?}"),
                ));
            }
        }
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .context("read from the probe")?;
        Ok(line)
    }

    /// Reads and compares the report of a probe that need not be held longer,
    /// and waits for the launcher's end, which must be a success.
    pub(super) fn report_and_end(mut self) -> Result<Seen> {
        let line = self.line_within(ANSWER_LIMIT)?;
        if line.is_empty() {
            return self.end()?.success()?.json();
        }
        self.seen = Ran::printed(&self.call, line).json()?;
        outside::agrees(&self.call, self.launcher(), self.pipes, &self.seen)?;
        let seen = std::mem::take(&mut self.seen);
        self.end()?.success()?;
        Ok(seen)
    }

    fn last_words(&mut self) -> String {
        self.stdin = None;
        let Some(child) = self.launcher.take() else {
            return "nothing".into();
        };
        match child.wait_with_output() {
            Ok(output) => {
                said::keep(&self.call, &String::from_utf8_lossy(&output.stderr));
                let ended = format!("its end with status {}", status(output.status));
                match String::from_utf8_lossy(&output.stderr).trim() {
                    "" => ended,
                    said => format!("{ended}, saying {}", words(said)),
                }
            }
            Err(e) => e.to_string(),
        }
    }

    /// Sends a signal to the launcher.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.launcher()), signal)
            .with_context(|| format!("kill({}, {signal})", self.launcher()))
    }

    /// Closes the probe's standard input: the probe then ends with status 0.
    pub fn let_go(&mut self) {
        self.stdin = None;
    }

    /// Closes the probe's standard input and waits for the launcher.
    pub fn end(mut self) -> Result<Ran> {
        self.let_go();
        self.wait()
    }

    /// Waits for the launcher, which must end for another reason.
    ///
    /// # Errors
    /// [`Failed`] if it does not end in time. It is then killed, with its
    /// children.
    pub fn wait(mut self) -> Result<Ran> {
        let mut child = self
            .launcher
            .take()
            .context("the launcher has been waited for")?;
        let end = Instant::now() + ANSWER_LIMIT;
        while child.try_wait().context("wait for the launcher")?.is_none() {
            if Instant::now() > end {
                for left in host::children(child.id() as i32)? {
                    kill_hard(left.pid);
                }
                kill_hard(child.id() as i32);
                child.wait().context("wait for the launcher")?;
                return Err(failed(
                    format!("`{}` to end", self.call),
                    format!("it still running after {ANSWER_LIMIT:?}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut output = child.wait_with_output().context("wait for the launcher")?;
        self.stdout
            .read_to_end(&mut output.stdout)
            .context("read what the launcher printed")?;
        Ok(Ran::of(self.call.clone(), &output))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut child) = self.launcher.take() else {
            return;
        };
        // The probe ends at the end of its input; a faulty launcher may not
        // notice. The host guard finds what is left.
        self.stdin = None;
        for _ in 0..200 {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return keep_words(&self.call, &mut child),
            }
        }
        keep_words(&self.call, &mut child);
        for left in host::children(child.id() as i32).unwrap_or_default() {
            kill_hard(left.pid);
        }
        if let Err(e) = child.kill().and_then(|()| child.wait()) {
            eprintln!("kill the launcher of `{}`: {e}", self.call);
        }
    }
}

/// Keeps the launcher's standard error so far for the report. Others may still
/// have the pipe, so it cannot be read to its end.
fn keep_words(call: &str, child: &mut Child) {
    let Some(stderr) = child.stderr.take() else {
        return;
    };
    let mut bytes = Vec::new();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
    while poll(&mut ready, PollTimeout::ZERO) == Ok(1) {
        let mut some = [0; 4096];
        match nix::unistd::read(&stderr, &mut some) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&some[..length]),
            _ => break,
        }
    }
    said::keep(call, &String::from_utf8_lossy(&bytes));
}

/// Sends SIGKILL. A process may be gone by now.
fn kill_hard(pid: i32) {
    if let Err(errno) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        && errno != Errno::ESRCH
    {
        eprintln!("kill {pid}: {errno}");
    }
}

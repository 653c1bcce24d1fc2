//! Running a step's program, to its end or while it is looked at.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::check::failed;
use crate::host;
use crate::outcome::Failed;
use crate::seen::Seen;
use crate::workspace;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a program may take before it counts as hung. Generous: under
/// emulation a machine is twenty times slower.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// How long a running program may take to answer or to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whether anything under test was started yet.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has called a program under test, or is about to.
pub fn started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// A call of a step's program, under construction.
pub struct Step {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    user: Option<u32>,
    stdin: Vec<u8>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it was called, for messages.
    pub call: String,
    /// Exit status; 128 + N where signal N ended the program itself.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Step {
    /// A call of `program` without arguments.
    pub fn new(program: PathBuf) -> Self {
        Step {
            program,
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            stdin: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it as an ordinary user: this uid, the same gid, no other groups.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// What it reads from standard input; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    fn call(&self) -> String {
        let mut words = vec![
            self.program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        ];
        words.extend(
            self.args
                .iter()
                .map(|arg| arg.to_string_lossy().into_owned()),
        );
        words.join(" ")
    }

    /// The call as a command of the standard library, for what this type
    /// cannot express.
    pub fn command(&self) -> Command {
        STARTED.store(true, Ordering::Relaxed);
        let mut command = Command::new(&self.program);
        // The probe is found on the host, and /bin/probe in a root file system.
        command.env(
            "PATH",
            format!("{}:{DEFAULT_PATH}", workspace::bin().display()),
        );
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Failed`] if it does not end in time or cannot be started.
    pub fn run(self) -> Result<Ran> {
        let call = self.call();
        let output = assert_cmd::Command::from_std(self.command())
            .write_stdin(self.stdin)
            .timeout(TIME_LIMIT)
            .output()
            .map_err(|e| anyhow!(Failed(format!("`{call}` could not be run: {e}"))))?;
        if output.status.signal() == Some(libc::SIGKILL) && output.status.code().is_none() {
            return Err(failed(
                format!("`{call}` to end within {TIME_LIMIT:?}"),
                "it had to be killed",
            ));
        }
        Ok(Ran {
            call,
            status: status(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `probe report` as the command and returns what it saw.
    ///
    /// # Errors
    /// [`Failed`] if the program fails or prints no report.
    pub fn probe(self) -> Result<Seen> {
        self.args(["probe", "report"]).run()?.success()?.json()
    }

    /// Starts it with `probe hold` as the command, and returns while that runs.
    ///
    /// # Errors
    /// [`Failed`] if the command does not come to run.
    pub fn hold(self) -> Result<Held> {
        let mut held = self.start_holding()?;
        held.wait_until_held()?;
        Ok(held)
    }

    /// Starts it with `probe hold` as the command and does not wait:
    /// [`Held::wait_until_held`] does.
    ///
    /// # Errors
    /// [`Failed`] if it cannot be started.
    pub fn start_holding(self) -> Result<Held> {
        self.args(["probe", "hold"]).start()
    }

    /// Starts it, with pipes on its standard streams.
    ///
    /// # Errors
    /// [`Failed`] if it cannot be started.
    pub fn start(self) -> Result<Held> {
        let call = self.call();
        let mut launcher = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| anyhow!(Failed(format!("`{call}` could not be run: {e}"))))?;
        let stdin = launcher.stdin.take().context("no standard input")?;
        let stdout = launcher.stdout.take().context("no standard output")?;
        Ok(Held {
            call,
            launcher: Some(launcher),
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
            seen: Seen::default(),
        })
    }
}

/// SIGKILL. A process that is gone meanwhile needs none.
fn kill_hard(pid: i32) {
    if let Err(errno) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        && errno != Errno::ESRCH
    {
        eprintln!("kill {pid}: {errno}");
    }
}

fn status(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

impl Ran {
    /// Goes on if the exit status was 0.
    ///
    /// # Errors
    /// [`Failed`] with what it said on standard error.
    pub fn success(self) -> Result<Self> {
        self.expect_status(0)
    }

    /// Goes on if the exit status was `expected`.
    ///
    /// # Errors
    /// [`Failed`] with what it said on standard error.
    pub fn expect_status(self, expected: i32) -> Result<Self> {
        if self.status == expected {
            return Ok(self);
        }
        Err(failed(
            format!("`{}` to exit with {expected}", self.call),
            format!("{}{}", self.status, self.said()),
        ))
    }

    /// Goes on if it failed as a program should on bad input: this exit
    /// status, nothing on standard output, one line on standard error that
    /// holds every one of `words`.
    ///
    /// # Errors
    /// [`Failed`] with what it said instead.
    pub fn expect_error(self, expected: i32, words: &[&str]) -> Result<Self> {
        let ran = self.expect_status(expected)?;
        let lines = ran.stderr.lines().count();
        if lines != 1 {
            return Err(failed(
                format!("one line on standard error from `{}`", ran.call),
                format!("{lines}{}", ran.said()),
            ));
        }
        for word in words {
            if !ran.stderr.contains(word) {
                return Err(failed(
                    format!("the error of `{}` to name {word:?}", ran.call),
                    format!("{:?}", ran.stderr.trim()),
                ));
            }
        }
        Ok(ran)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// [`Failed`] with the output if it is not.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.stdout).map_err(|e| {
            anyhow!(Failed(format!(
                "`{}` printed no report ({e}): {:?}{}",
                self.call,
                self.stdout,
                self.said()
            )))
        })
    }

    fn said(&self) -> String {
        match self.stderr.trim() {
            "" => String::new(),
            text => format!(", saying {}", words(text)),
        }
    }
}

/// What a program has said, quoted: its first and last lines, if it is much; of
/// an exercise that was not begun, only that.
fn words(said: &str) -> String {
    if let Some((_, rest)) = said.split_once("not yet implemented: ") {
        return format!("{:?}", rest.lines().next().unwrap_or_default());
    }
    let lines: Vec<&str> = said.lines().collect();
    match lines.as_slice() {
        [first, second, .., last] if lines.len() > 8 => {
            format!("{:?}", [*first, *second, "…", *last].join("\n"))
        }
        _ => format!("{said:?}"),
    }
}

/// A container whose command is `probe hold`: it waits, and answers questions.
///
/// Dropped, it is killed together with its launcher.
pub struct Held {
    call: String,
    launcher: Option<Child>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    seen: Seen,
}

impl Held {
    /// Waits until the probe inside has started, and said what it sees.
    ///
    /// # Errors
    /// [`Failed`] if the command does not come to run.
    pub fn wait_until_held(&mut self) -> Result<()> {
        self.seen = self.read()?;
        Ok(())
    }

    /// What the probe saw when it started.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The launcher's PID.
    pub fn launcher(&self) -> i32 {
        self.launcher.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// The PID, on the host, of the container's first process: the child of
    /// the launcher.
    ///
    /// # Errors
    /// [`Failed`] if the launcher has not exactly one child.
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

    /// Has the probe inside do something more: its arguments, one line.
    ///
    /// # Errors
    /// [`Failed`] if there is no answer of that type.
    pub fn ask<T: DeserializeOwned>(&mut self, args: &[&str]) -> Result<T> {
        self.ask_within(args, ANSWER_LIMIT)
    }

    /// The same, for what may take longer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_within<T: DeserializeOwned>(&mut self, args: &[&str], limit: Duration) -> Result<T> {
        let question = serde_json::to_string(args).context("write the question as JSON")? + "\n";
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin
            .write_all(question.as_bytes())
            .map_err(|e| anyhow!(Failed(format!("the probe in `{}` is gone: {e}", self.call))))?;
        self.read_within(limit)
    }

    /// Reads the next line that the probe prints.
    ///
    /// # Errors
    /// [`Failed`] if there is none, or not of that type.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.read_within(ANSWER_LIMIT)
    }

    /// The same, for an answer that may take longer.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_within<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        if self.stdout.buffer().is_empty() {
            let mut ready = [PollFd::new(
                self.stdout.get_ref().as_fd(),
                PollFlags::POLLIN,
            )];
            let timeout = PollTimeout::try_from(limit).context("a time limit")?;
            let answered = loop {
                match poll(&mut ready, timeout) {
                    // Stopped and continued, say.
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
        serde_json::from_str(&line).map_err(|e| {
            let why = if line.is_empty() {
                self.last_words()
            } else {
                format!("{line:?} ({e})")
            };
            failed(format!("an answer from the probe in `{}`", self.call), why)
        })
    }

    fn last_words(&mut self) -> String {
        self.stdin = None;
        let Some(child) = self.launcher.take() else {
            return "nothing".into();
        };
        match child.wait_with_output() {
            Ok(output) => {
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
    ///
    /// # Errors
    /// Those of kill(2).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.launcher()), signal)
            .with_context(|| format!("kill({}, {signal})", self.launcher()))
    }

    /// Closes the probe's standard input, at which it ends with status 0.
    pub fn let_go(&mut self) {
        self.stdin = None;
    }

    /// Closes the probe's standard input and waits for the launcher.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn end(mut self) -> Result<Ran> {
        self.let_go();
        self.wait()
    }

    /// Waits for the launcher, which something else makes end.
    ///
    /// # Errors
    /// [`Failed`] if it does not end in time: it is then killed, with its
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
        let output = child.wait_with_output().context("wait for the launcher")?;
        Ok(Ran {
            call: self.call.clone(),
            status: status(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut child) = self.launcher.take() else {
            return;
        };
        // The probe ends at the end of its input; a launcher that is wrong
        // may not notice. What is left is the guard's to find.
        self.stdin = None;
        for _ in 0..200 {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        for left in host::children(child.id() as i32).unwrap_or_default() {
            kill_hard(left.pid);
        }
        if let Err(e) = child.kill().and_then(|()| child.wait()) {
            eprintln!("kill the launcher of `{}`: {e}", self.call);
        }
    }
}

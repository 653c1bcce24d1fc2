//! Runs a step's program to its end, or holds it while a check looks at it.
//!
//! | module | what |
//! |---|---|
//! | here | a call of the program: [`Step`] |
//! | `ran` | its end and its output: [`Ran`] |
//! | `held` | a container that waits and answers questions: [`Held`] |
//! | `outside` | whether its answers agree with what the host sees |
//! | [`said`] | standard error of all of them, for the report |

mod held;
mod outside;
mod ran;
pub mod said;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::expect::failed;
use crate::outcome::Failed;
use crate::seen::Seen;
use crate::workspace;

pub use held::Held;
pub use ran::Ran;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest run of a program, beyond which it counts as hung. Generous: an
/// emulated machine is twenty times slower.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// Whether a program under test was started.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has called a program under test, or is about to.
pub fn started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// A call of a step's program, built up by its methods.
#[derive(Clone)]
pub struct Step {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    user: Option<u32>,
    stdin: Vec<u8>,
}

impl Step {
    /// Begins a call of `program` without arguments.
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

    /// Runs the program as an ordinary user: this UID, the same GID, no other
    /// groups.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// Sets the standard input; empty by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub(crate) fn call(&self) -> String {
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

    /// The call as a command of the standard library, for options that this
    /// type lacks.
    pub fn command(&self) -> Command {
        STARTED.store(true, Ordering::Relaxed);
        let mut command = Command::new(&self.program);
        // To find the probe on the host, and /bin/probe in a root file system.
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

    /// Runs the program to its end.
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
        Ok(Ran::of(call, &output))
    }

    /// Runs the probe as the command and returns its report, compared with what
    /// the host sees. The program must then end with status 0.
    ///
    /// # Errors
    /// [`Failed`] if the program fails, or if the report is not what the host
    /// sees.
    pub fn probe(self) -> Result<Seen> {
        self.report(&[] as &[&str])
    }

    /// Does the same as [`probe`](Self::probe), with words that the report
    /// prints back.
    pub fn report<S: AsRef<OsStr>>(self, words: &[S]) -> Result<Seen> {
        // It is held for a moment, but whoever repeats the call by hand wants
        // to see the report.
        let as_typed = |step: Step| step.args(["probe", "report"]).args(words).call();
        let held = self.clone().args(["probe", "hold"]).args(words);
        held.start_as(as_typed(self))?.report_and_end()
    }

    /// Starts the program with `probe hold` as the command, and returns once
    /// that runs.
    ///
    /// # Errors
    /// [`Failed`] if the command does not run.
    pub fn hold(self) -> Result<Held> {
        let mut held = self.start_holding()?;
        held.wait_until_held()?;
        Ok(held)
    }

    /// Starts the program with `probe hold` as the command, without waiting for
    /// that: [`Held::wait_until_held`] waits.
    ///
    /// # Errors
    /// [`Failed`] if the program cannot be started.
    pub fn start_holding(self) -> Result<Held> {
        self.args(["probe", "hold"]).start()
    }

    /// Starts the program with pipes on its standard streams.
    ///
    /// # Errors
    /// [`Failed`] if it cannot be started.
    pub fn start(self) -> Result<Held> {
        let call = self.call();
        self.start_as(call)
    }

    /// Does the same as [`start`](Self::start), with another call in messages.
    fn start_as(self, call: String) -> Result<Held> {
        let launcher = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| anyhow!(Failed(format!("`{call}` could not be run: {e}"))))?;
        Held::of(call, launcher)
    }
}

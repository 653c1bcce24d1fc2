//! How errors travel and how they end: exit statuses as Docker's, and the
//! child's error brought back to the launcher with every word of its context.

use std::fmt;

use anyhow::{Error, anyhow};

/// Exit status when the launcher itself fails, before the command could run.
pub const LAUNCHER_FAILED: u8 = 125;
/// Exit status when the command exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit status when the command is not found.
pub const NOT_FOUND: u8 = 127;

/// An error with an exit status of its own.
#[derive(Debug)]
pub struct Failure {
    /// The exit status of the launcher: 125, 126 or 127, or 128 + the signal
    /// that broke the set-up off.
    pub status: u8,
    message: String,
}

impl Failure {
    /// An error that ends the launcher with `status`.
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Failure {
            status,
            message: message.into(),
        }
    }

    /// The exit status that `error` asks for: that of the `Failure` in its
    /// chain, else [`LAUNCHER_FAILED`].
    pub fn status_of(error: &Error) -> u8 {
        // ANCHOR: exercise_exit_status
        error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Failure>())
            .map_or(LAUNCHER_FAILED, |failure| failure.status)
        // ANCHOR_END: exercise_exit_status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

// ANCHOR: report
/// What the child writes into the report pipe, one tag byte first.
///
/// The order is the protocol: `SetUp` at most once, then either `Failed` and
/// the end of the pipe, or nothing and the end of the pipe, which execve(2)
/// brings about because the pipe is close-on-exec.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every `in_container` is done.
    SetUp,
    /// Something failed. The child is about to exit.
    Failed(Error),
}
// ANCHOR_END: report

impl Report {
    const SET_UP: u8 = b'S';
    const FAILED: u8 = b'F';

    /// Whether the report that begins with `bytes` goes on to the end of the pipe.
    pub(crate) fn goes_on(bytes: &[u8]) -> bool {
        bytes != [Self::SET_UP]
    }

    /// The bytes for the pipe. An error is its exit status and the chain of
    /// its contexts, outermost first, with a NUL byte between them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Report::SetUp => vec![Self::SET_UP],
            Report::Failed(error) => {
                let mut bytes = vec![Self::FAILED, Failure::status_of(error)];
                let chain: Vec<String> = error
                    .chain()
                    .map(|c| c.to_string().replace('\0', "\\0"))
                    .collect();
                bytes.extend_from_slice(chain.join("\0").as_bytes());
                bytes
            }
        }
    }

    /// Reads one report from the front of `bytes`; `None` where there is none:
    /// the child has exec'ed, or died without a word.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Report> {
        match bytes {
            [] => None,
            [Self::SET_UP, ..] => Some(Report::SetUp),
            [Self::FAILED, status, chain @ ..] => {
                let text = String::from_utf8_lossy(chain);
                let mut causes = text.rsplit('\0');
                let root = Failure::new(*status, causes.next().unwrap_or_default());
                Some(Report::Failed(
                    causes.fold(Error::new(root), |error, context| {
                        error.context(context.to_owned())
                    }),
                ))
            }
            [tag, ..] => Some(Report::Failed(anyhow!(
                "the child sent an unknown report ({tag:#x})"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_survives_the_pipe_with_its_chain_and_status() {
        let error = Err::<(), _>(Failure::new(NOT_FOUND, "ENOENT"))
            .context("execve(\"x\")")
            .context("process")
            .unwrap_err();
        let Some(Report::Failed(read)) = Report::decode(&Report::Failed(error).encode()) else {
            panic!("no failure came back");
        };
        assert_eq!(format!("{read:#}"), "process: execve(\"x\"): ENOENT");
        assert_eq!(Failure::status_of(&read), NOT_FOUND);
    }

    #[test]
    fn an_unknown_report_is_an_error_and_no_report_is_none() {
        assert!(matches!(Report::decode(b"?"), Some(Report::Failed(_))));
        assert!(Report::decode(b"").is_none());
    }
}

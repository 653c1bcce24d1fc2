//! Errors and their exit statuses, which are like Docker's, and the reports
//! that bring the child's error to the launcher with its complete context.

use std::fmt;

use anyhow::{Error, anyhow};

/// Exit status when the launcher itself fails.
pub const LAUNCHER_FAILED: u8 = 125;
/// Exit status when the command exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit status when the command is not found.
pub const NOT_FOUND: u8 = 127;

/// An error with an exit status of its own.
#[derive(Debug)]
pub struct Failure {
    /// The exit status of the launcher: 125, 126 or 127, or 128 + N if signal N
    /// interrupted the set-up.
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

    /// The exit status for `error`: that of the `Failure` in its chain, else
    /// [`LAUNCHER_FAILED`].
    pub fn status_of(error: &Error) -> u8 {
        error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Failure>())
            .map_or(LAUNCHER_FAILED, |failure| failure.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

// ANCHOR: report
/// A message from the child in the report pipe, with a tag as its first byte.
///
/// The protocol: `SetUp` at most once, then either `Failed` and end of file, or
/// end of file alone. execve(2) causes the latter, because the pipe is
/// close-on-exec. A child that waits at a [`Gate`](crate::Gate) sends `Waits`
/// after `SetUp`, and its last report goes there.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every `in_container` and `adjust` has succeeded.
    SetUp,
    /// The child no longer depends on the launcher, and waits at its gate.
    Waits,
    /// Something has failed. The child is about to exit.
    Failed(Error),
}
// ANCHOR_END: report

impl Report {
    const SET_UP: u8 = b'S';
    const WAITS: u8 = b'W';
    const FAILED: u8 = b'F';

    /// Whether the report that begins with `bytes` continues to the end of the
    /// pipe.
    pub(crate) fn goes_on(bytes: &[u8]) -> bool {
        bytes != [Self::SET_UP] && bytes != [Self::WAITS]
    }

    /// Encodes the report for the pipe. An error is encoded as its exit status
    /// and the chain of its contexts, outermost first, separated by NUL bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Report::SetUp => vec![Self::SET_UP],
            Report::Waits => vec![Self::WAITS],
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

    /// Decodes the report at the start of `bytes`. Returns `None` if `bytes` is
    /// empty: the child has executed the command, or died without a report.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Report> {
        match bytes {
            [] => None,
            [Self::SET_UP, ..] => Some(Report::SetUp),
            [Self::WAITS, ..] => Some(Report::Waits),
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

//! An ended program: its status and its output.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;

use super::said;
use crate::expect::failed;
use crate::outcome::Failed;

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The call, for messages.
    pub call: String,
    /// Exit status; 128 + N if signal N ended the program.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    pub(super) fn of(call: String, output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        said::keep(&call, &stderr);
        Ran {
            call,
            status: status(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr,
        }
    }

    /// A program that has printed this and still runs.
    pub(super) fn printed(call: &str, stdout: String) -> Self {
        Ran {
            call: call.to_owned(),
            status: 0,
            stdout,
            stderr: String::new(),
        }
    }

    /// Requires exit status 0.
    ///
    /// # Errors
    /// [`Failed`] with its standard error.
    pub fn success(self) -> Result<Self> {
        self.expect_status(0)
    }

    /// Requires the exit status `expected`.
    ///
    /// # Errors
    /// [`Failed`] with its standard error.
    pub fn expect_status(self, expected: i32) -> Result<Self> {
        if self.status == expected {
            return Ok(self);
        }
        Err(failed(
            format!("`{}` to exit with {expected}", self.call),
            format!("{}{}", self.status, self.said()),
        ))
    }

    /// Requires the failure of a good program on bad input: this exit status,
    /// no standard output, and one line on standard error that contains all of
    /// `words`.
    ///
    /// # Errors
    /// [`Failed`] with the actual output.
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

    /// Parses standard output as JSON.
    ///
    /// # Errors
    /// [`Failed`] with the output if it does not parse.
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

    /// Status and standard error, in words for a [`Failed`].
    pub(crate) fn end(&self) -> String {
        format!("its end with status {}{}", self.status, self.said())
    }

    fn said(&self) -> String {
        match self.stderr.trim() {
            "" => String::new(),
            text => format!(", saying {}", words(text)),
        }
    }
}

pub(super) fn status(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A program's standard error, quoted: without warnings, if there is more; first
/// and last lines, if there are many; for an unfinished exercise only the words
/// that say so.
pub(super) fn words(said: &str) -> String {
    if let Some((_, rest)) = said.split_once("not yet implemented: ") {
        return format!("{:?}", rest.lines().next().unwrap_or_default());
    }
    let mut lines: Vec<&str> = said.lines().collect();
    if lines.iter().any(|line| !line.starts_with("warning: ")) {
        lines.retain(|line| !line.starts_with("warning: "));
    }
    match lines.as_slice() {
        [first, second, .., last] if lines.len() > 8 => {
            format!("{:?}", [*first, *second, "…", *last].join("\n"))
        }
        _ => format!("{:?}", lines.join("\n")),
    }
}

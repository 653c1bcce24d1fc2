//! A program that has ended: how, and what it has said.

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
    /// How it was called, for messages.
    pub call: String,
    /// Exit status; 128 + N where signal N ended the program itself.
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

    /// How it ended and what it has said, as what was found.
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

/// What a program has said, quoted: its first and last lines, if it is much; of
/// an exercise that was not begun, only that.
pub(super) fn words(said: &str) -> String {
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

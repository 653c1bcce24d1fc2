//! Errors of a build, with the lines of the Dockerfile that they are about.

use std::fmt;
use std::ops::Range;

use anyhow::{Error, Result, anyhow};

/// The lines of the Dockerfile that an error is about: a context of the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(pub Range<usize>);

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.0.start)
    }
}

/// An error about these lines of the Dockerfile.
pub fn at<T>(lines: &Range<usize>, done: Result<T>) -> Result<T> {
    done.map_err(|error| match error.downcast_ref::<Lines>() {
        Some(_) => error,
        None => error.context(Lines(lines.clone())),
    })
}

/// What an error says, without its [`Lines`].
pub fn words(error: &Error) -> String {
    let lines = error.downcast_ref::<Lines>().map(ToString::to_string);
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    if let Some(lines) = lines
        && let Some(place) = causes.iter().position(|cause| *cause == lines)
    {
        causes.remove(place);
    }
    causes.join(": ")
}

/// The error of a build that somebody has broken off.
pub fn canceled() -> Error {
    anyhow!("Canceled: context canceled")
}

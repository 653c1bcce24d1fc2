//! An error of a Dockerfile.

use std::fmt;
use std::ops::Range;

/// What is wrong with a Dockerfile, and where. [`lines_of`](super::lines_of) finds it
/// in an error for [`mark`](super::mark()).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The lines, from 1, the last one excluded; none for a trigger.
    pub lines: Range<usize>,
    message: String,
}

impl Wrong {
    /// An error of the file's form.
    pub(super) fn syntax(lines: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { lines, message }
    }

    /// An error of what an instruction says.
    pub(super) fn instruction(lines: Range<usize>, message: impl fmt::Display) -> Self {
        let message = match lines.is_empty() {
            true => message.to_string(),
            false => format!("dockerfile parse error on line {}: {message}", lines.start),
        };
        Self { lines, message }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

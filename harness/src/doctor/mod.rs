//! What this machine can and cannot do, found out by looking, and by trying
//! where looking does not tell.

pub mod isolation;
pub mod machine;
pub mod tools;

use std::fs;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Some things do not work here, or not as well.
    Limited,
    /// The checks cannot run.
    Bad,
}

/// What was found of one thing.
pub struct Finding {
    /// How good it is.
    pub grade: Grade,
    /// The thing.
    pub name: &'static str,
    /// How it is.
    pub found: String,
    /// What follows from that, if it is not good.
    pub means: String,
    /// How to mend it.
    pub mend: String,
}

impl Finding {
    /// A thing that is as it should be.
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Good,
            name,
            found: found.into(),
            means: String::new(),
            mend: String::new(),
        }
    }

    /// A thing with limits.
    pub fn limited(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Limited,
            ..Finding::good(name, found)
        }
    }

    /// A thing that is in the way.
    pub fn bad(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Bad,
            ..Finding::good(name, found)
        }
    }

    /// Says what follows.
    #[must_use]
    pub fn means(mut self, text: impl Into<String>) -> Self {
        self.means = text.into();
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn mend(mut self, text: impl Into<String>) -> Self {
        self.mend = text.into();
        self
    }
}

/// A file's text, without the space around it; nothing if it cannot be read.
fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

//! Examines what this machine can do: by looking, and by trying where looking
//! is not enough.

pub mod isolation;
pub mod machine;
pub mod tools;

use std::fs;

/// The grade of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Everything works.
    Good,
    /// Some things do not work, or work less well.
    Limited,
    /// The checks cannot run.
    Bad,
}

/// The result of one examination.
pub struct Finding {
    /// How good the result is.
    pub grade: Grade,
    /// Name of what was examined.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// Consequence of a bad result; else empty.
    pub means: String,
    /// Remedy for a bad result; else empty.
    pub mend: String,
}

impl Finding {
    /// A finding that everything works.
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Good,
            name,
            found: found.into(),
            means: String::new(),
            mend: String::new(),
        }
    }

    /// A finding with limits.
    pub fn limited(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Limited,
            ..Finding::good(name, found)
        }
    }

    /// A finding that prevents the checks.
    pub fn bad(name: &'static str, found: impl Into<String>) -> Self {
        Finding {
            grade: Grade::Bad,
            ..Finding::good(name, found)
        }
    }

    /// Sets the consequence.
    #[must_use]
    pub fn means(mut self, text: impl Into<String>) -> Self {
        self.means = text.into();
        self
    }

    /// Sets the remedy.
    #[must_use]
    pub fn mend(mut self, text: impl Into<String>) -> Self {
        self.mend = text.into();
        self
    }
}

/// Reads a file, without surrounding white space; `None` if it cannot be read.
fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

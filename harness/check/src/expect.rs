//! The errors with which a check fails, and their wording.

use std::fmt::{Debug, Display};

use anyhow::{Result, anyhow};

use crate::outcome::{Failed, Unsupported};

/// The error that fails the check: `expected` is not what was `found`.
///
/// Both are parts of a sentence: `failed("no zombie", "one, pid 7")` reads
/// "expected no zombie, found one, pid 7".
pub fn failed(expected: impl Display, found: impl Display) -> anyhow::Error {
    anyhow!(Failed(format!("expected {expected}, found {found}")))
}

/// Fails the check with the error of [`failed`] unless `holds`.
pub fn expect(holds: bool, expected: impl Display, found: impl Display) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(failed(expected, found))
    }
}

/// Fails the check unless the two are equal: "expected the PID inside to be 1,
/// found 7".
pub fn expect_eq<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(failed(
            format!("{what} to be {}", shown(&expected)),
            shown(&found),
        ))
    }
}

/// A value in words for readers who need not know Rust: the content of an
/// `Option`, or "nothing".
fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    if text == "None" {
        return "nothing".to_owned();
    }
    let inner = text.strip_prefix("Some(").and_then(|t| t.strip_suffix(')'));
    inner.map_or(text.clone(), str::to_owned)
}

/// The error that marks the check as unsupported: this machine lacks `missing`.
pub fn unsupported(missing: impl Into<String>) -> anyhow::Error {
    anyhow!(Unsupported(missing.into()))
}

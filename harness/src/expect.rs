//! The words with which a check fails.

use std::fmt::{Debug, Display};

use anyhow::{Result, anyhow};

use crate::outcome::{Failed, Unsupported};

/// The check fails here: `expected` was not what was seen.
///
/// Both are parts of a sentence: `failed("no zombie", "one, pid 7")` reads
/// "expected no zombie, found one, pid 7".
pub fn failed(expected: impl Display, found: impl Display) -> anyhow::Error {
    anyhow!(Failed(format!("expected {expected}, found {found}")))
}

/// Goes on if `holds`, else fails the check as [`failed`] does.
///
/// # Errors
/// [`Failed`].
pub fn expect(holds: bool, expected: impl Display, found: impl Display) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(failed(expected, found))
    }
}

/// Goes on if the two are equal, else fails the check:
/// "expected the PID inside to be 1, found 7".
///
/// # Errors
/// [`Failed`].
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

/// A value as a reader wants it, who need not know Rust: what is in an option,
/// or nothing.
fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    if text == "None" {
        return "nothing".to_owned();
    }
    let inner = text.strip_prefix("Some(").and_then(|t| t.strip_suffix(')'));
    inner.map_or(text.clone(), str::to_owned)
}

/// The check cannot be run here: says what is missing.
pub fn unsupported(missing: impl Into<String>) -> anyhow::Error {
    anyhow!(Unsupported(missing.into()))
}

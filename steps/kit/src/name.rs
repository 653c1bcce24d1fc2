//! Names that people give: to containers, volumes, networks.

use anyhow::{Result, bail};

/// Checks that `name` can be such a name: a file name that says nothing to a
/// shell.
///
/// # Errors
/// Says what a name is made of.
pub fn check(name: &str) -> Result<()> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 128
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(usual)
    {
        bail!(
            "{name:?} is no name: use letters, digits, _ . and -, the first a letter or digit, at \
             most 128"
        );
    }
    Ok(())
}

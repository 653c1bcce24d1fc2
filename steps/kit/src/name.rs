//! Names that users give to containers, volumes and networks.

use anyhow::{Result, bail};

/// Checks a name: 1 to 128 ASCII letters, digits, `_`, `.` and `-`, of which
/// the first is a letter or a digit. Such a name is a file name, and contains
/// nothing that is special to a shell.
pub fn check(name: &str) -> Result<()> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 128
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(usual)
    {
        bail!(
            "{name:?} is not a name: use letters, digits, _ . and -, the first a letter or digit, \
             at most 128"
        );
    }
    Ok(())
}

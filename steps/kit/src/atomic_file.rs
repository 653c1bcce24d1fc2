//! Files that are there whole or not at all: written under another name, then
//! rename(2).

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::own::remove_file;

/// Writes a file so that it is there whole or not at all: under another name,
/// then rename(2). Others may write the same file at the same time. The other
/// name begins with a dot, which no id and no name does: what a killed process
/// leaves of it is known by that.
///
/// # Errors
/// Those of writing; nothing is left of it then.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let name = path
        .file_name()
        .with_context(|| format!("{path:?} has no name"))?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(draft);
    let written = write_new(&new, content).and_then(|()| {
        fs::rename(&new, path).with_context(|| format!("rename({new:?}, {path:?})"))
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) => match remove_file(&new) {
            Ok(()) => Err(error),
            Err(more) => Err(error.context(format!("and what there is of it stays: {more:#}"))),
        },
    }
}

/// Writes a file that is not there, for the caller alone to read and write. What
/// is there is of a killed process that had the same PID, and goes.
///
/// # Errors
/// Those of open(2) and write(2).
pub fn write_new(new: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    remove_file(new)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .with_context(|| format!("open({new:?}, O_CREAT)"))?;
    file.write_all(content.as_ref())
        .with_context(|| format!("write {new:?}"))
}

//! Reading and writing the files of a cgroup: one value, one system call.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;

const ENODEV: i32 = Errno::ENODEV as i32;
const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;

/// Writes `value` into a file that exists, in one write(2): the kernel takes
/// each one as a whole.
///
/// # Errors
/// Those of open(2), and what the controller answers to the value.
pub(crate) fn write(file: &Path, value: &str) -> Result<()> {
    // fs::write would ask for the file to be made, and a missing one would be
    // EACCES instead of ENOENT.
    OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("write {value:?} to {}", file.display()))
}

/// Reads a whole file, without the newline at its end.
///
/// # Errors
/// Those of open(2) and read(2).
pub(crate) fn read(file: &Path) -> Result<String> {
    let mut text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// As [`read`], but `None` where there is no such file, or no longer such a
/// group (`ENODEV`).
///
/// # Errors
/// As [`read`], for everything else. `EOPNOTSUPP` is how the kernel says that
/// pressure is not accounted for, and counts as no such file.
pub(crate) fn read_if_there(file: &Path) -> Result<Option<String>> {
    match read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match error.downcast_ref::<std::io::Error>() {
            Some(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Some(e) if [Some(ENODEV), Some(EOPNOTSUPP)].contains(&e.raw_os_error()) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The number behind `key` in a file of lines `key number` (cgroup-v2.rst,
/// "flat keyed"); `None` where the file or the key is missing.
///
/// # Errors
/// As [`read_if_there`].
pub(crate) fn keyed(file: &Path, key: &str) -> Result<Option<u64>> {
    Ok(read_if_there(file)?.and_then(|text| value_of(&text, key)))
}

/// The number behind `key` in the text of such a file.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

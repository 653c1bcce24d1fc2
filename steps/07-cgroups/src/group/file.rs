//! Files of a cgroup, read and written: one value, one system call.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;

const ENODEV: i32 = Errno::ENODEV as i32;
const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;

/// Writes `value` into an existing file in one write(2): the kernel takes each
/// write as a whole. The error is the controller's.
pub(crate) fn write(file: &Path, value: &str) -> Result<()> {
    // fs::write would create the file, and a missing one would then fail with
    // EACCES instead of ENOENT.
    OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("write {value:?} to {}", file.display()))
}

/// Reads a whole file, without its trailing newline.
pub(crate) fn read(file: &Path) -> Result<String> {
    let mut text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Reads a file as [`read`] does; `None` if the file or its group no longer
/// exists (`ENOENT`, `ENODEV`), or if the kernel does not account for pressure
/// (`EOPNOTSUPP`).
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

/// The number of `key` in a file of lines `key number` (cgroup-v2.rst, "flat
/// keyed"); `None` if the file or the key is missing.
pub(crate) fn keyed(file: &Path, key: &str) -> Result<Option<u64>> {
    Ok(read_if_there(file)?.and_then(|text| value_of(&text, key)))
}

/// The number of `key` in the text of such a file.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

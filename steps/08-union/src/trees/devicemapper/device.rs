//! Devices of the device mapper: created and removed with dmsetup(8), found in
//! sysfs(5).

use std::fs::{self, File};
use std::io::ErrorKind::{InvalidInput, NotFound};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::errno::Errno;

use crate::trees::program;

/// The node of a device, if the device exists: `/dev/dm-N`, where
/// `/sys/block/dm-N/dm/name` holds the name. The kernel makes this node
/// (devtmpfs); the nodes in `/dev/mapper` are made by udev, where it runs.
pub(crate) fn node(name: &str) -> Result<Option<PathBuf>> {
    let block = Path::new("/sys/block");
    for entry in fs::read_dir(block).with_context(|| format!("read {block:?}"))? {
        let entry = entry.with_context(|| format!("read {block:?}"))?;
        // Other devices have no such file, and a device may vanish meanwhile.
        let Ok(found) = fs::read_to_string(entry.path().join("dm/name")) else {
            continue;
        };
        if found.trim_end() == name {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Opens a device, created with `table` if it does not exist, and makes the
/// kernel remove it when its last user closes it.
///
/// While the device is busy, this waits: the end of the last user removes the
/// device in the background, and dmsetup(8) of a killed process may still be
/// creating it.
pub(crate) fn open_or_create(name: &str, table: &str) -> Result<(PathBuf, File)> {
    let begun = Instant::now();
    let (path, file) = loop {
        if let Some(opened) = open(name)? {
            break opened;
        }
        match create(name, table) {
            Err(error) if format!("{error:#}").contains(BUSY) && begun.elapsed() < PATIENCE => {
                say!("{error:#}");
                sleep(LOOK_AGAIN);
                if begun.elapsed() > PATIENCE / 2 {
                    remove_half_made(name)?;
                }
            }
            made => {
                made?;
                match open(name) {
                    Ok(Some(opened)) => break opened,
                    // A device that cannot be opened would never be removed.
                    unusable => {
                        program::run("dmsetup", &["remove", "--noudevsync", name])?;
                        unusable?;
                        bail!("the device {name} was made, and is not in /sys/block");
                    }
                }
            }
        }
    };
    remove_when_unused(name)?;
    Ok((path, file))
}

/// dmsetup(8)'s message for EBUSY: the name is in use.
const BUSY: &str = "Device or resource busy";
/// Time limit for a device to stay busy.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Opens a device if it exists, has a table, and is not being removed.
fn open(name: &str) -> Result<Option<(PathBuf, File)>> {
    let Some(path) = node(name)? else {
        return Ok(None);
    };
    if sectors(&path)? == 0 {
        return Ok(None);
    }
    let Some(suspended) = attribute(&path, "dm/suspended")? else {
        return Ok(None);
    };
    if suspended == "1" {
        // A process that suspended it for a snapshot was killed: holders of the
        // store's lock leave no device suspended, and now the lock is ours. A
        // device that is being removed is suspended too, and cannot be opened.
        if let Err(error) = program::run("dmsetup", &["resume", "--noudevsync", name]) {
            say!("{error:#}");
            return Ok(None);
        }
    }
    match File::open(&path) {
        Ok(file) => Ok(Some((path, file))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open({path:?})")),
    }
}

/// Whether a device was removed meanwhile: its node is gone (`ENOENT`), or
/// leads to no device (`ENXIO`, `ENODEV`).
fn is_gone(error: &std::io::Error) -> bool {
    [Errno::ENOENT, Errno::ENXIO, Errno::ENODEV]
        .map(|errno| Some(errno as i32))
        .contains(&error.raw_os_error())
}

/// The size of a device in sectors of 512 bytes; 0 without a table, as between
/// the steps of its creation.
fn sectors(path: &Path) -> Result<u64> {
    match attribute(path, "size")? {
        Some(size) => size
            .parse()
            .with_context(|| format!("the size of {path:?}")),
        None => Ok(0),
    }
}

/// The value of a device's attribute in sysfs; `None` if the device is gone or
/// being removed, for which the device mapper answers `EINVAL` (dm_attr_show).
fn attribute(path: &Path, name: &str) -> Result<Option<String>> {
    let device = path.file_name().context("a device without a name")?;
    let file = Path::new("/sys/block").join(device).join(name);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if matches!(error.kind(), NotFound | InvalidInput) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {file:?}")),
    }
}

/// Removes a device without a table, which a killed dmsetup(8) has left. Since
/// Linux 5.15 such a device is in no directory of sysfs, only dmsetup knows it.
fn remove_half_made(name: &str) -> Result<()> {
    let half_made = match node(name)? {
        Some(path) => sectors(&path)? == 0,
        None => match program::run("dmsetup", &["info", name]) {
            Ok(info) => has_no_table(&info),
            Err(error) => {
                say!("{error:#}");
                false
            }
        },
    };
    if half_made {
        program::run("dmsetup", &["remove", "--noudevsync", name])?;
    }
    Ok(())
}

/// Whether dmsetup(8) lists no table: neither a live nor an inactive one.
fn has_no_table(info: &str) -> bool {
    let mut lines = info.lines();
    let tables = lines.find_map(|line| line.strip_prefix("Tables present:"));
    tables.is_some_and(|tables| tables.trim() == "None")
}

/// Creates a device.
fn create(name: &str, table: &str) -> Result<()> {
    program::run(
        "dmsetup",
        &[
            "create",
            name,
            "--noudevsync",
            "--noudevrules",
            "--table",
            table,
        ],
    )
    .map(drop)
}

/// Makes the kernel remove a device when its last user closes it.
fn remove_when_unused(name: &str) -> Result<()> {
    program::run(
        "dmsetup",
        &[
            "remove",
            "--deferred",
            "--noudevsync",
            "--noudevrules",
            name,
        ],
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_table_is_told_from_others() {
        let info = |tables: &str| format!("Name: x\nState: ACTIVE\nTables present:    {tables}\n");
        assert!(has_no_table(&info("None")));
        assert!(!has_no_table(&info("LIVE")));
        assert!(!has_no_table(&info("INACTIVE")));
        assert!(!has_no_table(""));
    }
}

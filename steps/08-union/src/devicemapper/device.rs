//! Devices of the device mapper: made and removed with dmsetup(8), found in
//! sysfs(5).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::program;

/// The node of a device, if there is such a device: `/sys/block/dm-N/dm/name`
/// says which it is. The node is the kernel's own (devtmpfs), because those in
/// `/dev/mapper` are made by udev, where it runs.
///
/// # Errors
/// Those of reading `/sys/block`.
pub fn node(name: &str) -> Result<Option<PathBuf>> {
    let block = Path::new("/sys/block");
    for entry in fs::read_dir(block).with_context(|| format!("read {block:?}"))? {
        let entry = entry.with_context(|| format!("read {block:?}"))?;
        // Other devices have no such file, and one may just go.
        let Ok(found) = fs::read_to_string(entry.path().join("dm/name")) else {
            continue;
        };
        if found.trim_end() == name {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Opens a device, made with `table` if there is none, and has it removed when
/// nobody uses it any more.
///
/// # Errors
/// Those of dmsetup(8) and open(2).
pub fn open_or_create(name: &str, table: &str) -> Result<(PathBuf, File)> {
    let opened = node(name)?.and_then(|path| Some((path.clone(), File::open(path).ok()?)));
    let (path, file) = match opened {
        Some(opened) => opened,
        None => {
            create(name, table)?;
            let path = node(name)?.with_context(|| format!("{name} is not in /sys/block"))?;
            match File::open(&path) {
                Ok(file) => (path, file),
                Err(error) => {
                    program::run("dmsetup", &["remove", "--noudevsync", name])?;
                    return Err(error).with_context(|| format!("open({path:?})"));
                }
            }
        }
    };
    remove_when_unused(name)?;
    Ok((path, file))
}

/// Makes a device.
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

/// Has the kernel remove a device when its last user closes it.
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

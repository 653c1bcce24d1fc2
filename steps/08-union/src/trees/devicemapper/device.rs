//! Devices of the device mapper: made and removed with dmsetup(8), found in
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

/// The node of a device, if there is such a device: `/sys/block/dm-N/dm/name`
/// says which it is. The node is the kernel's own (devtmpfs), because those in
/// `/dev/mapper` are made by udev, where it runs.
///
/// # Errors
/// Those of reading `/sys/block`.
pub(crate) fn node(name: &str) -> Result<Option<PathBuf>> {
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
/// The last user's end removes it in the background, and a killed user's dmsetup
/// may still be making it: as long as it is busy this waits.
///
/// # Errors
/// Those of dmsetup(8) and open(2).
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
                    // What cannot be opened would stay for ever.
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

/// How dmsetup(8) spells EBUSY, the error for a name that is in use.
const BUSY: &str = "Device or resource busy";
/// How long it may be.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Opens a device, if it is there, whole, and not just being removed.
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
        // Whoever had it stand still for a snapshot was killed: who holds the
        // store's lock leaves no device like that, and now it is ours. One that
        // is just being removed stands still too, and is not to be had.
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

/// Whether a device was removed between two looks: its node is gone (`ENOENT`), or
/// leads to nothing (`ENXIO`, `ENODEV`).
fn is_gone(error: &std::io::Error) -> bool {
    [Errno::ENOENT, Errno::ENXIO, Errno::ENODEV]
        .map(|errno| Some(errno as i32))
        .contains(&error.raw_os_error())
}

/// Its size. Without a table, as between two calls of its maker, it has none.
fn sectors(path: &Path) -> Result<u64> {
    match attribute(path, "size")? {
        Some(size) => size
            .parse()
            .with_context(|| format!("the size of {path:?}")),
        None => Ok(0),
    }
}

/// What the kernel says of a device in a file of sysfs; `None` if the device is
/// gone, or going: the device mapper then answers `EINVAL` (dm_attr_show).
fn attribute(path: &Path, name: &str) -> Result<Option<String>> {
    let device = path.file_name().context("a device without a name")?;
    let file = Path::new("/sys/block").join(device).join(name);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if matches!(error.kind(), NotFound | InvalidInput) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {file:?}")),
    }
}

/// Removes what a dmsetup left that was killed between two calls.
fn remove_half_made(name: &str) -> Result<()> {
    match node(name)? {
        Some(path) if sectors(&path)? == 0 => {
            program::run("dmsetup", &["remove", "--noudevsync", name]).map(drop)
        }
        _ => Ok(()),
    }
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

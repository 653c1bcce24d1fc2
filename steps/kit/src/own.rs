//! Files and directories of the engine, trusted only if nobody but the caller
//! and root can have written them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;

/// Refuses a directory that others may write to: it must belong to the caller
/// or to root, and nobody else may have write permission.
///
/// # Errors
/// Names the owner or the mode, and the remedy.
pub fn require_own(directory: &Path) -> Result<()> {
    let stat = fs::metadata(directory).with_context(|| format!("stat({directory:?})"))?;
    if let Some(why) = not_ours(&stat) {
        bail!("the state in {directory:?} is not to be trusted: {why}, or give another directory");
    }
    Ok(())
}

fn not_ours(stat: &fs::Metadata) -> Option<String> {
    let own = geteuid().as_raw();
    let (uid, mode) = (stat.uid(), stat.mode());
    if uid != own && uid != 0 {
        return Some(format!(
            "it belongs to user {uid}, not to user {own} or root: chown it"
        ));
    }
    (mode & 0o022 != 0).then(|| {
        format!(
            "others may write to it (mode {:03o}): chmod go-w it",
            mode & 0o777
        )
    })
}

/// Opens a file of the engine for reading and writing. Returns `None` if it
/// does not exist. Does not follow a link, and does not wait for the other end
/// of a FIFO.
///
/// # Errors
/// Refuses a file that is not regular, belongs to another user, or is writable
/// for others.
pub fn open_own(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            bail!("{path:?} is a symbolic link, not a file of the engine's: remove it")
        }
        Err(error) => return Err(error).with_context(|| format!("open({path:?})")),
    };
    let stat = file
        .metadata()
        .with_context(|| format!("fstat({path:?})"))?;
    if !stat.is_file() {
        bail!("{path:?} is not a regular file: remove it");
    }
    if let Some(why) = not_ours(&stat) {
        bail!("{path:?} is not to be trusted: {why}, or remove it");
    }
    Ok(Some(file))
}

/// Reads a file of the engine of at most `most` bytes; a longer one is an
/// error. Returns `None` if it does not exist.
pub fn read_own(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_own(path)? else {
        return Ok(None);
    };
    // With room for all of it: two calls, not one for each doubling.
    let length = file
        .metadata()
        .with_context(|| format!("fstat({path:?})"))?
        .len();
    let mut bytes = Vec::with_capacity(length.min(most) as usize + 1);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {path:?}"))?;
    if bytes.len() as u64 > most {
        bail!("{path:?} has more than {most} bytes, too many for a file of the engine: remove it");
    }
    Ok(Some(bytes))
}

/// Whether a file exists at `path`, a symbolic link counting as one. Errors
/// other than `ENOENT` are returned, not taken for `false`.
pub fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("stat({path:?})")),
    }
}

/// Makes a directory and those above it, with `mode`, if they do not exist.
pub fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("mkdir({path:?})"))
}

/// Removes a file if it exists.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unlink({path:?})"))
        }
        _ => Ok(()),
    }
}

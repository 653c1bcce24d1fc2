//! The pool: two files over loop devices, from which all thin devices take
//! their blocks (dm-thin, thin-provisioning.rst).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::device::open_or_create;
use crate::trees::loop_device::{LoopDevice, sparse_file};
use crate::trees::program;

/// The unit of sharing: 128 sectors of 512 bytes are 64 KiB.
pub(crate) const BLOCK_SECTORS: u64 = 128;
/// The pool's size in bytes, an upper bound: blocks are allocated on use.
const DATA_BYTES: u64 = 16 << 30;
/// The size of the pool's metadata in bytes: 4 MiB per GiB of data, more than
/// 48 bytes per block.
const METADATA_BYTES: u64 = 64 << 20;
/// The number of free blocks below which the kernel warns.
const LOW_WATER_MARK: u64 = 1024;

/// A pool in use. The kernel removes it when its last user closes it.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    path: PathBuf,
    _open: File,
    _loops: [LoopDevice; 2],
}

impl Pool {
    /// Opens the pool over the files `data` and `metadata` in `directory`,
    /// which are created if they do not exist. The caller holds the store's
    /// lock.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let at = fs::metadata(directory).with_context(|| format!("stat({directory:?})"))?;
        // A name that is unique to this directory, built as Docker does.
        let name = format!(
            "drydock-{}:{}-{}-pool",
            nix::sys::stat::major(at.dev()),
            nix::sys::stat::minor(at.dev()),
            at.ino()
        );
        let loops = [
            pool_file(directory, "data", DATA_BYTES)?,
            pool_file(directory, "metadata", METADATA_BYTES)?,
        ];
        let table = format!(
            "0 {} thin-pool {} {} {BLOCK_SECTORS} {LOW_WATER_MARK} 1 skip_block_zeroing",
            DATA_BYTES / 512,
            loops[1].path().display(),
            loops[0].path().display()
        );
        let (path, open) = open_or_create(&name, &table)?;
        Ok(Pool {
            name,
            path,
            _open: open,
            _loops: loops,
        })
    }

    /// The pool's name, unique to its directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The pool's block device.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends the pool a message, which creates or deletes a thin device
    /// (thin-provisioning.rst).
    pub(crate) fn message(&self, text: &str) -> Result<()> {
        program::run("dmsetup", &["message", &self.name, "0", text]).map(drop)
    }
}

fn pool_file(directory: &Path, name: &str, bytes: u64) -> Result<LoopDevice> {
    let path = directory.join(name);
    if !path.exists() {
        sparse_file(&path, bytes)?;
    }
    LoopDevice::over(&path)
}

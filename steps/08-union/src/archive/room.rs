//! The limit on the size of a layer: the free space. An archive of some
//! kilobytes can claim to hold more than any disk has.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::fs::{fstatvfs, ftruncate};

use super::reader::Entry;

/// The size of the buffer for copying, in bytes.
const BUFFER: usize = 256 << 10;

/// The free space of the file system, minus what the archive has declared so
/// far. Declared sizes count in full, also where holes take no space.
#[derive(Debug)]
pub(super) struct Room {
    bytes: u64,
    files: u64,
    buffer: Vec<u8>,
}

impl Room {
    /// The free space of the file system that `directory` is on.
    pub(super) fn of(directory: impl AsFd) -> Result<Self> {
        let stat = fstatvfs(directory).context("fstatvfs")?;
        Ok(Room {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            // Some file systems, such as btrfs, count no inodes.
            files: match stat.f_files {
                0 => u64::MAX,
                _ => stat.f_favail,
            },
            buffer: vec![0; BUFFER],
        })
    }

    /// Subtracts a file of `size` bytes.
    ///
    /// # Errors
    /// If there is not enough room for it.
    pub(super) fn take(&mut self, size: u64) -> Result<()> {
        let bytes = self.bytes.checked_sub(size);
        let files = self.files.checked_sub(1);
        let (Some(bytes), Some(files)) = (bytes, files) else {
            bail!(
                "the archive holds more than there is room for ({} MB and {} files are left): \
                 refused",
                self.bytes / 1_000_000,
                self.files
            );
        };
        (self.bytes, self.files) = (bytes, files);
        Ok(())
    }

    /// Writes the content of an entry to a new file; holes stay holes.
    pub(super) fn fill(&mut self, file: &mut File, from: &mut Entry<'_, impl Read>) -> Result<()> {
        loop {
            let hole = i64::try_from(from.skip_hole()).context("a hole")?;
            if hole > 0 {
                file.seek(SeekFrom::Current(hole)).context("lseek")?;
            }
            match from.read(&mut self.buffer).context("read")? {
                0 => break,
                read => file.write_all(&self.buffer[..read]).context("write")?,
            }
        }
        if from.is_sparse() {
            ftruncate(file, from.size()).context("ftruncate")?;
        }
        Ok(())
    }
}

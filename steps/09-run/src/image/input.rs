//! What is read when images come, and how much of it there may be.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::statvfs;
use union::store::remove_file;

use super::Images;
use super::blob::Blob;
use super::source::{Else, Source};
use super::store::Lock;

impl Images {
    /// What is at `path`, or comes over standard input.
    pub(super) fn source(&self, path: Option<&Path>, or: Else, lock: &Lock) -> Result<Source> {
        let Some(path) = path else {
            return self.source_of(self.standard_input(lock)?, or, lock);
        };
        Source::at(path, or, &|| self.spool(lock), self.room()?)
    }

    /// What `blob` is.
    pub(super) fn source_of(&self, blob: Blob, or: Else, lock: &Lock) -> Result<Source> {
        Source::of(blob, or, &|| self.spool(lock), self.room()?)
    }

    /// Standard input as a file: itself, if it is one.
    fn standard_input(&self, lock: &Lock) -> Result<Blob> {
        let stdin = io::stdin();
        let copy = rustix::io::dup(&stdin).context("dup(0)")?;
        let mut file = File::from(copy);
        let is_file = file.metadata().context("fstat(0)")?.is_file();
        if !is_file || file.stream_position().context("lseek(0)")? != 0 {
            let mut spool = self.spool(lock)?;
            io::copy(&mut file, &mut spool).context("copy standard input to a file")?;
            file = spool;
        }
        Blob::of(file, "standard input".into())
    }

    /// A file without a name.
    pub(super) fn spool(&self, _lock: &Lock) -> Result<File> {
        let path = self.root.join("images/spool");
        remove_file(&path)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("open({path:?}, O_CREAT)"))?;
        remove_file(&path)?;
        Ok(file)
    }

    /// The bytes that are free where images are kept.
    pub(super) fn room(&self) -> Result<u64> {
        let stat = statvfs(&self.root).with_context(|| format!("statvfs({:?})", self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

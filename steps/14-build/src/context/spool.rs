//! An archive as a context: unpacked into a directory of ours, where nobody else
//! writes.
//!
//! ```text
//! ROOT/build/context/RANDOM/     locked as long as the build lives
//!                   files/       the files, all of them the caller's
//!                   looks        what they are to look like, a line each
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::image::source::decompress::decompress;
use kit::lock::{open_directory, try_alone};
use kit::warn;
use rustix::fs::{Mode, OFlags};
use union::tree::remove::remove;

use crate::copy::stage::{Links, NOBODYS, Stage};
use crate::copy::unpack::{Aside, unpack};

/// A directory of ours, which is removed in the end.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    _lock: File,
}

impl Spool {
    /// Makes a directory below the state directory, and removes those of builds
    /// that were killed.
    pub fn new(root: &Path) -> Result<Self> {
        let all = root.join("build").join("context");
        kit::own::make(&all, 0o700)?;
        sweep(&all)?;
        let directory = all.join(kit::random::hex::<8>()?);
        // With no name yet, nobody takes it for one of a dead build.
        let _making = kit::lock::hold(&all, kit::lock::Turn::Making)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("mkdir {directory:?}"))?;
        let lock = open_directory(&directory)?.context("the directory is gone")?;
        anyhow::ensure!(try_alone(&lock, &directory)?, "{directory:?} is locked");
        Ok(Spool {
            directory,
            _lock: lock,
        })
    }

    /// The directory itself, for other files of a build.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the files.
    pub fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// Unpacks an archive.
    pub fn unpack(&self, from: impl Read) -> Result<()> {
        let files = self.files();
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&files)
            .with_context(|| format!("mkdir {files:?}"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty()).context("open")?;
        let mut stage = Stage::new(root, Links::Followed, NOBODYS, None)?;
        let path = self.directory.join("looks");
        let file = File::create_new(&path).with_context(|| format!("open {path:?}"))?;
        let mut aside = Aside {
            looks: BufWriter::with_capacity(1 << 16, file),
        };
        let from = decompress(from).context("read the context")?;
        unpack(&mut stage, from, &mut aside).context("the context")?;
        aside
            .looks
            .flush()
            .with_context(|| format!("write {path:?}"))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            warn!("{:?} stays: {error:#}", self.directory);
        }
    }
}

/// Removes what killed builds have left.
pub fn sweep(all: &Path) -> Result<()> {
    let _judging = kit::lock::hold(all, kit::lock::Turn::Judging)?;
    for entry in fs::read_dir(all).with_context(|| format!("read {all:?}"))? {
        let path = entry.with_context(|| format!("read {all:?}"))?.path();
        if let Some(directory) = path
            .is_dir()
            .then(|| open_directory(&path))
            .transpose()?
            .flatten()
            && try_alone(&directory, &path)?
        {
            remove(&path)?;
        }
    }
    Ok(())
}

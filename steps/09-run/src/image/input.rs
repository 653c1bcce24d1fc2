//! The input of `load`, `import` and `run`: a path or standard input, limited
//! by the space that is free.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kit::own::remove_file;
use rustix::fs::statvfs;

use crate::image::source::blob::Blob;
use crate::image::source::{Source, Wanted};
use crate::image::store::ImageLock;

/// The directory of images, for temporary files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spool<'a> {
    /// The state directory.
    pub root: &'a Path,
}

impl Spool<'_> {
    /// The source at `path`, or on standard input.
    pub(super) fn source(
        &self,
        path: Option<&Path>,
        wanted: Wanted,
        lock: &ImageLock,
    ) -> Result<Source> {
        let Some(path) = path else {
            return self.source_of(self.standard_input(lock)?, wanted, lock);
        };
        let kind = path
            .metadata()
            .with_context(|| format!("stat {path:?}"))?
            .file_type();
        if !kind.is_fifo() {
            return Source::at(path, wanted, &|| self.file(lock), self.room()?);
        }
        // A pipe can be read once, but an archive is read several times.
        let file = File::open(path).with_context(|| format!("open {path:?}"))?;
        let blob = self.as_a_file(file, path.display().to_string(), lock)?;
        self.source_of(blob, wanted, lock)
    }

    /// The source in `blob`.
    pub(super) fn source_of(&self, blob: Blob, wanted: Wanted, lock: &ImageLock) -> Result<Source> {
        Source::of(blob, wanted, &|| self.file(lock), self.room()?)
    }

    /// Standard input as a blob: itself if it is a file, else a copy.
    fn standard_input(&self, lock: &ImageLock) -> Result<Blob> {
        let stdin = io::stdin();
        let copy = rustix::io::dup(&stdin).context("dup(0)")?;
        self.as_a_file(File::from(copy), "standard input".into(), lock)
    }

    /// `file` itself, if it is a regular file at its beginning; else a copy of
    /// what comes from it, limited by the space that is free.
    fn as_a_file(&self, mut file: File, what: String, lock: &ImageLock) -> Result<Blob> {
        let is_file = file
            .metadata()
            .with_context(|| format!("fstat({what})"))?
            .is_file();
        let begins = |file: &mut File| file.stream_position().is_ok_and(|at| at == 0);
        if !is_file || !begins(&mut file) {
            let mut spool = self.file(lock)?;
            let room = self.room()?;
            let copied = io::copy(&mut file.take(room), &mut spool)
                .with_context(|| format!("copy {what} to a file"))?;
            ensure!(
                copied < room,
                "{what} is larger than the {room} bytes that are free"
            );
            file = spool;
        }
        Blob::of(file, what)
    }

    /// A temporary file without a name.
    pub(super) fn file(&self, _lock: &ImageLock) -> Result<File> {
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

    /// The space that is free where images are kept, in bytes.
    pub(super) fn room(&self) -> Result<u64> {
        let stat = statvfs(self.root).with_context(|| format!("statvfs({:?})", self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

//! The blob store: what registries keep, as they keep it.
//!
//! ```text
//! DIR/images/blobs/sha256/HEX    a manifest, a configuration, a compressed layer
//! DIR/images/blobs/partial/HEX   what has arrived of one, locked by who fetches it
//! DIR/images/blobs/.lock         shared by who adds, alone for who collects garbage
//! DIR/images/manifest/HEX        by image ID: its manifests, and where they are known
//! ```
//!
//! Step 09 unpacks layers and throws the archives away. A push needs them: a tar
//! that is made again, or compressed again, has another digest, and everybody who
//! has the old one would fetch it again. The price is disk space.
//!
//! A blob has its name only when it is whole and its digest has been verified.
//! Nothing is ever changed under its name, so readers need no lock against
//! writers; all need one against the garbage collector.
//!
//! | module | what |
//! |---|---|
//! | this file | finding blobs, and adding small ones |
//! | [`partial`] | a blob that arrives, and one that has half arrived |
//! | [`adopt`] | layers from elsewhere: compressed, hashed, kept |
//! | [`origin`] | the manifests of an image |
//! | [`garbage`] | removal of what no image needs |

pub mod adopt;
pub mod garbage;
pub mod origin;
pub mod partial;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use engine::image::source::blob::Blob;
use kit::lock::{Lock, Turn, hold};
use kit::own::make;
use kit::random;
use sha2::{Digest as _, Sha256};

/// The blobs below a state directory.
#[derive(Clone, Debug)]
pub struct BlobStore {
    images: PathBuf,
}

impl BlobStore {
    /// The blobs below the state directory `root`. Creates nothing yet.
    pub fn new(root: &Path) -> Self {
        BlobStore {
            images: root.join("images"),
        }
    }

    fn directory(&self) -> PathBuf {
        self.images.join("blobs")
    }

    fn partial(&self) -> PathBuf {
        self.directory().join("partial")
    }

    /// Creates the directories of the store, and keeps the garbage collector
    /// away as long as the lock is held.
    pub fn hold(&self) -> Result<Lock> {
        if let Some(root) = self.images.parent() {
            make(root, 0o711)?;
        }
        for part in ["blobs", "blobs/sha256", "blobs/partial", "manifest"] {
            make(&self.images.join(part), 0o700)?;
        }
        hold(&self.directory(), Turn::Making)
    }

    /// The file of a blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory().join("sha256").join(digest.hex())
    }

    /// The size of a blob, if it is there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match path.symlink_metadata() {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("stat({path:?})")),
        }
    }

    /// Whether a blob is there, whole.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.size(digest)?.is_some())
    }

    /// Opens a blob.
    pub fn blob(&self, digest: &Digest) -> Result<Blob> {
        Blob::open(&self.path(digest))
    }

    /// Reads a small blob, a manifest or a configuration, and verifies it.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.blob(digest)?.document(Some(&digest.clone().into()))
    }

    /// Adds a small blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.has(&digest)? {
            return Ok(digest);
        }
        let mut new = self.new_file()?;
        new.file
            .write_all(bytes)
            .with_context(|| format!("write {:?}", new.path))?;
        self.name(new, &digest)?;
        Ok(digest)
    }

    /// A file that gets its name when its digest is known. It is removed if it
    /// never does; a killed process leaves it to the garbage collector.
    fn new_file(&self) -> Result<NewFile> {
        let path = self.partial().join(format!("new-{}", random::hex::<16>()?));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("open({path:?}, O_CREAT)"))?;
        // So that the collector sees that somebody writes it.
        kit::lock::try_alone(&file, &path)?;
        Ok(NewFile { file, path })
    }

    /// A tar that is about to be written, to become a layer.
    pub fn new_tar(&self) -> Result<NewTar> {
        Ok(NewTar {
            new: self.new_file()?,
            hash: Sha256::new(),
        })
    }

    /// Gives a file that is whole the name of its digest.
    fn name(&self, new: NewFile, digest: &Digest) -> Result<()> {
        settle(&new.file, &new.path, &self.path(digest))
        // Dropped here: the old name is gone, so nothing is removed.
    }
}

/// A file of the store without its final name.
struct NewFile {
    file: File,
    path: PathBuf,
}

/// A tar that is being written. It never gets a name.
pub struct NewTar {
    new: NewFile,
    hash: Sha256,
}

impl NewTar {
    /// The digest of the tar, and the tar.
    pub fn finish(self) -> Result<(Digest, Blob)> {
        let file = self.new.file.try_clone().context("dup")?;
        let blob = Blob::of(file, format!("{:?}", self.new.path))?;
        Ok((Digest::finished(self.hash), blob))
    }
}

impl Write for NewTar {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.new.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.new.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Err(error) = kit::own::remove_file(&self.path) {
            kit::warn!("{error:#}");
        }
    }
}

/// Synchronises a file and gives it its final name.
fn settle(file: &File, from: &Path, to: &Path) -> Result<()> {
    file.sync_all()
        .with_context(|| format!("fsync({from:?})"))?;
    std::fs::rename(from, to).with_context(|| format!("rename({from:?}, {to:?})"))
}

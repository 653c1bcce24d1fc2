//! Garbage: blobs that no image needs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use engine::image::Images;
use engine::image::digest::Digest;
use engine::image::store::ImageLock;
use kit::lock::try_alone;
use kit::own::remove_file;
use kit::say;
use lifecycle::cli::system::Besides;

use crate::blobs::BlobStore;
use crate::manifest::Manifest;
use engine::image::store::names;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// The number of blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl BlobStore {
    /// Removes the blobs that belong to no image, and what killed processes have
    /// left. Does nothing while somebody pulls, pushes or saves: their blobs
    /// belong to no image yet, or may not any more.
    // ANCHOR: collect
    pub fn collect(&self, images: &Images, _lock: &ImageLock) -> Result<Freed> {
        let mut freed = Freed::default();
        let lock = self.directory().join(".lock");
        let Ok(file) = File::open(&lock) else {
            // Nobody has made the store yet.
            return Ok(freed);
        };
        if !try_alone(&file, &lock)? {
            say!("somebody uses the blobs: garbage is kept");
            return Ok(freed);
        }
        let ids: HashSet<Digest> = images
            .store
            .records()?
            .into_iter()
            .map(|record| record.id)
            .collect();
        for id in self.originals()? {
            if !ids.contains(&id) {
                remove_file(&self.images.join("manifest").join(id.hex()))?;
            }
        }
        let needed = self.needed(&ids)?;
        let blobs = self.directory().join("sha256");
        for name in names(&blobs)?
            .into_iter()
            .filter(|name| !needed.contains(name))
        {
            remove(&blobs.join(name), &mut freed)?;
        }
        let partial = self.partial();
        for name in names(&partial)? {
            remove(&partial.join(name), &mut freed)?;
        }
        Ok(freed)
    }

    /// The names of the blobs that images need: their manifests, and what these
    /// name.
    fn needed(&self, ids: &HashSet<Digest>) -> Result<HashSet<String>> {
        let mut needed = HashSet::new();
        for id in ids {
            for descriptor in self.origin(id)?.manifests {
                if !self.has(&descriptor.digest)? {
                    continue;
                }
                let manifest = Manifest::parse(&self.document(&descriptor.digest)?)
                    .with_context(|| format!("manifest {}", descriptor.digest))?;
                needed.insert(descriptor.digest.hex().to_owned());
                needed.extend(manifest.parts().map(|part| part.digest.hex().to_owned()));
            }
        }
        Ok(needed)
    }
    // ANCHOR_END: collect

    /// Whether somebody pulls, pushes or saves at this moment.
    pub fn is_used(&self) -> Result<bool> {
        let lock = self.directory().join(".lock");
        match File::open(&lock) {
            Ok(file) => Ok(!try_alone(&file, &lock)?),
            // Nobody has made the store yet.
            Err(_) => Ok(false),
        }
    }

    /// The bytes that blobs take, and those of what has half arrived.
    pub fn space(&self) -> Result<u64> {
        let mut bytes = 0;
        for directory in [self.directory().join("sha256"), self.partial()] {
            for name in names(&directory)? {
                bytes += size(&directory.join(name));
            }
        }
        Ok(bytes)
    }
}

/// What `system df` counts.
impl Besides for BlobStore {
    fn all(&self) -> Result<u64> {
        self.space()
    }

    fn of(&self, ids: &[&str]) -> Result<u64> {
        let ids = ids.iter().map(|id| id.parse());
        let needed = self.needed(&ids.collect::<Result<_>>()?)?;
        let blobs = self.directory().join("sha256");
        Ok(needed.iter().map(|name| size(&blobs.join(name))).sum())
    }
}

fn remove(path: &Path, freed: &mut Freed) -> Result<()> {
    let bytes = size(path);
    remove_file(path)?;
    freed.blobs += 1;
    freed.bytes += bytes;
    Ok(())
}

/// The size of a file, or 0 if it has just been removed.
fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

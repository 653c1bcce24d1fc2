//! Removal of the cache, and what it takes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use engine::image::Images;
use engine::image::digest::Digest;
use engine::image::store::names;
use kit::lock::try_alone;
use lifecycle::cli::system::{self, Besides, Cached};
use registry::blobs::BlobStore;
use registry::cli::Here;
use union::Kind;
use union::tree::Tree;
use union::tree::size::size;

use crate::build::cache::{Cache, Record};
use crate::build::mounts::caches;

/// What is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Layers that images have, too.
    pub all: bool,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// The IDs of records, and of caches of `RUN --mount`.
    pub ids: Vec<String>,
    /// The bytes of layers that nobody else has, and of caches.
    pub bytes: u64,
}

/// Forgets what no running build may need, and removes the layers that nobody else
/// has.
pub fn prune(images: &Images, kinds: &[Kind], wanted: Wanted) -> Result<Pruned> {
    let cache = Cache::new(images);
    let lock = images.store.lock()?;
    // A build that is running has found layers in the cache, or put them there.
    let oldest = cache.oldest_lease(&lock)?;
    let old = |used: SystemTime| {
        let idle = used.elapsed().unwrap_or_default();
        oldest.is_none_or(|oldest| used < oldest)
            && wanted.unused_for.is_none_or(|least| idle >= least)
    };
    let of_images = of_images(images)?;
    let mut pruned = Pruned::default();
    for (key, record, used) in cache.all()? {
        let shared = is_shared(&record, &of_images);
        if !old(used) || shared && !wanted.all {
            continue;
        }
        cache.forget(&key, &lock)?;
        pruned.ids.push(key.hex().to_owned());
        if !shared {
            pruned.bytes += record.made.map_or(0, |made| made.size);
        }
    }
    for kind in kinds {
        images.loader().sweep(*kind, &lock)?;
    }
    let blobs = BlobStore::new(images.root());
    blobs.collect(images, &lock)?;
    drop(lock);
    for (place, used) in mounted(images.root())? {
        if !old(used) {
            continue;
        }
        let path = place.join("lock");
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if !try_alone(&file, &path)? {
            continue;
        }
        let bytes = size(&Tree::open(&place)?)?;
        union::layers::trash::discard(&place)?;
        let name = place.file_name().unwrap_or_default();
        pruned.ids.push(name.to_string_lossy().into_owned());
        pruned.bytes += bytes;
    }
    if wanted.all && wanted.unused_for.is_none() {
        for remembered in ["why", "digests"] {
            let directory = images.root().join("build").join(remembered);
            for name in names(&directory)? {
                kit::own::remove_file(&directory.join(name))?;
            }
        }
    }
    Ok(pruned)
}

/// The drivers whose stores exist.
pub fn kinds(images: &Images) -> Vec<Kind> {
    let kinds = Kind::ALL.into_iter();
    kinds
        .filter(|kind| images.root().join(kind.as_str()).is_dir())
        .collect()
}

/// The layers of all images.
fn of_images(images: &Images) -> Result<BTreeSet<Digest>> {
    let records = images.store.records()?.into_iter();
    let layers = records.flat_map(|record| record.layers);
    Ok(layers.map(|layer| layer.chain).collect())
}

fn is_shared(record: &Record, of_images: &BTreeSet<Digest>) -> bool {
    record
        .layers
        .last()
        .is_some_and(|layer| of_images.contains(layer))
}

/// The caches of `RUN --mount`, and when each was last used.
fn mounted(root: &Path) -> Result<Vec<(PathBuf, SystemTime)>> {
    let directory = caches(root);
    let mut all = Vec::new();
    for name in names(&directory)? {
        let place = directory.join(name);
        let Ok(metadata) = fs::metadata(place.join("lock")) else {
            continue;
        };
        all.push((place, metadata.modified().context("stat")?));
    }
    Ok(all)
}

/// What images keep besides their layers: blobs, and what builds keep.
pub struct Kept<'a> {
    /// The images, and their blobs.
    pub here: &'a Here,
}

impl Besides for Kept<'_> {
    fn all(&self) -> Result<u64> {
        self.here.all()
    }

    fn of(&self, ids: &[&str]) -> Result<u64> {
        self.here.of(ids)
    }

    fn prunes(&self, all: bool) -> Vec<&'static str> {
        let mut what = self.here.prunes(all);
        what.push(match all {
            true => "all build cache",
            false => "unused build cache",
        });
        what
    }

    /// Images first: what they had in common with the cache belongs to the cache
    /// then.
    fn prune(
        &self,
        all: bool,
        filters: &[String],
        until: Option<SystemTime>,
        removed: &mut system::Pruned,
    ) -> Result<()> {
        self.here.prune(all, filters, until, removed)?;
        // What builds keep has no labels.
        if filters.iter().any(|filter| !filter.starts_with("until=")) {
            return Ok(());
        }
        let wanted = Wanted {
            all,
            unused_for: until.map(|until| until.elapsed().unwrap_or_default()),
        };
        let images = &self.here.images;
        let pruned = prune(images, &kinds(images), wanted)?;
        removed.add("Deleted build cache objects:", pruned.ids, pruned.bytes);
        Ok(())
    }

    fn cached(&self) -> Result<Cached> {
        let cache = Cache::new(&self.here.images);
        let of_images = of_images(&self.here.images)?;
        let mut cached = Cached::default();
        for (_, record, _) in cache.all()? {
            cached.count += 1;
            let bytes = record.made.as_ref().map_or(0, |made| made.size);
            match is_shared(&record, &of_images) {
                // Counted with the image.
                true => cached.active += 1,
                false => {
                    cached.bytes += bytes;
                    cached.free += bytes;
                }
            }
        }
        for (place, _) in mounted(self.here.images.root())? {
            cached.count += 1;
            let bytes = size(&Tree::open(&place)?)?;
            cached.bytes += bytes;
            cached.free += bytes;
        }
        Ok(cached)
    }
}

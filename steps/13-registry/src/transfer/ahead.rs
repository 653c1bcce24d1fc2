//! Layers that are unpacked while others arrive.
//!
//! A layer can be unpacked when it is whole and those below it are there. Nothing
//! depends on it: [`Loader::keep`] unpacks at the end what is missing then. So the
//! lock of the images is held for one layer at a time, and not while we wait for
//! the network. Whoever has the lock in between may sweep away a layer that
//! belongs to no image yet; then we stop, and leave the rest to the end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use engine::image::Images;
use engine::image::digest::{Digest, chain};
use engine::image::load::Loader;
use union::detect::has_layer;
use union::{Kind, LayerId, StorageDriver, detect};

use crate::blobs::BlobStore;
use crate::manifest::Descriptor;

/// The layers of an image that arrives.
pub struct Ahead<'a> {
    images: &'a Images,
    blobs: &'a BlobStore,
    loader: Loader<'a>,
    driver: Box<dyn StorageDriver>,
    layers: &'a [Descriptor],
    diff_ids: &'a [Digest],
    ids: Vec<(Digest, LayerId)>,
    /// Those that wait for one below.
    arrived: BTreeSet<usize>,
    next: usize,
    /// The sizes of what is unpacked, by chain ID.
    sizes: BTreeMap<Digest, u64>,
}

impl<'a> Ahead<'a> {
    /// Prepares for the layers of an image, the lowest first, each with the digest
    /// of its tar.
    pub fn new(
        images: &'a Images,
        blobs: &'a BlobStore,
        kind: Kind,
        layers: &'a [Descriptor],
        diff_ids: &'a [Digest],
    ) -> Result<Self> {
        let loader = images.loader();
        let driver = detect::open(kind, images.root())?;
        let mut ids = Vec::new();
        for chain in chain(diff_ids) {
            let id = chain.layer_id()?;
            ids.push((chain, id));
        }
        Ok(Ahead {
            images,
            blobs,
            loader,
            driver,
            layers,
            diff_ids,
            ids,
            arrived: BTreeSet::new(),
            next: 0,
            sizes: BTreeMap::new(),
        })
    }

    /// Layer `n` has arrived, and is verified. Unpacks what can be unpacked now;
    /// `unpacked` is told of each.
    // ANCHOR: arrived
    pub fn arrived(&mut self, n: usize, unpacked: &dyn Fn(usize)) -> Result<()> {
        self.arrived.insert(n);
        while self.arrived.remove(&self.next) {
            let n = self.next;
            let lock = self.images.store.lock()?;
            let is_there = |id: &LayerId| has_layer(self.images.root(), self.driver.kind(), id);
            let below = n.checked_sub(1).map(|n| &self.ids[n].1);
            if below.is_some_and(|below| !is_there(below)) {
                return Ok(());
            }
            let (chain, id) = &self.ids[n];
            if !is_there(id) {
                let digest = &self.layers[n].digest;
                let layer = (self.blobs.blob(digest)?, Some(digest.clone().into()));
                let size = self
                    .loader
                    .unpack(&layer, &self.diff_ids[n], id, below, &*self.driver, &lock)
                    .with_context(|| format!("layer {} of {}", n + 1, self.ids.len()))?;
                self.sizes.insert(chain.clone(), size);
                unpacked(n);
            }
            self.next += 1;
        }
        Ok(())
    }
    // ANCHOR_END: arrived

    /// What has been unpacked: sizes in bytes, by chain ID.
    pub fn into_sizes(self) -> BTreeMap<Digest, u64> {
        self.sizes
    }
}

//! The layers of images, in the stores of the drivers.

use std::collections::HashSet;
use std::fs;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::say;
use union::detect::{self, has_layer};
use union::{Kind, LayerId, StorageDriver};

use crate::image::digest::Digest;
use crate::image::input::Spool;
use crate::image::record::ImageRecord;
use crate::image::store::{ImageLock, ImageStore};

/// The prefix of the ids of layers that are directories, or copies of some.
pub(crate) const DIRECTORY: &str = "dir-";

/// The layers of the images in `store`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageLayers<'a> {
    /// The state directory, below which each driver has a store.
    pub root: &'a Path,
    /// The images.
    pub store: &'a ImageStore,
}

impl ImageLayers<'_> {
    /// Locks the images, and removes what a killed process has left in the
    /// store of `kind`.
    pub(super) fn changing(&self, kind: Kind) -> Result<ImageLock> {
        let lock = self.store.lock()?;
        self.sweep(kind, &lock)?;
        Ok(lock)
    }

    /// The drivers that have a store here.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        let there = |kind: &Kind| self.root.join(kind.as_str()).is_dir();
        Kind::ALL.into_iter().filter(there)
    }

    /// Removes the layers in the store of `kind` that belong to no image and
    /// have none above: those of images that were removed, or never completed.
    pub(super) fn sweep(&self, kind: Kind, _lock: &ImageLock) -> Result<()> {
        if !self.root.join(kind.as_str()).is_dir() {
            return Ok(());
        }
        let driver = detect::open(kind, self.root)?;
        let mut wanted: HashSet<String> = HashSet::new();
        for record in self.store.records()? {
            for layer in record.layers {
                wanted.insert(layer.chain.layer_id()?.to_string());
            }
        }
        wanted.extend(self.store.copied_layers()?);
        wanted.extend(self.store.kept_layers()?);
        let layers = driver.layers()?;
        let mut unwanted: Vec<LayerId> = layers
            .into_iter()
            .filter(|layer| {
                let image = of_image(layer);
                !wanted.contains(image.as_str())
                    && (Digest::of_layer_id(&image).is_some() || is_forsaken(&*driver, &image))
            })
            .collect();
        // From the top down: the driver keeps a layer with another one on it.
        loop {
            let before = unwanted.len();
            unwanted.retain(|layer| match driver.remove(layer) {
                Ok(()) => {
                    say!("no image had layer {layer} of {kind}: removed");
                    false
                }
                Err(error) => {
                    say!("{error:#}");
                    true
                }
            });
            if unwanted.is_empty() || unwanted.len() == before {
                return Ok(());
            }
        }
    }

    /// Makes the layers of an image in the store of `kind`, from those of other
    /// drivers.
    pub(super) fn copy_from_elsewhere(
        &self,
        record: &ImageRecord,
        kind: Kind,
        spool: Spool<'_>,
    ) -> Result<()> {
        let lock = self.changing(kind)?;
        let to = detect::open(kind, self.root)?;
        let mut below = None;
        for layer in &record.layers {
            let id = layer.chain.layer_id()?;
            if !has_layer(self.root, kind, &id) {
                let Some(other) = Kind::ALL
                    .into_iter()
                    .find(|other| has_layer(self.root, *other, &id))
                else {
                    bail!(
                        "layer {id} of the image is gone: run drydock rmi {} and load the image \
                         again",
                        record.id.hex()
                    );
                };
                say!("layer {id}: from {other} to {kind}");
                // The whole archive before any of it is used: half an archive
                // may look like one.
                let mut file = spool.file(&lock)?;
                let mut writer = BufWriter::new(&file);
                detect::open(other, self.root)?.diff(&id, &mut writer)?;
                writer.flush().context("write a layer")?;
                drop(writer);
                file.rewind().context("lseek")?;
                to.import(&id, below.as_ref(), &mut BufReader::new(file))?;
            }
            below = Some(id);
        }
        Ok(())
    }

    /// The size of a layer that is already unpacked, in bytes.
    pub(super) fn size_of(&self, chain: &Digest, driver: &dyn StorageDriver) -> Result<u64> {
        let records = self.store.records()?;
        let mut layers = records.iter().flat_map(|record| &record.layers);
        match layers.find(|layer| layer.chain == *chain) {
            Some(layer) => Ok(layer.size),
            None => driver.usage(&chain.layer_id()?),
        }
    }

    /// Refuses an image of which a container uses a layer that no other image
    /// has.
    pub(super) fn refuse_if_used(&self, record: &ImageRecord) -> Result<()> {
        for kind in self.kinds() {
            let driver = detect::open(kind, self.root)?;
            for layer in driver.layers()? {
                // A container may have been removed in the meantime.
                let parents = match driver.parents(&layer) {
                    Err(_) if !driver.exists(&layer)? => continue,
                    parents => parents?,
                };
                let Some(parent) = parents
                    .first()
                    .map(of_image)
                    .as_ref()
                    .and_then(Digest::of_layer_id)
                else {
                    continue;
                };
                let is_image = Digest::of_layer_id(&of_image(&layer)).is_some();
                if is_image || !record.layers.iter().any(|layer| layer.chain == parent) {
                    continue;
                }
                // If another image has that layer, it stays.
                if self.is_needed_elsewhere(&parent, record)? {
                    continue;
                }
                let container = layer.as_str().trim_end_matches("-init");
                bail!("the image is used by container {container}: remove the container first");
            }
        }
        Ok(())
    }

    fn is_needed_elsewhere(&self, chain: &Digest, but: &ImageRecord) -> Result<bool> {
        let records = self.store.records()?;
        Ok(records
            .iter()
            .filter(|record| record.id != but.id)
            .flat_map(|record| &record.layers)
            .any(|layer| layer.chain == *chain))
    }
}

/// Whether a layer belongs to a directory that is gone, or has changed.
fn is_forsaken(driver: &dyn StorageDriver, layer: &LayerId) -> bool {
    let diff = driver.store().directory().join(layer).join("diff");
    layer.as_str().starts_with(DIRECTORY)
        && match fs::read_link(diff) {
            Ok(target) => !target.is_dir(),
            // A copy that no note names any more.
            Err(_) => true,
        }
}

/// The image layer that a layer belongs to: itself, or for an `-init`, which
/// all containers of the image share, the one below.
fn of_image(layer: &LayerId) -> LayerId {
    layer.is_init_of().unwrap_or_else(|| layer.clone())
}

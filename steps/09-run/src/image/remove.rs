//! Removal of images.

use std::collections::HashSet;
use std::fs;

use anyhow::{Result, bail};
use kit::say;
use union::detect;
use union::{Kind, LayerId, StorageDriver};

use crate::image::Images;
use crate::image::digest::Digest;
use crate::image::directory::PREFIX;
use crate::image::name::Name;
use crate::image::record::Record;
use crate::image::store::Lock;

/// What [`Images::remove`] has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The name of an image that has others.
    Name(Name),
    /// The image itself.
    Image(Digest),
}

impl Images {
    /// Removes a name, and with the last one the image. An id removes the image
    /// with all its names.
    ///
    /// # Errors
    /// If there is no such image, or a container uses it.
    pub fn remove(&self, reference: &str) -> Result<Removed> {
        let lock = self.store.lock()?;
        let Some(record) = self.find(reference)? else {
            bail!("there is no image {reference:?}: drydock images shows those that there are");
        };
        let names = self.store.names()?.into_iter();
        let names: Vec<Name> = names
            .filter(|(_, id)| *id == record.id)
            .map(|(name, _)| name)
            .collect();
        let given: Option<Name> = reference.parse().ok();
        let by_name = names
            .iter()
            .find(|name| Some(*name) == given.as_ref())
            .or_else(|| {
                names
                    .iter()
                    .find(|name| given.as_ref().is_some_and(|given| name.ends_with(given)))
            });
        if let Some(name) = by_name
            && names.len() > 1
        {
            self.store.unname(name, &lock)?;
            return Ok(Removed::Name(name.clone()));
        }
        self.refuse_if_used(&record)?;
        for name in &names {
            self.store.unname(name, &lock)?;
        }
        self.store.forget(&record.id, &lock)?;
        for kind in self.kinds() {
            self.sweep(kind, &lock)?;
        }
        Ok(Removed::Image(record.id))
    }

    /// The drivers that have a store here.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let there = |kind: &Kind| self.root.join(kind.as_str()).is_dir();
        Kind::ALL.into_iter().filter(there)
    }

    fn refuse_if_used(&self, record: &Record) -> Result<()> {
        for kind in self.kinds() {
            let driver = detect::open(kind, &self.root)?;
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
                bail!("the image is used by container {container}: remove that first");
            }
        }
        Ok(())
    }

    fn is_needed_elsewhere(&self, chain: &Digest, but: &Record) -> Result<bool> {
        let records = self.store.records()?;
        Ok(records
            .iter()
            .filter(|record| record.id != but.id)
            .flat_map(|record| &record.layers)
            .any(|layer| layer.chain == *chain))
    }

    /// Removes the layers in the store of `kind` that belong to no image and
    /// have none above: those of images that were removed, or never completed.
    pub(super) fn sweep(&self, kind: Kind, _lock: &Lock) -> Result<()> {
        if !self.root.join(kind.as_str()).is_dir() {
            return Ok(());
        }
        let driver = detect::open(kind, &self.root)?;
        let mut wanted: HashSet<String> = HashSet::new();
        for record in self.store.records()? {
            for layer in record.layers {
                wanted.insert(layer.chain.layer_id()?.to_string());
            }
        }
        wanted.extend(self.store.copied_layers()?);
        let layers = driver.layers()?;
        let mut unwanted: Vec<LayerId> = layers
            .into_iter()
            .filter(|layer| {
                let image = of_image(layer);
                !wanted.contains(image.as_str())
                    && (Digest::of_layer_id(&image).is_some() || self.is_forsaken(&*driver, &image))
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

    /// Whether a layer belongs to a directory that is gone, or has changed.
    fn is_forsaken(&self, driver: &dyn StorageDriver, layer: &LayerId) -> bool {
        let diff = driver.store().directory().join(layer).join("diff");
        layer.as_str().starts_with(PREFIX)
            && match fs::read_link(diff) {
                Ok(target) => !target.is_dir(),
                // A copy that no note names any more.
                Err(_) => true,
            }
    }
}

/// The image layer that a layer belongs to: itself, or for an `-init`, which
/// all containers of the image share, the one below.
fn of_image(layer: &LayerId) -> LayerId {
    layer.is_init_of().unwrap_or_else(|| layer.clone())
}

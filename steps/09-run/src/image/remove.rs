//! Removal of images.

use anyhow::Result;

use crate::image::digest::Digest;
use crate::image::layers::ImageLayers;
use crate::image::name::Name;
use crate::image::record::ImageRecord;
use crate::image::store::ImageLock;

/// What [`Images::remove`](super::Images::remove) has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The name of an image that has others.
    Name(Name),
    /// The image itself, and the names that it had.
    Image(Digest, Vec<Name>),
}

/// Removes the name `reference` of an image, and with the last one the image.
/// If `reference` is an id, removes the image with all its names.
///
/// # Errors
/// If a container uses the image.
pub(super) fn remove(
    layers: ImageLayers<'_>,
    record: &ImageRecord,
    reference: &str,
    lock: &ImageLock,
) -> Result<Removed> {
    let names = layers.store.names()?.into_iter();
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
        layers.store.unname(name, lock)?;
        return Ok(Removed::Name(name.clone()));
    }
    layers.refuse_if_used(record)?;
    for name in &names {
        layers.store.unname(name, lock)?;
    }
    layers.store.forget(&record.id, lock)?;
    for kind in layers.kinds() {
        layers.sweep(kind, lock)?;
    }
    Ok(Removed::Image(record.id.clone(), names))
}

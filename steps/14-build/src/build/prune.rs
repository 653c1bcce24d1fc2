//! Removal of the cache.

use anyhow::Result;
use process::Exit;
use registry::cli::Here;

use crate::build::cache::Cache;

/// Forgets every record that no running build may need, and removes the layers
/// that nobody else has.
pub fn prune(here: &Here, _all: bool) -> Result<Exit> {
    let images = &here.images;
    let cache = Cache::new(images);
    let lock = images.store.lock()?;
    let oldest = cache.oldest_lease(&lock)?;
    for (key, _, used) in cache.all()? {
        if oldest.is_none_or(|oldest| used < oldest) {
            cache.forget(&key, &lock)?;
        }
    }
    images.loader().sweep(here.kind(None)?, &lock)?;
    Ok(Exit::Code(0))
}

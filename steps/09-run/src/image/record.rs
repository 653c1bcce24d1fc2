//! The record of an image: all that starting a container needs, in a small
//! file.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use union::LayerId;

use crate::image::config::Config;
use crate::image::digest::{Digest, chain};

/// A loaded image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The time of its creation, as the image states it.
    #[serde(default)]
    pub created: Option<String>,
    /// The defaults of its containers.
    pub config: Config,
}

impl ImageRecord {
    /// The topmost layer.
    ///
    /// # Errors
    /// If there is none: the record is damaged.
    pub fn top(&self) -> Result<LayerId> {
        let top = self.layers.last();
        top.with_context(|| format!("the record of {} is damaged: no layers", self.id))?
            .chain
            .layer_id()
    }

    /// The sum of the sizes of its layers as tars, in bytes.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The chain id, by which the drivers' stores name it.
    pub chain: Digest,
    /// The size of its tar, in bytes.
    pub size: u64,
}

/// The chain ids of an image's layers; for an image without layers, the id of
/// one empty layer.
pub fn chain_or_empty(diff_ids: &[Digest]) -> Vec<Digest> {
    match chain(diff_ids) {
        chain if chain.is_empty() => vec![Digest::of(b"")],
        chain => chain,
    }
}

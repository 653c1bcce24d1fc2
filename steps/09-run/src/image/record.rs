//! What is kept about an image: all that starting a container needs, in a small
//! file.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use union::LayerId;

use crate::image::config::Config;
use crate::image::digest::{Digest, chain};

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// When it was made, as the image says.
    #[serde(default)]
    pub created: Option<String>,
    /// What it says about containers.
    pub config: Config,
}

impl Record {
    /// The topmost layer.
    ///
    /// # Errors
    /// If there is none, which no record says.
    pub fn top(&self) -> Result<LayerId> {
        let top = self.layers.last();
        top.with_context(|| format!("the record of {} is damaged: no layers", self.id))?
            .chain
            .layer_id()
    }

    /// The sum of the sizes of its layers, as tars.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its chain id: its name in the stores of the drivers.
    pub chain: Digest,
    /// The size of its tar, in bytes.
    pub size: u64,
}

/// The chain id that an image without any layer stands on: one empty layer.
pub fn chain_or_empty(diff_ids: &[Digest]) -> Vec<Digest> {
    match chain(diff_ids) {
        chain if chain.is_empty() => vec![Digest::of(b"")],
        chain => chain,
    }
}

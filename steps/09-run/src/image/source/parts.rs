//! An image as it comes: its configuration, and where its layers are.

use anyhow::{Result, bail};

use crate::image::config::ImageConfig;
use crate::image::digest::{Checksum, Digest};
use crate::image::source::blob::Blob;

/// The parts of an image, none of them unpacked.
#[derive(Debug)]
pub struct Parts {
    /// The names that it brings along: full names, or tags only.
    pub names: Vec<String>,
    /// The configuration, as it came.
    pub config: Vec<u8>,
    /// The manifest that names these parts, as it came, if there is one.
    pub manifest: Option<Vec<u8>>,
    /// The layers, the lowest first, each with the digest of its blob if that
    /// is known. The blob of a layer that is unpacked already may be missing.
    pub layers: Vec<(Blob, Option<Checksum>)>,
}

impl Parts {
    /// Parses the configuration. Returns it with the digests of the
    /// uncompressed layers.
    ///
    /// # Errors
    /// If it is not valid, or does not list as many layers as there are.
    pub fn config(&self) -> Result<(ImageConfig, Vec<Digest>)> {
        let config = ImageConfig::parse(&self.config)?;
        let diff_ids = config.diff_ids()?;
        let (listed, there) = (diff_ids.len(), self.layers.len());
        if listed != there {
            bail!("the image has {there} layers, and its configuration lists {listed}");
        }
        Ok((config, diff_ids))
    }
}

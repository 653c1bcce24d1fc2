//! The OCI image layout: `index.json` names manifests, a manifest names the
//! configuration and the layers, all by their digests (OCI Image Specification,
//! image-layout.md, image-index.md, manifest.md).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::config::architecture;
use super::digest::Digest;
use super::files::Files;
use super::parts::Parts;

/// How deep indexes may point to indexes.
const DEEPEST: usize = 4;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        self.media_type.contains("image.index") || self.media_type.contains("manifest.list")
    }

    /// Whether it is for this machine; most do not say.
    fn fits(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        })
    }

    fn names(&self) -> Vec<String> {
        let annotation = |key| self.annotations.as_ref()?.get(key).cloned();
        // The second is the tag only, where the first is there.
        annotation(IMAGE_NAME)
            .or_else(|| annotation(REF_NAME))
            .into_iter()
            .collect()
    }

    fn is_called(&self, tag: &str) -> bool {
        let mut values = self.annotations.iter().flat_map(BTreeMap::values);
        values.any(|value| value == tag || value.ends_with(&format!(":{tag}")))
    }
}

/// Whether `files` are an image layout.
pub fn is_layout(files: &Files) -> bool {
    files.has("oci-layout") && files.has("index.json")
}

/// The images of a layout; those called `tag` only, if one is given.
///
/// # Errors
/// If the layout is damaged, or has none for this machine.
pub fn images(files: &Files, tag: Option<&str>) -> Result<Vec<Parts>> {
    let json = files.file("index.json")?.document(None)?;
    let index: Index = serde_json::from_slice(&json).context("index.json")?;
    let mut images: Vec<Parts> = Vec::new();
    for descriptor in &index.manifests {
        if !descriptor.fits() || tag.is_some_and(|tag| !descriptor.is_called(tag)) {
            continue;
        }
        let parts = image(files, descriptor, 0)?;
        match images.iter_mut().find(|other| other.config == parts.config) {
            // One image under several names.
            Some(other) => other.names.extend(parts.names),
            None => images.push(parts),
        }
    }
    match (images.is_empty(), tag) {
        (false, _) => Ok(images),
        (true, Some(tag)) => {
            let all: Vec<String> = index.manifests.iter().flat_map(Descriptor::names).collect();
            bail!("there is no image {tag:?} in it: there are {all:?}")
        }
        (true, None) => bail!("there is no image for linux/{} in it", architecture()),
    }
}

fn image(files: &Files, descriptor: &Descriptor, depth: usize) -> Result<Parts> {
    let json = document(files, descriptor)?;
    if descriptor.is_index() {
        let index: Index = serde_json::from_slice(&json).context("an index")?;
        if depth == DEEPEST {
            bail!("an index of an index of an index, and so on: refused");
        }
        let Some(inner) = index.manifests.iter().find(|inner| inner.fits()) else {
            bail!("there is no image for linux/{} in it", architecture());
        };
        let mut parts = image(files, inner, depth + 1)?;
        parts.names = descriptor.names();
        return Ok(parts);
    }
    let manifest: Manifest = serde_json::from_slice(&json)
        .with_context(|| format!("{} is no manifest", descriptor.digest))?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        if layer.media_type.contains("encrypted") {
            bail!("layer {} is encrypted", layer.digest);
        }
        let blob = files.file(&path(&layer.digest))?;
        if blob.size() != layer.size {
            bail!(
                "{} is damaged: it has {} bytes, not {}",
                blob.what(),
                blob.size(),
                layer.size
            );
        }
        layers.push((blob, Some(layer.digest.clone())));
    }
    Ok(Parts {
        names: descriptor.names(),
        config: document(files, &manifest.config)?,
        layers,
    })
}

fn document(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>> {
    files
        .file(&path(&descriptor.digest))?
        .document(Some(&descriptor.digest))
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

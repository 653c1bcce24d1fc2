//! The archive that `docker save` writes: `manifest.json` lists images, each
//! with the names of the files that hold its configuration and its layers.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::digest::Digest;
use super::files::Files;
use super::parts::Parts;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether `files` are such an archive.
pub fn is_archive(files: &Files) -> bool {
    files.has("manifest.json")
}

/// The images in it; those called `tag` only, if one is given.
///
/// # Errors
/// If it is damaged.
pub fn images(files: &Files, tag: Option<&str>) -> Result<Vec<Parts>> {
    let json = files.file("manifest.json")?.document(None)?;
    let listed: Vec<Image> = serde_json::from_slice(&json).context("manifest.json")?;
    let mut images = Vec::new();
    for image in listed {
        let names = image.repo_tags.unwrap_or_default();
        let is_called = |tag: &str| {
            names
                .iter()
                .any(|name| name == tag || name.ends_with(&format!(":{tag}")))
        };
        if tag.is_some_and(|tag| !is_called(tag)) {
            continue;
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push((files.file(layer)?, None));
        }
        images.push(Parts {
            names,
            // The file is called by its digest.
            config: files
                .file(&image.config)?
                .document(digest_in(&image.config).as_ref())?,
            layers,
        });
    }
    if images.is_empty() {
        bail!("there is no such image in it");
    }
    Ok(images)
}

/// The digest that the name of a configuration has: `HEX.json`, or since Docker
/// 25 `blobs/sha256/HEX`.
fn digest_in(name: &str) -> Option<Digest> {
    let name = name.strip_prefix("blobs/sha256/").unwrap_or(name);
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)).ok()
}

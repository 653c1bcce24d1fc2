//! The archive of `docker save`: `manifest.json` lists images, each with the
//! names of the files that hold its configuration and its layers. Before Docker
//! 1.10, `repositories` listed them, and each layer was a directory.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use kit::warn;

use crate::image::config::{Config, ImageConfig, RootFs};
use crate::image::digest::{Checksum, Digest};
use crate::image::document::{Tail, from_json, parse};
use crate::image::source::blob::Blob;
use crate::image::source::files::ImageFiles;
use crate::image::source::parts::Parts;
use crate::image::source::verify::{Expected, content};

const MANIFEST: &str = "manifest.json";
const REPOSITORIES: &str = "repositories";

/// The files of which such an archive has at least one.
pub(crate) const ARCHIVE: [&str; 2] = [MANIFEST, REPOSITORIES];

/// The most layers of an image in the old format, where each layer names its
/// parent.
const MOST_LAYERS: usize = 1000;

#[derive(Debug, Default)]
struct Image {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

from_json!(Image {
    config: "Config",
    repo_tags: "RepoTags",
    layers: "Layers",
});

/// A layer before Docker 1.10, with the configuration of the image that ends
/// with it.
#[derive(Debug, Default)]
struct OldLayer {
    parent: String,
    architecture: String,
    os: String,
    created: Option<String>,
    config: Config,
}

from_json!(OldLayer {
    parent: "parent",
    architecture: "architecture",
    os: "os",
    created: "created",
    config: "config",
});

/// Whether `files` are an archive of `docker save`.
pub(crate) fn is_archive(files: &ImageFiles) -> bool {
    ARCHIVE.iter().any(|name| files.has(name))
}

/// Whether they list images as since Docker 1.10.
pub(crate) fn has_manifest(files: &ImageFiles) -> bool {
    files.has(MANIFEST)
}

/// The names of the images, by their IDs.
///
/// # Errors
/// If a document is damaged or missing.
pub(crate) fn repo_tags(files: &ImageFiles) -> Result<BTreeMap<String, Vec<String>>> {
    let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for image in manifest(files)? {
        by_file
            .entry(image.config)
            .or_default()
            .extend(image.repo_tags);
    }
    let mut by_id: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, names) in by_file {
        let config = files.file(&file)?.document(None)?;
        let id = Digest::of(&config).to_string();
        by_id.entry(id).or_default().extend(names);
    }
    Ok(by_id)
}

fn manifest(files: &ImageFiles) -> Result<Vec<Image>> {
    let json = files.file(MANIFEST)?.document(None)?;
    // Docker reads a stream, and ignores what follows the document.
    parse(&json, Tail::Ignored).context(MANIFEST)
}

/// The images in the archive; only those called `tag`, if one is given.
///
/// # Errors
/// If the archive is damaged, or has no such image.
pub(crate) fn images(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    let images = match has_manifest(files) {
        true => listed(files, tag)?,
        false => old(files, tag)?,
    };
    if images.is_empty() {
        bail!("there is no such image in it");
    }
    Ok(images)
}

fn listed(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    let mut images = Vec::new();
    let mut all = Vec::new();
    for image in manifest(files)? {
        let names = image.repo_tags;
        all.extend(names.iter().cloned());
        if tag.is_some_and(|tag| !names.iter().any(|name| is_called(name, tag))) {
            continue;
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            // As in Docker, one that is there already may be omitted.
            let blob = match files.has(layer) {
                true => files.file(layer)?,
                false => Blob::missing(format!("{layer:?} in {}", files.what())),
            };
            layers.push((blob, None));
        }
        images.push(Parts {
            names,
            manifest: None,
            config: configuration(files, &image.config)?,
            layers,
        });
    }
    if let Some(tag) = tag.filter(|_| images.is_empty()) {
        bail!("there is no image {tag:?} in it: available are {all:?}");
    }
    Ok(images)
}

fn is_called(name: &str, tag: &str) -> bool {
    name == tag || name.ends_with(&format!(":{tag}"))
}

/// The configuration in the file `name`. Since Docker 25 that is a blob, whose
/// name is its digest. `HEX.json` was a digest when Docker wrote it, and is a
/// name where somebody has edited the file since: Docker compares neither.
fn configuration(files: &ImageFiles, name: &str) -> Result<Vec<u8>> {
    let digest = |hex: &str| Digest::from_hex(hex).ok();
    let blob = name.strip_prefix("blobs/sha256/").and_then(digest);
    let json = files
        .file(name)?
        .document(blob.map(Checksum::from).as_ref())?;
    let said = name.strip_suffix(".json").and_then(digest);
    if said.is_some_and(|said| said != Digest::of(&json)) {
        warn!("{name:?} was edited, or is damaged: its name is the digest of something else");
    }
    Ok(json)
}

/// The images of an archive before Docker 1.10. These have no configuration of
/// today's kind, so one is made.
fn old(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    let json = files.file(REPOSITORIES)?.document(None)?;
    let names: BTreeMap<String, BTreeMap<String, String>> =
        parse(&json, Tail::Ignored).context(REPOSITORIES)?;
    let mut by_layer: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (repository, tags) in names {
        for (of_repository, layer) in tags {
            let name = format!("{repository}:{of_repository}");
            if tag.is_none_or(|tag| is_called(&name, tag)) {
                by_layer.entry(layer).or_default().push(name);
            }
        }
    }
    let mut images = Vec::new();
    for (layer, names) in by_layer {
        let image = old_image(files, &layer).with_context(|| format!("image {names:?}"))?;
        images.push(Parts { names, ..image });
    }
    Ok(images)
}

fn old_image(files: &ImageFiles, top: &str) -> Result<Parts> {
    let mut stack = vec![(top.to_owned(), old_layer(files, top)?)];
    let mut seen = BTreeSet::from([top.to_owned()]);
    while let Some((_, last)) = stack.last().filter(|(_, last)| !last.parent.is_empty()) {
        let next = last.parent.clone();
        if !seen.insert(next.clone()) || stack.len() == MOST_LAYERS {
            bail!("its layers form a circle");
        }
        let layer = old_layer(files, &next)?;
        stack.push((next, layer));
    }
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (id, _) in stack.iter().rev() {
        let blob = files.file(&format!("{id}/layer.tar"))?;
        if blob.is_sparse() {
            bail!("{} has holes: pack it without tar's --sparse", blob.what());
        }
        let expected = Expected {
            // Such a layer is not compressed.
            at_most: blob.size(),
            ..Expected::default()
        };
        diff_ids.push(content(&blob, &expected)?.diff_id.to_string());
        layers.push((blob, None));
    }
    let (_, image) = stack.swap_remove(0);
    let config = ImageConfig {
        architecture: image.architecture,
        os: image.os,
        created: image.created,
        config: image.config,
        rootfs: Some(RootFs {
            kind: "layers".into(),
            diff_ids,
        }),
    };
    Ok(Parts {
        names: Vec::new(),
        manifest: None,
        config: serde_json::to_vec(&config).context("write the configuration as JSON")?,
        layers,
    })
}

fn old_layer(files: &ImageFiles, id: &str) -> Result<OldLayer> {
    // It becomes part of a path, in the archive or in a directory.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("{id:.80?} is not the id of a layer");
    }
    let name = format!("{id}/json");
    let json = files.file(&name)?.document(None)?;
    parse(&json, Tail::Refused).context(name)
}

//! The OCI image layout: `index.json` names manifests, a manifest names the
//! configuration and the layers, all by their digests (OCI Image Specification,
//! image-layout.md, image-index.md, manifest.md).
//!
//! Everything but images for this machine is skipped with a message: images for
//! others, signatures, attestations, what other tools keep in layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Error, Result, bail};
use kit::warn;

use crate::image::config::{ImageConfig, architecture, normal_architecture, normal_os};
use crate::image::digest::Checksum;
use crate::image::document::{Tail, from_json, parse};
use crate::image::source::files::ImageFiles;
use crate::image::source::parts::Parts;

/// The list of the images. A layout has `oci-layout`, too, which says nothing.
pub(crate) const INDEX: &str = "index.json";

/// The deepest nesting of indexes.
const DEEPEST: usize = 4;
/// The most documents that are read: an index may name another many times.
const MOST_DOCUMENTS: usize = 2000;

/// The most skipped items that are named.
const MOST_SHOWN: usize = 20;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
/// buildkit's annotation of a manifest that is about another one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

#[derive(Clone, Debug, Default)]
struct Descriptor {
    media_type: String,
    digest: String,
    /// Some write -1 for what they do not know.
    size: Option<i64>,
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
    artifact_type: String,
    urls: Vec<String>,
}

from_json!(Descriptor {
    media_type: "mediaType",
    digest: "digest",
    size: "size",
    annotations: "annotations",
    platform: "platform",
    artifact_type: "artifactType",
    urls: "urls",
});

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Platform {
    architecture: String,
    os: String,
    variant: String,
}

from_json!(Platform {
    architecture: "architecture",
    os: "os",
    variant: "variant",
});

/// An index or a manifest.
#[derive(Debug, Default)]
struct Document {
    artifact_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

from_json!(Document {
    artifact_type: "artifactType",
    manifests: "manifests",
    config: "config",
    layers: "layers",
});

/// The error that no image is meant, with what there is.
#[derive(Debug)]
pub(crate) enum NoImage {
    /// None has this name.
    Called(String, Vec<String>),
    /// None is for this machine.
    ForUs(BTreeSet<String>),
}

impl fmt::Display for NoImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = match self {
            NoImage::Called(tag, all) => {
                return write!(f, "there is no image {tag:?} in it: available are {all:?}");
            }
            NoImage::ForUs(passed) => passed,
        };
        write!(f, "there is no image for linux/{} in it", architecture())?;
        let passed = passed.iter().take(MOST_SHOWN).map(String::as_str);
        let passed: Vec<&str> = passed.collect();
        match passed.is_empty() {
            true => Ok(()),
            false => write!(f, ": there are {}", passed.join(", ")),
        }
    }
}

impl std::error::Error for NoImage {}

impl Platform {
    fn normal(&self) -> Self {
        Platform {
            os: normal_os(&self.os),
            architecture: normal_architecture(&self.architecture),
            variant: self.variant.to_ascii_lowercase(),
        }
    }

    /// Whether it is this machine's. What it does not say is ours, as for
    /// containerd.
    fn is_ours(&self) -> bool {
        let normal = self.normal();
        matches!(&*normal.os, "linux" | "")
            && (normal.architecture.is_empty() || normal.architecture == architecture())
    }

    fn is_whole(&self) -> bool {
        !self.os.is_empty() && !self.architecture.is_empty()
    }

    /// Whether every processor of this architecture can run it: amd64/v3 needs
    /// a newer one.
    fn is_plain(&self) -> bool {
        let usual = match architecture() {
            "amd64" => "v1",
            "arm64" => "v8",
            _ => "",
        };
        self.variant.is_empty() || self.normal().variant == usual
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.os, &self.architecture, &self.variant];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        // Foreign text, shown on a terminal.
        let shown = |part: &String| part.escape_debug().take(40).collect::<String>();
        f.write_str(&parts.map(shown).collect::<Vec<_>>().join("/"))
    }
}

impl Descriptor {
    /// The type of what the descriptor names, if that is neither an image nor
    /// an index of images.
    fn is_other(&self) -> Option<String> {
        if !self.artifact_type.is_empty() && !is_config(&self.artifact_type) {
            return Some(format!("{:.80?}", self.artifact_type));
        }
        if let Some(kind) = self.annotations.get(REFERENCE_TYPE) {
            return Some(format!("{kind:.80?}"));
        }
        let known = [
            "",
            "image.index",
            "manifest.list",
            "image.manifest",
            "distribution.manifest",
        ];
        let is_known = |known: &&str| match known.is_empty() {
            true => self.media_type.is_empty(),
            false => self.media_type.contains(*known),
        };
        (!known.iter().any(is_known)).then(|| format!("{:.80?}", self.media_type))
    }

    fn names(&self) -> Vec<String> {
        // The second is only the tag if both are there.
        let name = self
            .annotations
            .get(IMAGE_NAME)
            .or_else(|| self.annotations.get(REF_NAME));
        name.into_iter().cloned().collect()
    }

    fn is_called(&self, tag: &str) -> bool {
        let mut values = self.annotations.values();
        values.any(|value| value == tag || value.ends_with(&format!(":{tag}")))
    }
}

/// Whether a media type is that of the configuration of an image, or is not
/// said. Registries list an image's as its artifact type, too.
fn is_config(kind: &str) -> bool {
    kind.is_empty() || kind.contains("image.config") || kind.contains("container.image")
}

/// Whether `files` are an image layout, and nothing else with a file of that
/// name.
pub(crate) fn is_layout(files: &ImageFiles) -> bool {
    has_index(files) && files.has("oci-layout")
}

/// Whether `files` have the list of a layout, which is enough where images are
/// asked for.
pub(crate) fn has_index(files: &ImageFiles) -> bool {
    files.has(INDEX)
}

/// The images of a layout; only those called `tag`, if one is given.
///
/// # Errors
/// If the layout is damaged; [`NoImage`] if it has none of that name, or none
/// for this machine.
pub(crate) fn images(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    let json = files.file(INDEX)?.document(None)?;
    let index: Document = parse(&json, Tail::Refused).context(INDEX)?;
    let manifests = index.manifests.unwrap_or_default();
    let is_meant = |descriptor: &&Descriptor| tag.is_none_or(|tag| descriptor.is_called(tag));
    if let Some(tag) = tag
        && !manifests.iter().any(|descriptor| descriptor.is_called(tag))
    {
        let all = manifests.iter().flat_map(Descriptor::names).collect();
        return Err(Error::new(NoImage::Called(tag.to_owned(), all)));
    }
    let mut layout = Layout {
        files,
        passed: BTreeSet::new(),
        read: 0,
    };
    let mut images: Vec<Parts> = Vec::new();
    let meant: Vec<&Descriptor> = manifests.iter().filter(is_meant).collect();
    let ask = match &meant[..] {
        [_] => Ask::Nowhere,
        _ => Ask::Said,
    };
    for descriptor in meant {
        let Some(parts) = layout.image(descriptor, ask, 0)? else {
            continue;
        };
        match images.iter_mut().find(|other| other.config == parts.config) {
            // One image under several names.
            Some(other) => other.names.extend(parts.names),
            None => images.push(parts),
        }
    }
    if images.is_empty() {
        return Err(Error::new(NoImage::ForUs(layout.passed)));
    }
    for passed in layout.passed.iter().take(MOST_SHOWN) {
        kit::errln!("drydock: skipped: {passed}");
    }
    Ok(images)
}

/// Where to look for the platform of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Nowhere: it is the only one that is listed, and meant whatever it is for.
    Nowhere,
    /// In its descriptor.
    Said,
    /// Also in its configuration: there are others to choose from.
    Configuration,
}

/// A layout that is being read.
struct Layout<'a> {
    files: &'a ImageFiles,
    /// What was skipped, for messages.
    passed: BTreeSet<String>,
    read: usize,
}

impl Layout<'_> {
    /// The image that a descriptor names; `None` if there is none for this
    /// machine.
    fn image(&mut self, descriptor: &Descriptor, ask: Ask, depth: usize) -> Result<Option<Parts>> {
        if let Some(what) = descriptor.is_other() {
            self.passed.insert(format!("{what}, which is not an image"));
            return Ok(None);
        }
        if let Some(platform) = &descriptor.platform
            && !platform.is_ours()
        {
            if ask != Ask::Nowhere {
                self.passed.insert(platform.to_string());
                return Ok(None);
            }
            warn!(
                "the image is made for {platform}, this is linux/{}",
                architecture()
            );
        }
        let digest: Checksum = match descriptor.digest.parse() {
            Ok(digest) => digest,
            Err(error) => {
                self.passed
                    .insert(format!("an image whose digest is unknown here: {error}"));
                return Ok(None);
            }
        };
        let bytes = self.document(&digest)?;
        let document: Document =
            parse(&bytes, Tail::Refused).with_context(|| format!("{digest} is not a manifest"))?;
        if let Some(manifests) = &document.manifests {
            if depth == DEEPEST {
                bail!("an index of an index of an index, and so on: refused");
            }
            let parts = self.of_index(manifests, depth + 1)?;
            return Ok(parts.map(|parts| Parts {
                names: descriptor.names(),
                ..parts
            }));
        }
        let parts = self.of_manifest(descriptor, &document, ask)?;
        Ok(parts.map(|parts| Parts {
            manifest: Some(bytes),
            ..parts
        }))
    }

    /// The first suitable image of an index. One for certain processors only is
    /// chosen if there is no other.
    fn of_index(&mut self, manifests: &[Descriptor], depth: usize) -> Result<Option<Parts>> {
        let is_plain =
            |descriptor: &&Descriptor| descriptor.platform.as_ref().is_none_or(Platform::is_plain);
        let (plain, special): (Vec<_>, Vec<_>) = manifests.iter().partition(is_plain);
        for descriptor in plain.into_iter().chain(special) {
            if let Some(parts) = self.image(descriptor, Ask::Configuration, depth)? {
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }

    fn of_manifest(
        &mut self,
        descriptor: &Descriptor,
        manifest: &Document,
        ask: Ask,
    ) -> Result<Option<Parts>> {
        let Some(config) = &manifest.config else {
            bail!(
                "{} is not a manifest: it names no configuration",
                descriptor.digest
            );
        };
        let is_layer = |layer: &Descriptor| {
            let kind = &layer.media_type;
            kind.is_empty() || kind.contains("image.layer") || kind.contains("image.rootfs")
        };
        let artifact = if !is_config(&config.media_type) {
            Some(&config.media_type)
        } else if !is_config(&manifest.artifact_type) {
            Some(&manifest.artifact_type)
        } else {
            let other = manifest.layers.iter().find(|layer| !is_layer(layer));
            other.map(|layer| &layer.media_type)
        };
        if let Some(what) = artifact {
            self.passed
                .insert(format!("{what:.80?}, which is not an image"));
            return Ok(None);
        }
        let checksum: Checksum = config.digest.parse().context("the configuration")?;
        let config = self.document(&checksum)?;
        let is_said = descriptor.platform.as_ref().is_some_and(Platform::is_whole);
        if ask == Ask::Configuration && !is_said {
            let parsed: ImageConfig = parse(&config, Tail::Refused).unwrap_or_default();
            let platform = Platform {
                architecture: parsed.architecture,
                os: parsed.os,
                variant: String::new(),
            };
            if platform != Platform::default() && !platform.is_ours() {
                self.passed.insert(platform.to_string());
                return Ok(None);
            }
        }
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            layers.push(self.layer(layer)?);
        }
        Ok(Some(Parts {
            names: descriptor.names(),
            config,
            manifest: None,
            layers,
        }))
    }

    fn layer(
        &self,
        layer: &Descriptor,
    ) -> Result<(crate::image::source::blob::Blob, Option<Checksum>)> {
        if layer.media_type.contains("encrypted") {
            bail!("layer {:.80} is encrypted", layer.digest);
        }
        let digest: Checksum = layer.digest.parse().context("a layer")?;
        let blob = self.files.file(&digest.path()).with_context(|| {
            let from = layer.urls.first();
            from.map_or_else(
                || "a layer".to_owned(),
                |url| format!("a layer that is available at {url:.200?} only"),
            )
        })?;
        let promised = layer.size.and_then(|size| u64::try_from(size).ok());
        if let Some(size) = promised.filter(|size| *size != blob.size()) {
            bail!(
                "{} is damaged: it has {} bytes, not {size}",
                blob.what(),
                blob.size()
            );
        }
        Ok((blob, Some(digest)))
    }

    fn document(&mut self, digest: &Checksum) -> Result<Vec<u8>> {
        self.read += 1;
        if self.read > MOST_DOCUMENTS {
            bail!("its indexes name more than {MOST_DOCUMENTS} documents: refused");
        }
        self.files.file(&digest.path())?.document(Some(digest))
    }
}

//! Manifests and indexes: the documents of a registry (OCI Image Specification,
//! manifest.md and image-index.md; Docker's, schema 2, have the same form).
//!
//! A registry may say anything, so a document is read with limits: its size, the
//! number of layers, one meaning only.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use engine::image::config::{architecture, normal_architecture, normal_os};
use engine::image::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest manifest or configuration, in bytes.
pub const LARGEST: u64 = 4 << 20;
/// The most layers of an image. overlayfs takes 500, and Docker 128.
const MOST_LAYERS: usize = 500;

/// OCI's manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI's configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer that is compressed by gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer that is compressed by zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// What a pull can read: the value of `Accept`.
pub const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// What a document points to: content by its digest, with its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
    /// The machine that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An operating system and a processor, in Go's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// `v8`, or nothing
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// The manifest of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// The type of this document.
    #[serde(default)]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a registry answers when it is asked for a manifest.
#[derive(Clone, Debug)]
pub enum Document {
    /// An image.
    Manifest(Box<Manifest>),
    /// Images, each for another machine.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

impl Document {
    /// Reads a document. `said` is the type that the registry gives it.
    ///
    /// # Errors
    /// If it is none, or could be read in two ways.
    // ANCHOR: parse
    pub fn parse(bytes: &[u8], said: &str) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).context("it is no JSON")?;
        let object = value.as_object().context("it is no JSON object")?;
        match object.get("schemaVersion").and_then(Value::as_u64) {
            Some(2) => {}
            Some(1) => bail!("it is of schema 1, which nobody writes since 2016: push it again"),
            _ => bail!("it has no schemaVersion 2"),
        }
        let inside = object.get("mediaType").and_then(Value::as_str);
        let said = said.split(';').next().unwrap_or_default().trim();
        if let Some(inside) = inside
            && ACCEPT.contains(&said)
            && inside != said
        {
            bail!("the registry says that it is {said}, and it says {inside:.100?}");
        }
        // A document that is both would be one image for us and another for
        // somebody else, under one digest.
        let (index, manifest) = (
            object.contains_key("manifests"),
            object.contains_key("layers"),
        );
        ensure!(
            !(index && manifest),
            "it is a manifest and an index at once"
        );
        let kind = inside.unwrap_or(said);
        if index {
            ensure!(
                ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&kind),
                "it is an index, not {kind}"
            );
            let index: Index = serde_json::from_slice(bytes).context("it is no index")?;
            return Ok(Document::Index(index.manifests));
        }
        ensure!(
            ![OCI_INDEX, DOCKER_INDEX].contains(&kind),
            "it is a manifest, not {kind}"
        );
        let manifest: Manifest = serde_json::from_slice(bytes).context("it is no manifest")?;
        manifest.check()?;
        Ok(Document::Manifest(Box::new(manifest)))
    }
    // ANCHOR_END: parse
}

impl Manifest {
    /// A manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.into(),
            config,
            layers,
        }
    }

    /// Reads a manifest from the store.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Document::parse(bytes, "")? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => bail!("it is an index"),
        }
    }

    fn check(&self) -> Result<()> {
        let layers = self.layers.len();
        ensure!(
            layers <= MOST_LAYERS,
            "it has {layers} layers, and at most {MOST_LAYERS} are read"
        );
        let config = &self.config;
        ensure!(
            config.size <= LARGEST,
            "its configuration has {} bytes, and at most {LARGEST} are read",
            config.size
        );
        let kind = &config.media_type;
        ensure!(
            kind.is_empty() || kind.contains("image.config") || kind.contains("container.image"),
            "it is not an image, but {kind:.100?}"
        );
        for layer in &self.layers {
            let kind = &layer.media_type;
            ensure!(
                !kind.contains("encrypted"),
                "layer {} is encrypted",
                layer.digest
            );
            ensure!(
                kind.is_empty() || kind.contains("image.layer") || kind.contains("image.rootfs"),
                "a layer is not one, but {kind:.100?}"
            );
            ensure!(
                !kind.contains("foreign") && !kind.contains("nondistributable"),
                "layer {} is not in the registry, but elsewhere: it is not fetched",
                layer.digest
            );
        }
        let sizes = self
            .layers
            .iter()
            .try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
        ensure!(sizes.is_some(), "its layers have more bytes than there are");
        Ok(())
    }

    /// The sum of what a registry keeps of its layers, in bytes.
    pub fn size(&self) -> u64 {
        self.layers
            .iter()
            .map(|layer| layer.size)
            .fold(0, u64::saturating_add)
    }

    /// All that it points to: the configuration, then the layers.
    pub fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.config].into_iter().chain(&self.layers)
    }
}

impl Platform {
    /// This machine.
    pub fn here() -> Self {
        Platform {
            os: "linux".into(),
            architecture: architecture().into(),
            variant: String::new(),
        }
    }

    fn normal(&self) -> Self {
        Platform {
            os: normal_os(&self.os),
            architecture: normal_architecture(&self.architecture),
            variant: self.variant.to_ascii_lowercase(),
        }
    }

    /// The variant that every processor of the architecture has.
    fn plain_variant(&self) -> &'static str {
        match &*self.architecture {
            "amd64" => "v1",
            "arm64" => "v8",
            "arm" => "v7",
            _ => "",
        }
    }

    /// How well an image for `other` fits: 0 is best. `None` if it does not.
    fn distance(&self, other: &Platform) -> Option<u8> {
        let (wanted, other) = (self.normal(), other.normal());
        if (&wanted.os, &wanted.architecture) != (&other.os, &other.architecture) {
            return None;
        }
        let plain = wanted.plain_variant();
        match (&*wanted.variant, &*other.variant) {
            (wanted, other) if wanted == other => Some(0),
            ("", other) if other == plain => Some(0),
            (wanted, "") if wanted == plain => Some(0),
            // One for certain processors only, if there is no other.
            ("", _) => Some(2),
            (_, "") => Some(1),
            _ => None,
        }
    }

    /// The best of the images of an index.
    ///
    /// # Errors
    /// If there is none for this platform.
    // ANCHOR: choose
    pub fn choose<'a>(&self, index: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let fits = |descriptor: &&Descriptor| {
            let platform = descriptor.platform.as_ref();
            platform.map_or(Some(3), |platform| self.distance(platform))
        };
        let known = |descriptor: &&Descriptor| {
            let kind = &descriptor.media_type;
            kind.is_empty() || ACCEPT.contains(&kind.as_str())
        };
        let best = index.iter().filter(known).filter(|one| fits(one).is_some());
        best.min_by_key(|one| fits(one)).with_context(|| {
            let there = index.iter().filter_map(|one| one.platform.as_ref());
            let there: Vec<String> = there.map(Platform::to_string).take(20).collect();
            format!(
                "no matching manifest for {self} in the manifest list entries: there are {}",
                there.join(", ")
            )
        })
    }
    // ANCHOR_END: choose
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.os, &self.architecture, &self.variant];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: Vec<&str> = parts.map(String::as_str).collect();
        f.write_str(&parts.join("/"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_word = |word: &&str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let words: Vec<&str> = text.split('/').collect();
        let platform = match &words[..] {
            _ if !words.iter().all(is_word) => None,
            ["linux"] => Some(Platform::here()),
            // Docker takes the processor alone, too.
            [architecture] => Some(("linux", *architecture, "").into()),
            [os, architecture] => Some((*os, *architecture, "").into()),
            [os, architecture, variant] => Some((*os, *architecture, *variant).into()),
            _ => None,
        };
        let platform: Option<Platform> = platform;
        Ok(platform
            .with_context(|| {
                format!("{text:?} is not a platform: write OS/ARCHITECTURE[/VARIANT]")
            })?
            .normal())
    }
}

impl From<(&str, &str, &str)> for Platform {
    fn from((os, architecture, variant): (&str, &str, &str)) -> Self {
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: &str) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(platform.as_bytes()),
            size: 1,
            platform: Some(platform.parse().unwrap()),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_plainest_image_for_the_machine_is_chosen() {
        let index = [
            "linux/arm64",
            "linux/amd64/v3",
            "linux/amd64",
            "linux/arm/v6",
        ]
        .map(descriptor);
        let choose = |platform: &str| {
            let platform: Platform = platform.parse().unwrap();
            platform
                .choose(&index)
                .map(|one| one.platform.clone().unwrap().to_string())
        };
        assert_eq!(choose("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(choose("amd64/v3").ok(), None);
        assert_eq!(choose("linux/amd64/v3").unwrap(), "linux/amd64/v3");
        assert_eq!(choose("linux/arm64/v8").unwrap(), "linux/arm64");
        assert_eq!(choose("linux/aarch64").unwrap(), "linux/arm64");
        assert_eq!(choose("linux/arm").unwrap(), "linux/arm/v6");
        assert!(
            choose("linux/s390x")
                .unwrap_err()
                .to_string()
                .contains("linux/arm64")
        );
    }

    #[test]
    fn a_document_has_one_meaning() {
        let digest = Digest::of(b"");
        let part = format!(r#"{{"mediaType":"","digest":"{digest}","size":1}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[{part}]}}"#);
        assert!(matches!(
            Document::parse(manifest.as_bytes(), OCI_MANIFEST),
            Ok(Document::Manifest(_))
        ));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{part}]}}"#);
        assert!(matches!(
            Document::parse(index.as_bytes(), OCI_INDEX),
            Ok(Document::Index(_))
        ));
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{part},"layers":[]}}"#);
        let negative = manifest.replace(r#""size":1"#, r#""size":-1"#);
        let twice = manifest.replace(r#""schemaVersion":2"#, r#""schemaVersion":2,"layers":[]"#);
        let huge = manifest.replace(r#""size":1"#, r#""size":99999999"#);
        let old = manifest.replace(":2,", ":1,");
        for bad in [
            &both,
            &negative,
            &twice,
            &huge,
            &old,
            "[]",
            "{}",
            "",
            "{\"schemaVersion\":2}",
        ] {
            assert!(Document::parse(bad.as_bytes(), "").is_err(), "{bad}");
        }
        assert!(Document::parse(index.as_bytes(), OCI_MANIFEST).is_err());
        let deep = "[".repeat(100_000);
        assert!(Document::parse(deep.as_bytes(), "").is_err());
    }
}

//! What an image says about itself and about the containers made of it (OCI
//! Image Specification, config.md).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, Serialize};

use super::digest::Digest;

/// The execution parameters of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Who runs: `USER[:GROUP]`, names or numbers; empty for root.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The environment, `NAME=VALUE` each.
    #[serde(deserialize_with = "or_null")]
    pub env: Vec<String>,
    /// What is always run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// What is run, or the entrypoint's arguments, where the caller gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The working directory; empty for `/`.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The directories that want a volume.
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// The ports that its services listen at, `80/tcp`.
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it gently, `SIGTERM` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

impl Config {
    /// That of a root file system which came without any: a shell is run.
    pub fn of_a_root_file_system() -> Self {
        Config {
            cmd: Some(vec!["sh".into()]),
            ..Config::default()
        }
    }
}

/// The configuration of an image, of which the digest is the image's id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The processor, as Go calls it: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The execution parameters.
    #[serde(default, deserialize_with = "or_null")]
    pub config: Config,
    /// The layers.
    pub rootfs: RootFs,
}

/// The layers of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the layers as tar archives, not compressed, the lowest
    /// first.
    #[serde(deserialize_with = "or_null")]
    pub diff_ids: Vec<Digest>,
}

/// Go writes `null` for a list or map that is empty.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If it is no configuration, or of an image for another system than Linux.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let config: ImageConfig =
            serde_json::from_slice(json).context("the image's configuration")?;
        if !matches!(config.os.as_str(), "linux" | "") {
            bail!(
                "the image is made for {:?}: only linux can be run here",
                config.os
            );
        }
        Ok(config)
    }

    /// That of an image which has one layer and nothing to say.
    pub fn plain(diff_id: Digest, config: Config) -> Self {
        ImageConfig {
            architecture: architecture().into(),
            os: "linux".into(),
            created: None,
            config,
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: vec![diff_id],
            },
        }
    }
}

/// This machine's processor, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_leaves_null_is_empty() {
        let json = r#"{"os":"linux","config":{"Env":null,"Cmd":["sh"],"Labels":null,
            "Entrypoint":null,"Volumes":{"/data":{}},"Healthcheck":{"Test":[]}},
            "rootfs":{"type":"layers","diff_ids":null},"history":[]}"#;
        let image = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(image.config.env, Vec::<String>::new());
        assert_eq!(image.config.entrypoint, None);
        assert_eq!(image.config.cmd, Some(vec!["sh".into()]));
        assert!(image.config.volumes.contains_key("/data"));
        let bare = br#"{"config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(ImageConfig::parse(bare).unwrap().config, Config::default());
    }

    #[test]
    fn an_image_for_another_system_is_refused() {
        let json = br#"{"os":"windows","rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert!(ImageConfig::parse(json).is_err());
    }
}

//! The configuration of an image: its metadata, and the defaults of its
//! containers (OCI Image Specification, config.md).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;
use crate::image::document::{FromJson, Json, Tail, fields, from_json, is_called, parse};

/// The execution parameters of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// The command's user, `USER[:GROUP]`, names or numbers; empty for root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// The words that every command line begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Words>,
    /// The command, or the entrypoint's arguments, if the caller gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Words>,
    /// The working directory; empty for `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The paths at which a container gets a volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// The ports that its services listen on: `80/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks a container to end, `SIGTERM` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to find out whether a container is healthy: Docker's extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// How to find out whether a container is healthy (`HEALTHCHECK` of a
/// Dockerfile). A count or time of 0 stands for Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` and a program with its arguments, `CMD-SHELL` and a text for the
    /// shell, or `NONE`; empty to inherit the image's.
    pub test: Vec<String>,
    /// Nanoseconds from the end of a probe to the next one.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: u64,
    /// Nanoseconds that a probe may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: u64,
    /// Nanoseconds from the start in which failures do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: u64,
    /// Nanoseconds between probes in that time.
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: u64,
    /// How many probes must fail in a row.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: u64,
}

fn is_default(number: &u64) -> bool {
    *number == 0
}

impl FromJson for Healthcheck {
    /// Go's numbers have a sign: one below 0 is read as 0.
    fn fill(&mut self, json: Json) -> Result<()> {
        for (key, value) in fields(json)? {
            if is_called(&key, "Test") {
                self.test.fill(value).context("Test")?;
                continue;
            }
            let is_negative = matches!(&value, Json::Number(n) if n.as_f64() < Some(0.0));
            for (name, field) in [
                ("Interval", &mut self.interval),
                ("Timeout", &mut self.timeout),
                ("StartPeriod", &mut self.start_period),
                ("StartInterval", &mut self.start_interval),
                ("Retries", &mut self.retries),
            ] {
                match is_called(&key, name) {
                    true if is_negative => *field = 0,
                    true => field.fill(value.clone()).context(name)?,
                    false => {}
                }
            }
        }
        Ok(())
    }
}

impl Config {
    /// The words that every command line begins with. A single empty one, to
    /// which `ENTRYPOINT [""]` resets a base image's, stands for none, as with
    /// Docker.
    pub fn entrypoint(&self) -> &[String] {
        match &self.entrypoint {
            Some(Words(words)) if *words != [""] => words,
            _ => &[],
        }
    }

    /// The configuration of a root file system that comes without one: runs a
    /// shell.
    pub fn of_a_root_file_system() -> Self {
        Config {
            cmd: Some(Words(vec!["sh".into()])),
            ..Config::default()
        }
    }
}

from_json!(Config {
    user: "User",
    env: "Env",
    entrypoint: "Entrypoint",
    cmd: "Cmd",
    working_dir: "WorkingDir",
    volumes: "Volumes",
    exposed_ports: "ExposedPorts",
    labels: "Labels",
    stop_signal: "StopSignal",
    healthcheck: "Healthcheck",
});

/// The value of each key of a set: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

impl FromJson for Empty {
    /// Accepts anything: nobody reads the value.
    fn fill(&mut self, _: Json) -> Result<()> {
        Ok(())
    }
}

/// A command line: a list of words, or a single word as a string, which Docker
/// accepts too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Words(pub Vec<String>);

impl FromJson for Words {
    fn fill(&mut self, json: Json) -> Result<()> {
        match json {
            Json::Text(word) => self.0 = vec![word],
            list => self.0.fill(list)?,
        }
        Ok(())
    }
}

/// The configuration of an image. Its digest is the image's id.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImageConfig {
    /// The processor in Go's terms: `amd64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
    /// The time of its creation, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The execution parameters.
    pub config: Config,
    /// The layers.
    pub rootfs: Option<RootFs>,
}

from_json!(ImageConfig {
    architecture: "architecture",
    os: "os",
    created: "created",
    config: "config",
    rootfs: "rootfs",
});

/// The layers of an image (`rootfs`).
#[derive(Clone, Debug, Default, Serialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed layers, the lowest first.
    pub diff_ids: Vec<String>,
}

from_json!(RootFs {
    kind: "type",
    diff_ids: "diff_ids",
});

impl ImageConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    /// If it is not a configuration, or is for another system than Linux.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let config: ImageConfig =
            parse(json, Tail::Refused).context("the image's configuration")?;
        if !matches!(normal_os(&config.os).as_str(), "linux" | "") {
            bail!(
                "the image is made for {:?}: only linux images run here",
                config.os
            );
        }
        Ok(config)
    }

    /// The digests of the uncompressed layers, the lowest first.
    ///
    /// # Errors
    /// If there is no `rootfs`, or a digest is not SHA-256, by which layers are
    /// known here as elsewhere.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        let Some(rootfs) = &self.rootfs else {
            bail!("the image's configuration has no rootfs, which would list its layers");
        };
        let mut digests = Vec::new();
        for text in &rootfs.diff_ids {
            digests.push(
                text.parse()
                    .context("rootfs of the image's configuration")?,
            );
        }
        Ok(digests)
    }

    /// The configuration of an image with a single layer.
    pub fn plain(diff_id: Digest, config: Config) -> Self {
        ImageConfig {
            architecture: architecture().into(),
            os: "linux".into(),
            created: None,
            config,
            rootfs: Some(RootFs {
                kind: "layers".into(),
                diff_ids: vec![diff_id.to_string()],
            }),
        }
    }
}

/// Converts the name of an operating system to Go's.
pub fn normal_os(os: &str) -> String {
    os.to_ascii_lowercase()
}

/// Converts the name of a processor to Go's: other tools write what uname(1)
/// prints.
pub fn normal_architecture(architecture: &str) -> String {
    match &*architecture.to_ascii_lowercase() {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" | "x86" => "386",
        "armhf" | "armel" => "arm",
        other => other,
    }
    .to_owned()
}

/// This machine's processor in Go's terms.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
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
        assert_eq!(image.config.healthcheck, Some(Healthcheck::default()));
        assert_eq!(image.config.entrypoint, None);
        assert_eq!(image.config.cmd, Some(Words(vec!["sh".into()])));
        assert!(image.config.volumes.contains_key("/data"));
        let bare = br#"{"config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(ImageConfig::parse(bare).unwrap().config, Config::default());
    }

    #[test]
    fn a_command_may_be_one_text() {
        let json = br#"{"Config":{"CMD":"true","entrypoint":"/bin/env","Labels":{"a":null}},
            "architecture":null,"OS":"linux","os":"linux"}"#;
        let image = ImageConfig::parse(json).unwrap();
        assert_eq!(image.config.cmd, Some(Words(vec!["true".into()])));
        assert_eq!(
            image.config.entrypoint,
            Some(Words(vec!["/bin/env".into()]))
        );
        assert_eq!(image.config.labels["a"], "");
        assert!(image.diff_ids().is_err());
        assert!(ImageConfig::parse(br#"{"config":{"Cmd":1}}"#).is_err());
    }

    #[test]
    fn a_negative_number_of_a_check_is_the_default() {
        let json = br#"{"config":{"Healthcheck":{"Test":["CMD","x"],"interval":-1,"Retries":-1,
            "Timeout":5}}}"#;
        let check = ImageConfig::parse(json)
            .unwrap()
            .config
            .healthcheck
            .unwrap();
        assert_eq!((check.interval, check.retries, check.timeout), (0, 0, 5));
        assert_eq!(check.test, ["CMD", "x"]);
        let fraction = br#"{"config":{"Healthcheck":{"Retries":1.5}}}"#;
        assert!(ImageConfig::parse(fraction).is_err());
    }

    #[test]
    fn an_image_for_another_system_is_refused() {
        let json = br#"{"os":"windows","rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert!(ImageConfig::parse(json).is_err());
    }
}

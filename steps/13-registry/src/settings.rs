//! Which registries there are: `registries.toml`.
//!
//! ```toml
//! default = "registry.example:5000"   # of references that name no host
//! patience = 30                       # seconds without news, after which a registry is given up
//!
//! [[registry]]
//! host = "registry.example:5000"
//! mirrors = ["localhost:5001"]        # asked first
//! insecure = true                     # plain HTTP, or TLS by anybody
//! ```
//!
//! The user's file replaces the machine's. `DRYDOCK_REGISTRY` replaces `default`.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::reference::{Reference, Remote, Repository};

/// Seconds that a registry may be silent, or slower than anybody wants to wait.
const PATIENCE: u64 = 30;

/// The registries, as they are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// The registry of references that name none, `HOST[:PORT]`.
    pub default: Option<String>,
    /// Seconds without news, after which a registry is given up.
    pub patience: Option<u64>,
    /// What is known about single registries.
    #[serde(rename = "registry")]
    pub each: Vec<Registry>,
}

/// What is known about a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Its `HOST[:PORT]`.
    pub host: String,
    /// Registries with the same content, which are asked first.
    pub mirrors: Vec<String>,
    /// Whether it may speak plain HTTP, or show a certificate of anybody's.
    pub insecure: bool,
}

impl Registries {
    /// Reads the configuration.
    ///
    /// # Errors
    /// If a file is not valid.
    pub fn read() -> Result<Self> {
        let mut registries = Registries::default();
        for path in files() {
            match fs::read_to_string(&path) {
                Ok(text) => {
                    registries = toml::from_str(&text).with_context(|| format!("{path:?}"))?;
                    registries.check().with_context(|| format!("{path:?}"))?;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
            }
        }
        if let Some(default) = env::var_os("DRYDOCK_REGISTRY").filter(|value| !value.is_empty()) {
            let default = default.into_string().ok();
            registries.default = Some(default.context("DRYDOCK_REGISTRY is not UTF-8")?);
            registries.check().context("DRYDOCK_REGISTRY")?;
        }
        Ok(registries)
    }

    /// Refuses what is not a `HOST[:PORT]`.
    fn check(&self) -> Result<()> {
        let each = self.each.iter();
        let each = each.flat_map(|one| [&one.host].into_iter().chain(&one.mirrors));
        for host in self.default.iter().chain(each) {
            let reference: Reference = format!("{host}/x").parse()?;
            ensure!(
                reference.host.as_ref() == Some(host),
                "{host:?} does not look like a registry: write it with a port, or with a dot"
            );
        }
        Ok(())
    }

    /// Where a reference leads: to the registry that it names, or to the one that
    /// is configured.
    ///
    /// # Errors
    /// If it names none and none is configured.
    // ANCHOR: resolve
    pub fn resolve(&self, reference: &Reference) -> Result<Remote> {
        let path = &reference.path;
        let (host, path) = match (&reference.host, &self.default) {
            (Some(host), _) => (host.clone(), path.clone()),
            // Docker's own images have a path of one part only for people.
            (None, Some(default)) if !path.contains('/') => {
                (default.clone(), format!("library/{path}"))
            }
            (None, Some(default)) => (default.clone(), path.clone()),
            (None, None) => bail!(
                "{reference} names no registry, and none is configured: write \
                 HOST/{reference}, or set DRYDOCK_REGISTRY=HOST, or default = \"HOST\" in {}",
                Registries::paths_in_words()
            ),
        };
        let latest = || reference.digest.is_none().then(|| "latest".to_owned());
        Ok(Remote {
            repository: Repository { host, path },
            tag: reference.tag.clone().or_else(latest),
            digest: reference.digest.clone(),
        })
    }
    // ANCHOR_END: resolve

    /// What is known about the registry `host`.
    pub fn about(&self, host: &str) -> Registry {
        let known = self.each.iter().find(|one| one.host == host).cloned();
        known.unwrap_or_else(|| Registry {
            host: host.to_owned(),
            ..Registry::default()
        })
    }

    /// How long a registry may keep us waiting.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience.unwrap_or(PATIENCE).clamp(1, 3600))
    }

    /// Where the configuration may be, for messages.
    pub fn paths_in_words() -> String {
        let files = files().into_iter();
        let words: Vec<String> = files.map(|path| path.display().to_string()).collect();
        words.join(" or ")
    }
}

/// The directories of configuration: the user's, the machine's.
pub fn directories() -> Vec<PathBuf> {
    let user = env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    let machine = Some(PathBuf::from("/etc"));
    let both = [user, machine].into_iter().flatten();
    both.map(|directory| directory.join("drydock")).collect()
}

fn files() -> Vec<PathBuf> {
    let directories = directories().into_iter();
    directories
        .map(|directory| directory.join("registries.toml"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_digest_goes_before_a_tag() {
        let digest = engine::image::digest::Digest::of(b"");
        let text = format!("localhost:5000/app:1@{digest}");
        let reference = parsed(&text);
        assert_eq!(reference.to_string(), text);
        let remote = Registries::default().resolve(&reference).unwrap();
        assert_eq!(remote.asked(), digest.to_string());
        assert_eq!(remote.name().unwrap(), None);
    }

    #[test]
    fn a_reference_without_a_host_needs_a_default() {
        let error = Registries::default().resolve(&parsed("busybox"));
        assert!(error.unwrap_err().to_string().contains("DRYDOCK_REGISTRY"));
        let registries = Registries {
            default: Some("localhost:5000".into()),
            ..Registries::default()
        };
        let remote = |text: &str| registries.resolve(&parsed(text)).unwrap().to_string();
        assert_eq!(remote("busybox"), "localhost:5000/library/busybox:latest");
        assert_eq!(remote("a/b:1"), "localhost:5000/a/b:1");
        assert_eq!(remote("h.org/b:1"), "h.org/b:1");
    }

    #[test]
    fn a_file_names_registries() {
        let text = "default = \"h.org:5000\"\n[[registry]]\nhost = \"h.org:5000\"\nmirrors = \
                    [\"localhost:1\"]\ninsecure = true\n";
        let registries: Registries = toml::from_str(text).unwrap();
        registries.check().unwrap();
        assert!(registries.about("h.org:5000").insecure);
        assert!(!registries.about("other.org").insecure);
        for bad in [
            "default = \"library\"",
            "default = \"h.org/x\"",
            "default = \"http://h.org\"",
        ] {
            let registries: Registries = toml::from_str(bad).unwrap();
            assert!(registries.check().is_err(), "{bad}");
        }
        assert!(toml::from_str::<Registries>("standard = \"h.org\"").is_err());
    }
}

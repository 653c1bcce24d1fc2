//! Networks as files: `ROOT/networks/ID.json`, replaced as a whole. A network is
//! a description; what it needs of the kernel exists while a container is on it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use kit::atomic_file::write_file;
use kit::lock::{Lock, Turn, hold};
use kit::own::{make, read_own, remove_file, require_own};
use kit::warn;
use net::{PREFIX, UserBridge};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use union::layers::store::sweep_drafts;

/// The largest description, in bytes.
const LARGEST: u64 = 1 << 20;

/// The networks that are always there, and their drivers.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// `bridge`, or for a predefined one `host` or `null`.
    pub driver: String,
    /// The addresses; `None` for a predefined one.
    pub subnet: Option<Subnet>,
    /// Whether nothing leads out of it.
    pub internal: bool,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, which do nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What Docker calls attachable; all networks are.
    #[serde(default)]
    pub attachable: bool,
    /// Whether it is one of those that are always there.
    #[serde(skip)]
    pub predefined: bool,
}

/// The addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// All of them.
    pub subnet: Ipv4Net,
    /// Those that containers get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Ipv4Net>,
    /// That of the bridge.
    pub gateway: Ipv4Addr,
    /// Whether the user has chosen the subnet. Only then a container may ask for
    /// an address: another engine would choose another subnet.
    pub chosen: bool,
}

impl Network {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The bridge of this network.
    ///
    /// # Errors
    /// For a predefined network.
    pub fn bridge(&self) -> Result<UserBridge> {
        let subnet = self.subnet.as_ref();
        let subnet = subnet.with_context(|| format!("{} has no bridge of its own", self.name))?;
        let bridge = UserBridge {
            device: format!("{PREFIX}{}", self.short_id()),
            subnet: subnet.subnet,
            gateway: subnet.gateway,
            range: subnet.range,
            internal: self.internal,
        };
        bridge.check()?;
        Ok(bridge)
    }

    /// Checks that an engine can have written this description into `path`.
    fn check(&self, path: &Path) -> Result<()> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        ensure!(
            self.id.len() == 64 && self.id.chars().all(digit),
            "its id is {:?}",
            self.id
        );
        ensure!(
            path.file_stem().is_some_and(|stem| *stem == *self.id),
            "it is about network {:?}",
            self.id
        );
        kit::name::check(&self.name)?;
        self.bridge().map(drop)
    }
}

/// The networks that are always there. Their ids follow from their names.
fn predefined() -> Vec<Network> {
    let id = |name: &str| {
        let digest = Sha256::digest(format!("drydock network {name}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let of = |(name, driver): (&str, &str)| Network {
        id: id(name),
        name: name.to_owned(),
        created: "0001-01-01T00:00:00Z".to_owned(),
        driver: driver.to_owned(),
        subnet: None,
        internal: false,
        labels: BTreeMap::new(),
        predefined: true,
        ..Network::default()
    };
    PREDEFINED.into_iter().map(of).collect()
}

/// The networks below a root.
#[derive(Clone, Debug)]
pub struct Networks {
    directory: PathBuf,
}

impl Networks {
    /// The networks in `root`. Creates nothing yet.
    pub fn new(root: &Path) -> Self {
        Networks {
            directory: root.join("networks"),
        }
    }

    /// Where a network's description is.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Keeps networks from being made and removed while it is held.
    pub fn hold(&self, turn: Turn) -> Result<Lock> {
        make(&self.directory, 0o700)?;
        require_own(&self.directory)?;
        let held = hold(&self.directory, turn)?;
        if turn == Turn::Judging {
            // What was being written when its writer was killed.
            sweep_drafts(&self.directory)?;
        }
        Ok(held)
    }

    /// Reads a network; `None` if there is none with that id.
    ///
    /// # Errors
    /// If its description is damaged, or not trusted.
    pub fn read(&self, id: &str) -> Result<Option<Network>> {
        let path = self.path(id);
        let Some(json) = read_own(&path, LARGEST)? else {
            return Ok(None);
        };
        let network: Network = serde_json::from_slice(&json)
            .with_context(|| format!("{path:?} is damaged: remove it"))?;
        network
            .check(&path)
            .with_context(|| format!("{path:?} is not a description of a network: remove it"))?;
        Ok(Some(network))
    }

    /// The networks that users have made. One that is damaged, or not trusted, is
    /// skipped with a warning.
    pub fn custom(&self) -> Result<Vec<Network>> {
        let directory = &self.directory;
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
        };
        require_own(directory)?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry
                .with_context(|| format!("read {directory:?}"))?
                .file_name();
            let name = name.to_str().unwrap_or_default();
            // Drafts begin with a dot, as the lock does.
            let Some(id) = name.strip_suffix(".json").filter(|id| !id.starts_with('.')) else {
                continue;
            };
            match self.read(id) {
                Ok(network) => found.extend(network),
                Err(error) => warn!("skipped: {error:#}"),
            }
        }
        Ok(found)
    }

    /// All networks, by their names.
    pub fn all(&self) -> Result<Vec<Network>> {
        let mut all = [predefined(), self.custom()?].concat();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(all)
    }

    /// The network with that name, id, or beginning of an id.
    ///
    /// # Errors
    /// If there is none, or the beginning fits several.
    pub fn find(&self, reference: &str) -> Result<Network> {
        let all = self.all()?;
        let exact = |network: &&Network| network.name == reference || network.id == reference;
        if let Some(found) = all.iter().find(exact) {
            return Ok(found.clone());
        }
        let mut begun = all
            .iter()
            .filter(|network| !reference.is_empty() && network.id.starts_with(reference));
        match (begun.next(), begun.next()) {
            (Some(network), None) => Ok(network.clone()),
            (Some(_), Some(_)) => bail!(
                "network {reference} is ambiguous ({} matches found on ID prefix)",
                begun.count() + 2
            ),
            _ => bail!("network {reference} not found"),
        }
    }

    /// Writes a new network. Call it while holding the lock.
    pub fn write(&self, network: &Network) -> Result<()> {
        let json = serde_json::to_vec_pretty(network).context("write JSON")?;
        write_file(&self.path(&network.id), json)
    }

    /// Removes a network. Call it while holding the lock.
    pub fn remove(&self, network: &Network) -> Result<()> {
        remove_file(&self.path(&network.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, id: char) -> Network {
        Network {
            id: id.to_string().repeat(64),
            name: name.into(),
            created: String::new(),
            driver: "bridge".into(),
            subnet: Some(Subnet {
                subnet: "172.18.0.0/16".parse().unwrap(),
                range: None,
                gateway: "172.18.0.1".parse().unwrap(),
                chosen: false,
            }),
            internal: false,
            labels: BTreeMap::new(),
            ..Network::default()
        }
    }

    #[test]
    fn a_network_is_found_by_name_id_and_its_beginning() {
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::new(root.path());
        assert_eq!(networks.all().unwrap().len(), 3);
        let _lock = networks.hold(Turn::Judging).unwrap();
        networks.write(&network("b1", 'a')).unwrap();
        networks.write(&network("aa", 'b')).unwrap();
        assert_eq!(networks.find("b1").unwrap().name, "b1");
        // A name goes before an id.
        assert_eq!(networks.find("aa").unwrap().name, "aa");
        assert_eq!(networks.find("aaa").unwrap().name, "b1");
        assert_eq!(networks.find("none").unwrap().driver, "null");
        assert!(networks.find("").is_err() && networks.find("x").is_err());
        let names: Vec<_> = networks
            .all()
            .unwrap()
            .into_iter()
            .map(|n| n.name)
            .collect();
        assert_eq!(names, ["aa", "b1", "bridge", "host", "none"]);
    }

    #[test]
    fn a_description_of_another_network_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::new(root.path());
        let _lock = networks.hold(Turn::Making).unwrap();
        let json = serde_json::to_vec(&network("x", 'a')).unwrap();
        write_file(&networks.path(&"b".repeat(64)), &json).unwrap();
        assert!(networks.read(&"b".repeat(64)).is_err());
        assert_eq!(networks.read(&"c".repeat(64)).unwrap(), None);
        assert!(networks.custom().unwrap().is_empty());
    }
}

//! The state: what Drydock has made on this host's network, recorded in a file,
//! `state.json`.
//!
//! A launcher records what it is going to make before it makes it. If it is
//! killed, the next one finds the record, sees that its writer is dead, and
//! removes what exists of it. The file is replaced as a whole (rename(2)), so
//! it is always complete, and only by the process that holds the lock on the
//! directory (flock(2)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind::NotFound;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bridge::network::Network;
use crate::bridge::user::UserBridge;
use crate::ledger::directory::VARIABLE;
use crate::ledger::lock::{lock, remove_directory};
use crate::nat::publish::Publish;
use kit::process_identity::{ALL_ASKED, is_taken};
use kit::{ProcessIdentity, say};

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The shared network, while a container needs it.
    pub network: Option<Network>,
    /// The user-defined bridges that containers need, by their devices' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bridges: BTreeMap<String, UserBridge>,
    /// The containers, by id.
    pub containers: BTreeMap<String, Endpoint>,
}

/// A container in the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The launcher, with which the container ends.
    pub owner: ProcessIdentity,
    /// The address on the bridge; `None` without a connection to it.
    pub address: Option<Ipv4Addr>,
    /// The published ports.
    pub ports: Vec<Publish>,
    /// The connections to user-defined bridges, by the bridges' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugs: BTreeMap<String, Plug>,
}

/// A container's connection to a user-defined bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plug {
    /// Its address there.
    pub address: Ipv4Addr,
    /// The name of the veth pair's host end.
    pub host_end: String,
    /// The name of the other end.
    pub inside: String,
}

impl Endpoint {
    /// Whether it is on any bridge.
    pub(crate) fn is_connected(&self) -> bool {
        self.address.is_some() || !self.plugs.is_empty()
    }

    /// The address to which its published ports lead: on the default bridge, or
    /// else on the first that leads anywhere.
    pub(crate) fn leads_to(&self, bridges: &BTreeMap<String, UserBridge>) -> Option<Ipv4Addr> {
        let open = |name: &String| bridges.get(name).is_some_and(|bridge| !bridge.internal);
        let plug = || self.plugs.iter().find(|(name, _)| open(name));
        self.address.or_else(|| Some(plug()?.1.address))
    }
}

impl State {
    /// The containers on any bridge.
    pub(crate) fn connected(&self) -> impl Iterator<Item = (&String, &Endpoint)> {
        self.containers
            .iter()
            .filter(|(_, member)| member.is_connected())
    }

    /// The allocated addresses of a user-defined bridge.
    pub(crate) fn addresses_on(&self, bridge: &str) -> BTreeMap<Ipv4Addr, String> {
        self.containers
            .iter()
            .filter_map(|(id, member)| Some((member.plugs.get(bridge)?.address, id.clone())))
            .collect()
    }

    /// The allocated addresses, each with the id of its container.
    pub(crate) fn addresses(&self) -> BTreeMap<Ipv4Addr, String> {
        self.connected()
            .filter_map(|(id, member)| Some((member.address?, id.clone())))
            .collect()
    }
}

/// The state, locked against every other reader and writer.
#[derive(Debug)]
pub(crate) struct Locked {
    directory: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
    /// The content of the file. Call [`save`](Self::save) after a change, and
    /// [`close`](Self::close) where it may have become empty.
    pub state: State,
}

impl Locked {
    /// Waits for the lock and reads the state. Without containers there is no
    /// file, and the directory is created.
    ///
    /// # Errors
    /// A directory that belongs to another user or that others may write to; a
    /// damaged file.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let lock = lock(directory).with_context(|| format!("the state in {directory:?}"))?;
        let path = directory.join("state.json");
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{path:?} is damaged: remove it, then run step-06 restore")
            })?,
            Err(error) if error.kind() == NotFound => State::default(),
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        Ok(Locked {
            directory: directory.to_owned(),
            _lock: lock,
            state,
        })
    }

    /// Writes the state.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.path();
        let text = serde_json::to_vec_pretty(&self.state).context("the state as JSON")?;
        fs::write(self.draft(), text).with_context(|| format!("write {:?}", self.draft()))?;
        fs::rename(self.draft(), &path).with_context(|| format!("rename(…, {path:?})"))
    }

    /// Releases the lock. Removes the file and its directory if the state is
    /// empty.
    pub(crate) fn close(self) -> Result<()> {
        if self.state != State::default() {
            return Ok(());
        }
        remove_file(&self.path())?;
        remove_file(&self.draft())?;
        remove_directory(&self.directory)?;
        match self.directory.parent() {
            Some(parent) => remove_directory(parent),
            None => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn draft(&self) -> PathBuf {
        self.directory.join("state.json.new")
    }

    /// The directory for the files of one container.
    pub(crate) fn files_of(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// The ids of the containers whose launchers are dead. Among many, only
    /// those count whose PID no other process has.
    pub(crate) fn dead(&self) -> Vec<String> {
        let many = self.state.containers.len() > ALL_ASKED;
        self.state
            .containers
            .iter()
            .filter(|(_, member)| !(many && is_taken(member.owner.pid)))
            .filter(|(_, member)| !member.owner.is_alive())
            .map(|(id, _)| id.clone())
            .collect()
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != NotFound => {
            Err(error).with_context(|| format!("unlink({path:?})"))
        }
        _ => Ok(()),
    }
}

/// Checks that the state belongs to this network namespace: one directory
/// serves one namespace. If its namespace no longer exists, the network and its
/// containers are dropped from the state.
///
/// # Errors
/// Names the namespace of the state, and the remedy.
pub(crate) fn check_place(state: &mut State) -> Result<()> {
    let Some(network) = &state.network else {
        return Ok(());
    };
    if network.is_here()? {
        return Ok(());
    }
    if network.exists() {
        bail!(
            "the state belongs to another network namespace, net:[{}]: set {} to another \
             directory",
            network.namespace,
            VARIABLE
        );
    }
    say!("net:[{}] is gone: forgotten", network.namespace);
    state.network = None;
    state.bridges.clear();
    state.containers.retain(|_, member| !member.is_connected());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: i32) -> Endpoint {
        Endpoint {
            owner: ProcessIdentity { pid, start: 1 },
            address: Some(Ipv4Addr::new(10, 0, 0, 2)),
            ports: vec!["8080:80".parse().unwrap()],
            plugs: BTreeMap::new(),
        }
    }

    #[test]
    fn what_was_saved_is_read_and_nothing_is_left_of_an_empty_state() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("drydock/net");
        let mut locked = Locked::open(&directory).unwrap();
        locked.state.containers.insert("7".into(), member(7));
        locked.save().unwrap();
        let saved = locked.state.clone();
        drop(locked);

        let mut locked = Locked::open(&directory).unwrap();
        assert_eq!(locked.state, saved);
        assert_eq!(locked.dead(), ["7"], "no process is as old as that");
        locked.state = State::default();
        locked.close().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("net");
        drop(Locked::open(&directory).unwrap());
        fs::write(directory.join("state.json"), "{").unwrap();
        let error = format!("{:#}", Locked::open(&directory).unwrap_err());
        assert!(error.contains("step-06 restore"), "{error}");
    }
}

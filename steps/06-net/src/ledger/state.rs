//! What Drydock has made on this host's network, in a file: `state.json`.
//!
//! A launcher writes down what it is going to make before it makes it. If it
//! is killed, the next one finds the note, sees that its writer is dead, and
//! removes whatever there is of it. The file is replaced as a whole
//! (rename(2)), so there is always a complete one, and only by the process
//! that has the directory locked (flock(2)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind::NotFound;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bridge::network::Network;
use crate::ledger::directory::VARIABLE;
use crate::ledger::lock::{lock, remove_directory};
use crate::nat::publish::Publish;
use kit::{ProcessIdentity, say};

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The bridge and what belongs to it, as long as containers need it.
    pub network: Option<Network>,
    /// The containers, by their ids.
    pub containers: BTreeMap<String, Member>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The launcher. The container ends with it.
    pub owner: ProcessIdentity,
    /// The address on the bridge; none, if it is not connected to that.
    pub address: Option<Ipv4Addr>,
    /// The ports of the host that lead to it.
    pub ports: Vec<Publish>,
}

impl State {
    /// The containers on the bridge.
    pub(crate) fn connected(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.containers
            .iter()
            .filter(|(_, member)| member.address.is_some())
    }

    /// The addresses that are taken, and the ids of who has them.
    pub(crate) fn addresses(&self) -> BTreeMap<Ipv4Addr, String> {
        self.connected()
            .filter_map(|(id, member)| Some((member.address?, id.clone())))
            .collect()
    }
}

/// The state, locked: nobody else reads or changes it meanwhile.
#[derive(Debug)]
pub(crate) struct Locked {
    directory: PathBuf,
    /// Holds the lock, until it is closed.
    _lock: File,
    /// What the file says, to be changed and then [saved](Self::save). One
    /// that was opened is [closed](Self::close) where it may be empty.
    pub state: State,
}

impl Locked {
    /// Waits for the lock and reads the state. There is none if there are no
    /// containers: then the directory is made.
    ///
    /// # Errors
    /// Those of mkdir(2), open(2) and flock(2); a directory that belongs to
    /// somebody else; a file that is no state.
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
    ///
    /// # Errors
    /// Those of writing and renaming the file.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.path();
        let text = serde_json::to_vec_pretty(&self.state).context("the state as JSON")?;
        fs::write(self.draft(), text).with_context(|| format!("write {:?}", self.draft()))?;
        fs::rename(self.draft(), &path).with_context(|| format!("rename(…, {path:?})"))
    }

    /// Gives the lock back. Where there is nothing in the state, nothing is
    /// left of it, the directory included.
    ///
    /// # Errors
    /// Those of unlink(2) and rmdir(2).
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

    /// The directory for files of one container.
    pub(crate) fn files_of(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// The ids of containers whose launcher is dead.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.state
            .containers
            .iter()
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

/// Refuses to go on where the state is about another host, so to speak: one
/// directory is for one network namespace. Forgets it where that is gone, and
/// everything in it with it.
///
/// # Errors
/// Says which namespace the state is about, and what can be done.
pub(crate) fn check_place(state: &mut State) -> Result<()> {
    let Some(network) = &state.network else {
        return Ok(());
    };
    if network.is_here()? {
        return Ok(());
    }
    if network.exists() {
        bail!(
            "the state is about another network namespace, net:[{}]: set {} to another directory",
            network.namespace,
            VARIABLE
        );
    }
    say!("net:[{}] is gone: forgotten", network.namespace);
    state.network = None;
    state
        .containers
        .retain(|_, member| member.address.is_none());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: i32) -> Member {
        Member {
            owner: ProcessIdentity { pid, start: 1 },
            address: Some(Ipv4Addr::new(10, 0, 0, 2)),
            ports: vec!["8080:80".parse().unwrap()],
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

//! The subnets of networks that are described somewhere, though nothing of them
//! may exist now. Every engine of the host has its own descriptions: here they
//! see one another's, under one lock.
//!
//! A file for each network, `subnets/ID`, with its subnet and the path of its
//! description. It counts as long as that path exists: nobody has to tidy up
//! after an engine whose root was deleted.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use kit::atomic_file;
use kit::own::{is_there, read_own, remove_file};
use kit::warn;
use serde::{Deserialize, Serialize};

use crate::kernel::{address, link, route};
use crate::ledger::directory::directory;
use crate::ledger::lock::{lock, remove_directory};
use crate::names::resolv::servers;

/// The largest file, in bytes.
const LARGEST: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Promise {
    subnet: Ipv4Net,
    description: PathBuf,
}

/// The promised subnets of the host, locked against every other engine. Call
/// [`close`](Self::close) at the end.
#[derive(Debug)]
pub struct Promises {
    directory: PathBuf,
    _lock: File,
}

impl Promises {
    /// Waits for the lock.
    pub fn hold() -> Result<Self> {
        let directory = directory().with_file_name("subnets");
        let lock = lock(&directory).with_context(|| format!("the subnets in {directory:?}"))?;
        Ok(Promises {
            directory,
            _lock: lock,
        })
    }

    fn path(&self, id: &str) -> Result<PathBuf> {
        let plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric());
        ensure!(plain, "{id:?} is no id of a network");
        Ok(self.directory.join(id))
    }

    /// All promised subnets.
    pub fn all(&self) -> Result<Vec<Ipv4Net>> {
        let directory = &self.directory;
        let mut all = Vec::new();
        for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
            let path = entry.with_context(|| format!("read {directory:?}"))?.path();
            let bytes = read_own(&path, LARGEST)?.unwrap_or_default();
            match serde_json::from_slice::<Promise>(&bytes) {
                Ok(promise) if is_there(&promise.description)? => all.push(promise.subnet),
                Ok(_) => remove_file(&path)?,
                Err(error) => {
                    warn!("removed {path:?}, which promises no subnet: {error}");
                    remove_file(&path)?;
                }
            }
        }
        Ok(all)
    }

    /// Promises a subnet to the network `id`, which has a description.
    pub fn add(&self, id: &str, subnet: Ipv4Net, description: &Path) -> Result<()> {
        let description = std::path::absolute(description).context("the current directory")?;
        let promise = Promise {
            subnet,
            description,
        };
        let json = serde_json::to_vec(&promise).context("write JSON")?;
        atomic_file::write_file(&self.path(id)?, json)
    }

    /// Takes back what was promised to a network; nothing if nothing was.
    pub fn remove(&self, id: &str) -> Result<()> {
        remove_file(&self.path(id)?)
    }

    /// Releases the lock. Removes the directory if nothing is promised.
    pub fn close(self) -> Result<()> {
        remove_directory(&self.directory)?;
        match self.directory.parent() {
            Some(parent) => remove_directory(parent),
            None => Ok(()),
        }
    }
}

/// The networks that the host uses itself, and that no new one may overlap: it
/// has routes to them, addresses in them, or name servers.
pub fn of_host() -> Result<Vec<Ipv4Net>> {
    let mut client = link::route_client()?;
    let routes = route::list(&mut client, "")?;
    let mut all: Vec<Ipv4Net> = routes.into_iter().map(|known| known.to).collect();
    // A device that is down has addresses and no routes.
    all.extend(address::networks(&mut client)?);
    for server in servers(&[])? {
        if let IpAddr::V4(server) = server {
            all.push(Ipv4Net::from(server));
        }
    }
    Ok(all)
}

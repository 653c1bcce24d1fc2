//! The caller of the launcher and its rights (credentials(7), capabilities(7)).

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::accounts::accounts;
use crate::ids::Ids;

/// The launcher's own credentials.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
    /// Effective capabilities.
    pub capabilities: CapabilitySet,
}

impl Caller {
    /// Reads the credentials of this process.
    pub fn look() -> Result<Self> {
        Ok(Caller {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            capabilities: capabilities(None).context("capget")?.effective,
        })
    }

    /// Whether the process has `CAP_SYS_ADMIN` and so may create other
    /// namespaces without a user namespace. Root in another engine's container
    /// does not have it.
    pub fn is_privileged(&self) -> bool {
        self.capabilities.contains(CapabilitySet::SYS_ADMIN)
    }

    /// The effective ID of the given kind.
    pub fn id(&self, ids: Ids) -> u32 {
        match ids {
            Ids::User => self.uid,
            Ids::Group => self.gid,
        }
    }

    /// Whether the kernel accepts any map from this process: `CAP_SETUID` or
    /// `CAP_SETGID` in the parent of the new namespace.
    pub fn may_map(&self, ids: Ids) -> bool {
        self.capabilities.contains(match ids {
            Ids::User => CapabilitySet::SETUID,
            Ids::Group => CapabilitySet::SETGID,
        })
    }

    /// The login name, if `/etc/passwd` has one.
    pub fn name(&self) -> Result<Option<String>> {
        let account = accounts()?
            .into_iter()
            .find(|account| account.uid == self.uid);
        Ok(account.map(|account| account.name))
    }
}

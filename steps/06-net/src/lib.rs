//! Step 06: the network namespace (network_namespaces(7)).
//!
//! A new one holds a loopback device, which is down, and nothing else. To be of
//! use it needs a cable (veth(4)), something to plug that into (a bridge),
//! addresses, routes, names, and on the host rules by which packets get out
//! and, to published ports, in (nf_tables).
//!
//! Read these, in this order:
//!
//! 1. this file: [`Net`], the isolation, and [`connection`], one container's
//!    part of the network
//! 2. [`kernel`]: netlink, devices, addresses, routes
//! 3. [`bridge`]: what all containers share
//! 4. [`nat`]: the way out, and published ports
//!
//! What makes it safe to kill, and fit for odd hosts:
//!
//! - [`ledger`]: what was made is written down before it is made
//! - [`names`]: the host's resolver, where it is one that a container cannot
//!   reach
//! - `kernel/ports_for_all`, `nat/firewall`: other users, other packet filters
//!
//! [`cli`] has the options and the tools.

mod bridge;
mod cli;
mod connection;
mod kernel;
mod ledger;
mod names;
mod nat;

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Error, Result};
use kit::ProcessIdentity;
use kit::errno::is;
use kit::say;
use mount::RootTree;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, gethostname};
use process::Isolation;
use uts::Namespace;

pub use crate::cli::args::NetSettings;
pub use crate::cli::mode::NetworkMode;
pub use crate::cli::tool;
use crate::connection::Connection;
use crate::kernel::{link, ports_for_all};
use crate::ledger::state::{Locked, Member};
use crate::ledger::{directory, reclaim};
use crate::names::files::{self, Files};

/// The beginning of the names of devices that are the host's ends of cables.
pub const VETH: &str = "veth";

/// The name of the host's end of a container's cable.
pub fn veth(id: &str) -> String {
    format!("{VETH}{id}")
}

/// The comment of a container's rules, by which they are found again.
pub fn comment(id: &str) -> String {
    format!("container {id}")
}

/// The network of a container.
pub struct Net {
    args: NetSettings,
    namespace: Namespace,
    id: String,
    directory: PathBuf,
    hostname: Option<OsString>,
    /// The state has been opened, and there may be something to clean up.
    begun: bool,
    /// In the child: its end of the cable has its addresses.
    configured: bool,
    connection: Option<Connection>,
}

impl Net {
    /// The isolation that `args` describe. They are checked in `prepare`.
    ///
    /// Its id, by which devices, rules and files are named, is the launcher's
    /// PID: unique among those that live, and one sees what belongs to whom.
    pub fn new(args: NetSettings) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let pid = std::process::id();
        let id = match MADE.fetch_add(1, Ordering::Relaxed) {
            0 => pid.to_string(),
            n => format!("{pid}-{n}"),
        };
        Net {
            namespace: Namespace::new(CloneFlags::CLONE_NEWNET, args.mode().namespace()),
            args,
            id,
            directory: directory::directory(),
            hostname: None,
            begun: false,
            configured: false,
            connection: None,
        }
    }

    /// The host name that step 01 gives the container; without one it has the
    /// launcher's.
    #[must_use]
    pub fn hostname(mut self, name: Option<OsString>) -> Self {
        self.hostname = name;
        self
    }

    /// The container's resolv.conf, hosts and hostname on the host, and their
    /// places inside, for step 04 to mount. A container without a root file
    /// system of its own has the host's, which do for all but those on the
    /// bridge.
    pub fn files(&self, tree: RootTree) -> Vec<(PathBuf, PathBuf)> {
        if tree == RootTree::Hosts && self.args.mode() != NetworkMode::Bridge {
            return Vec::new();
        }
        files::places(&self.directory.join(&self.id))
    }
}

impl Isolation for Net {
    fn name(&self) -> &'static str {
        "net"
    }

    fn namespaces(&self) -> CloneFlags {
        // ANCHOR: exercise_new_namespace
        self.namespace.namespaces()
        // ANCHOR_END: exercise_new_namespace
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        self.namespace.joins()
    }

    fn prepare(&mut self) -> Result<()> {
        // ANCHOR: exercise_prepare
        self.args.check()?;
        self.namespace.prepare()?;
        let mut locked = Locked::open(&self.directory)?;
        self.begun = true;
        if self.args.mode() == NetworkMode::Bridge {
            let connection = Connection::prepare(&mut locked, &self.id, &self.args);
            self.connection = Some(connection.map_err(explained)?);
        } else {
            reclaim::sweep(&mut locked)?;
            let member = Member {
                owner: ProcessIdentity::current()?,
                address: None,
                ports: Vec::new(),
            };
            locked.state.containers.insert(self.id.clone(), member);
            locked.save()?;
        }
        let hostname = match self.hostname.take() {
            Some(name) => name,
            None => gethostname().context("gethostname")?,
        };
        let address = self.connection.as_ref().map(|c| c.address);
        Files::of(&self.args, &hostname.to_string_lossy(), address)?
            .write(&locked.files_of(&self.id))
        // ANCHOR_END: exercise_prepare
    }

    // ANCHOR: on_host
    fn on_host(&mut self, child: Pid) -> Result<()> {
        match &mut self.connection {
            Some(connection) => connection.plug_in(child),
            None => Ok(()),
        }
    }
    // ANCHOR_END: on_host

    /// A socket of the host's network, until the container's own is configured.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let connection = self.connection.as_ref().filter(|_| !self.configured);
        connection.map(Connection::keeps).into_iter().collect()
    }

    // ANCHOR: in_container
    fn in_container(&mut self) -> Result<()> {
        if self.namespaces().is_empty() {
            return Ok(());
        }
        say!("ip link set lo up");
        link::set_up(&mut link::route_client()?, "lo")?;
        ports_for_all::allow()?;
        if let Some(connection) = &mut self.connection {
            connection.configure()?;
        }
        self.configured = true;
        Ok(())
    }
    // ANCHOR_END: in_container

    // ANCHOR: cleanup
    fn cleanup(&mut self) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        let mut locked = Locked::open(&self.directory)?;
        reclaim::remove(&mut locked, &self.id)?;
        locked.close()?;
        // Not before its rules are gone may others have a port.
        self.connection = None;
        Ok(())
    }
    // ANCHOR_END: cleanup
}

/// Adds to a refusal for lack of privilege what can be done about it.
fn explained(error: Error) -> Error {
    if !is(&error, &[Errno::EPERM, Errno::EACCES]) {
        return error;
    }
    error.context(
        "a bridge needs root on the host (CAP_NET_ADMIN): use sudo, or --network none, host or \
         container:PID",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_fit_into_the_kernels_buffer() {
        let longest = veth("4194304-999");
        assert!(longest.len() < nix::libc::IFNAMSIZ, "{longest}");
    }
}

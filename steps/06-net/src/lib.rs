//! Step 06: the network namespace (network_namespaces(7)).
//!
//! A new network namespace holds only a loopback device, which is down. To be
//! useful it needs a pair of connected devices (veth(4)), a bridge to which one
//! of them is attached, addresses, routes, names, and rules on the host
//! (nf_tables) by which packets get out and, to published ports, in.
//!
//! Reading order:
//!
//! 1. this file: [`Net`], the isolation, and [`connection`], one container's
//!    part of the network
//! 2. [`kernel`]: netlink, devices, addresses, routes
//! 3. [`bridge`]: the device and the subnet that all containers share
//! 4. [`nat`]: the connections to the outside, and published ports
//! 5. [`plugs`], [`resolver`]: further bridges, for step 12
//!
//! Safety after a kill, and unusual hosts:
//!
//! - [`ledger`]: everything is recorded before it is made
//! - [`names`]: the host's resolver, if a container cannot reach it
//! - `kernel/ports_for_all`, `nat/firewall`: other users, other packet filters
//!
//! [`cli`] has the options and the tools.

mod bridge;
mod cli;
mod connection;
mod kernel;
mod ledger;
mod moved;
mod names;
mod nat;
pub mod plugs;
pub mod resolver;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Error, Result};
use kit::ProcessIdentity;
use kit::errno::is;
use kit::process_identity::looks_for_the_dead;
use kit::say;
use mount::RootTree;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, gethostname};
use process::Isolation;
use uts::Namespace;

use crate::bridge::ipam;
pub use crate::cli::args::NetSettings;
pub use crate::cli::mode::NetworkMode;
pub use crate::cli::tool;
use crate::connection::Connection;
use crate::kernel::{link, ports_for_all};
use crate::ledger::state::{Endpoint, Locked};
use crate::ledger::{directory, reclaim};
pub use crate::moved::{MovedDevice, MovedDevices};
use crate::names::files::{self, Files};
use crate::plugs::Plugs;
pub use bridge::user::{Joining, PREFIX, UserBridge};
pub use ledger::promised::{Promises, of_host};
pub use names::resolv::{HostEntry, RESOLVER, for_resolver, servers};
pub use nat::protocol::Protocol;
pub use nat::publish::Publish;

/// The prefix of the names of veth devices on the host.
pub const VETH: &str = "veth";

/// The name of the host end of a container's veth pair.
pub fn veth(id: &str) -> String {
    format!("{VETH}{id}")
}

/// The comment on a container's rules, which identifies them.
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
    /// Where the files are if not in the directory, without their names.
    kept: Option<PathBuf>,
    /// The state has been opened, and cleanup is due.
    begun: bool,
    /// In the child: its device has its addresses.
    configured: bool,
    connection: Option<Connection>,
    /// The connections to user-defined bridges.
    plugs: Option<Plugs>,
}

impl Net {
    /// The isolation that `args` describe. `prepare` checks them.
    ///
    /// Its id, after which devices, rules and files are named, is the
    /// launcher's PID: it is unique among running launchers, and shows to whom
    /// a device belongs.
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
            kept: None,
            begun: false,
            configured: false,
            connection: None,
            plugs: None,
        }
    }

    /// Sets the host name inside, for /etc/hostname and /etc/hosts. The default
    /// is the launcher's.
    #[must_use]
    pub fn hostname(mut self, name: OsString) -> Self {
        self.hostname = Some(name);
        self
    }

    /// Keeps the files beside this path, `PATH-hosts`, and not in memory, where
    /// the state is: root of the container may write as much as it likes.
    #[must_use]
    pub fn files_beside(mut self, path: PathBuf) -> Self {
        self.kept = Some(path);
        self
    }

    /// The container's resolv.conf, hosts and hostname on the host, each with
    /// its place inside, for step 04 to mount. A container on the host's root
    /// file system uses the host's files unless it is on the bridge.
    pub fn files(&self, tree: RootTree) -> Vec<(PathBuf, PathBuf)> {
        let connected = self.args.mode() == NetworkMode::Bridge || !self.args.joining.is_empty();
        if tree == RootTree::Hosts && !connected {
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
        self.args.check()?;
        self.namespace.prepare()?;
        let mut locked = Locked::open(&self.directory)?;
        self.begun = true;
        if self.args.mode() == NetworkMode::Bridge {
            let connection = Connection::prepare(&mut locked, &self.id, &self.args);
            self.connection = Some(connection.map_err(explained)?);
        } else {
            // This container takes no address and no port, so nothing that a dead
            // one has left can be in its way: looking can wait.
            if looks_for_the_dead(locked.state.containers.len())? {
                reclaim::sweep(&mut locked)?;
            }
            let member = Endpoint {
                owner: ProcessIdentity::current()?,
                address: None,
                ports: Vec::new(),
                plugs: BTreeMap::new(),
            };
            locked.state.containers.insert(self.id.clone(), member);
            locked.save()?;
        }
        if !self.args.joining.is_empty() {
            let (joining, publish) = (&self.args.joining, &self.args.publish);
            let plugs = Plugs::prepare(&mut locked, &self.id, joining, publish);
            self.plugs = Some(plugs.map_err(explained)?);
        }
        let hostname = match self.hostname.take() {
            Some(name) => name,
            None => gethostname().context("gethostname")?,
        };
        let plugged = self.plugs.as_ref().and_then(Plugs::address);
        let address = self.connection.as_ref().map(|c| c.address).or(plugged);
        let network = locked.state.network.as_ref().filter(|_| address.is_some());
        let gateway = network.map(|network| ipam::gateway(network.subnet));
        Files::of(&self.args, &hostname.to_string_lossy(), (address, gateway))?
            .write(&locked.files_of(&self.id), self.kept.as_deref())
    }

    // ANCHOR: on_host
    fn on_host(&mut self, child: Pid) -> Result<()> {
        if let Some(connection) = &mut self.connection {
            connection.plug_in(child)?;
        }
        match &mut self.plugs {
            Some(plugs) => plugs.plug_in(child),
            None => Ok(()),
        }
    }
    // ANCHOR_END: on_host

    /// The socket in the host's network namespace, until the container's
    /// network is configured.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let connection = self.connection.as_ref().filter(|_| !self.configured);
        if let Some(plugs) = self.plugs.as_ref().filter(|_| !self.configured) {
            let connection = connection.map(Connection::keeps);
            return connection.into_iter().chain([plugs.keeps()]).collect();
        }
        connection.map(Connection::keeps).into_iter().collect()
    }

    // ANCHOR: in_container
    fn in_container(&mut self) -> Result<()> {
        if self.namespaces().is_empty() {
            return Ok(());
        }
        // ANCHOR: exercise_set_lo_up
        say!("ip link set lo up");
        link::set_up(&mut link::route_client()?, "lo")?;
        // ANCHOR_END: exercise_set_lo_up
        ports_for_all::allow()?;
        if let Some(connection) = &mut self.connection {
            connection.configure()?;
        }
        if let Some(plugs) = &mut self.plugs {
            plugs.configure()?;
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
        // Other programs may have the ports only when the rules are gone.
        self.connection = None;
        self.plugs = None;
        Ok(())
    }
    // ANCHOR_END: cleanup
}

/// Adds the remedy to a refusal for lack of privilege.
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

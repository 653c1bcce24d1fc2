//! The options of the network, and the checks across them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::Ipv4Net;

use crate::bridge::ipam;
use crate::bridge::user::Joining;
use crate::cli::mode::NetworkMode;
use crate::names::resolv::HostEntry;
use crate::nat::publish::{self, Publish};
use serde::{Deserialize, Serialize};

/// The options of the network.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Network namespace (step 06)")]
pub struct NetSettings {
    /// Connect the container to a network: none (a loopback device only),
    /// bridge (needs root), host, or container:PID (that of a process)
    /// [default: bridge if an option below needs it, else none]
    #[arg(long, value_name = "MODE")]
    pub network: Option<NetworkMode>,

    /// Publish a container's port to the host. Repeatable
    #[arg(short, long, value_name = "[IP:]HOSTPORT:PORT[/udp]")]
    pub publish: Vec<Publish>,

    /// IPv4 address on the bridge [default: the lowest free one]
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,

    /// Subnet of the bridge. Only for the first container, which creates the
    /// bridge
    #[arg(long, value_name = "NETWORK/PREFIX")]
    pub subnet: Option<Ipv4Net>,

    /// Add an IPv6 address, to reach the host and containers with such an
    /// address
    #[arg(long)]
    pub ip6: bool,

    /// Set a DNS server [default: the host's]. Repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,

    /// Add a host to /etc/hosts; host-gateway stands for the address of this
    /// host. Repeatable
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<HostEntry>,

    /// User-defined bridges to join, besides what `network` says: a later step
    /// knows them by their names.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joining: Vec<Joining>,
}

impl NetSettings {
    /// The mode that `--network` gives, or else the default.
    ///
    /// The default is `none`, so that a learner's command changes nothing on
    /// the host and works without root. An option that needs the bridge, such
    /// as a published port or an address, makes it `bridge`.
    pub fn mode(&self) -> NetworkMode {
        match (self.network, self.needs_bridge()) {
            (Some(mode), _) => mode,
            (None, Some(_)) => NetworkMode::Bridge,
            (None, None) => NetworkMode::None,
        }
    }

    fn needs_bridge(&self) -> Option<&'static str> {
        [
            ("--publish", !self.publish.is_empty()),
            ("--ip", self.ip.is_some()),
            ("--subnet", self.subnet.is_some()),
            ("--ip6", self.ip6),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }

    /// Checks each option, and that the options are compatible.
    ///
    /// # Errors
    /// Names the option that is wrong or needs another one.
    pub fn check(&self) -> Result<()> {
        let mode = self.mode();
        let connected = mode == NetworkMode::Bridge || !self.joining.is_empty();
        if let Some(option) = self.needs_bridge().filter(|_| !connected) {
            bail!("{option} needs --network bridge, not {mode}");
        }
        if let Some(subnet) = self.subnet {
            ipam::check(subnet).context("--subnet")?;
        }
        publish::check(&self.publish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(publish: &[&str], network: Option<&str>) -> NetSettings {
        NetSettings {
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
            network: network.map(|text| text.parse().unwrap()),
            ..NetSettings::default()
        }
    }

    #[test]
    fn a_bridge_is_for_those_who_need_one() {
        assert_eq!(args(&[], None).mode(), NetworkMode::None);
        assert_eq!(args(&["80:80"], None).mode(), NetworkMode::Bridge);
        let error = args(&["80:80"], Some("host")).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "--publish needs --network bridge, not host"
        );
    }
}

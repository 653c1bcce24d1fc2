//! `step-06 network` and `step-06 restore`: print what Drydock has made on this
//! host's network, and remove what dead launchers have left.

use anyhow::Result;
use process::Exit;

use crate::bridge::BRIDGE;
use crate::kernel::address;
use crate::ledger::directory::directory;
use crate::ledger::reclaim;
use crate::ledger::state::Locked;
use crate::veth;

/// Prints the bridge and the containers, one line each.
pub fn show() -> Result<Exit> {
    let locked = Locked::open(&directory())?;
    match &locked.state.network {
        None => kit::outln!("no bridge: no container needs one")?,
        Some(network) => {
            let subnet6 = network.subnet6.map(|net| format!(" {net}"));
            let forwarding = match network.before.is_empty() {
                true => "was on before",
                false => "switched on",
            };
            kit::outln!(
                "{BRIDGE} {}{} forwarding {forwarding}",
                network.subnet,
                subnet6.unwrap_or_default()
            )?;
        }
    }
    for (name, bridge) in &locked.state.bridges {
        let internal = if bridge.internal { " internal" } else { "" };
        kit::outln!("{name} {}{internal}", bridge.subnet)?;
    }
    for (id, member) in &locked.state.containers {
        let mut line = format!("container {id}");
        for (name, plug) in &member.plugs {
            line += &format!(" {name} {} {}", plug.address, plug.host_end);
        }
        match member.address {
            Some(ip) => {
                let mac = address::mac(ip).map(|byte| format!("{byte:02x}")).join(":");
                line += &format!(" {ip} {mac} {}", veth(id));
            }
            None if !member.plugs.is_empty() => {}
            None => line += " not on the bridge",
        }
        for port in &member.ports {
            line += &format!(" {port}");
        }
        if !member.owner.is_alive() {
            line += " (its launcher is dead)";
        }
        kit::outln!("{line}")?;
    }
    // Reading must not leave a new directory behind.
    locked.close()?;
    Ok(Exit::Code(0))
}

/// Removes what dead launchers have left, and prints each item.
pub fn restore() -> Result<Exit> {
    for what in reclaim::restore(&directory())? {
        kit::outln!("removed {what}")?;
    }
    Ok(Exit::Code(0))
}

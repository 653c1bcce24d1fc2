//! Removal of a container's objects: at its end, or later, if its launcher was
//! killed. Every part is idempotent and tolerates missing objects.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;

use crate::bridge::{self, BRIDGE, user};
use crate::kernel::conntrack;
use crate::kernel::link;
use crate::ledger::state::{Locked, State};
use crate::ledger::unused::remove_unused;
use crate::names::files;
use crate::nat::table;
use crate::{comment, veth};
use kit::warn;

/// Removes a container's device, rules and files, and finally its entry. After
/// the last container on the bridge it also removes the network.
pub(crate) fn remove(locked: &mut Locked, id: &str) -> Result<()> {
    let Some(member) = locked.state.containers.get(id) else {
        return Ok(());
    };
    if member.is_connected() {
        let mut route = link::route_client()?;
        let mut netfilter = table::netfilter_client()?;
        let device = veth(id);
        let devices = member.plugs.values().map(|plug| &plug.host_end);
        for device in devices.chain([&device]) {
            say!("ip link del {device}");
            link::delete(&mut route, device)?;
        }
        let last = locked.state.connected().count() == 1;
        match locked.state.network.take_if(|_| last) {
            Some(network) => {
                for bridge in std::mem::take(&mut locked.state.bridges).keys() {
                    user::down(&mut route, bridge)?;
                }
                network.down(&mut route, &mut netfilter)?;
            }
            None if member.ports.is_empty() => {}
            None => table::delete_rules(&mut netfilter, &comment(id))?,
        }
        conntrack::forget(&mut netfilter, &member.ports)?;
    }
    files::remove(&locked.files_of(id))?;
    locked.state.containers.remove(id);
    remove_unused(locked)?;
    // An empty state is not kept: closing it removes the file.
    match locked.state == State::default() {
        true => Ok(()),
        false => locked.save(),
    }
}

/// Removes the containers whose launchers are dead, and returns their ids.
pub(crate) fn sweep(locked: &mut Locked) -> Result<Vec<String>> {
    let here = match &locked.state.network {
        Some(network) => network.is_here()?,
        None => true,
    };
    let mut dead = locked.dead();
    dead.retain(|id| here || !locked.state.containers[id].is_connected());
    for id in &dead {
        say!("the launcher of container {id} is dead: removing what it left");
        remove(locked, id).with_context(|| format!("what container {id} left behind"))?;
    }
    Ok(dead)
}

/// Removes everything that dead launchers have left on this host, even if the
/// state is lost or damaged, and returns a list of it. Running containers are
/// not affected.
pub(crate) fn restore(directory: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut locked = match Locked::open(directory) {
        Ok(locked) => locked,
        Err(error) => {
            let damaged = directory.join("state.json");
            fs::remove_file(&damaged).map_err(|_| error)?;
            removed.push(format!("{} (damaged)", damaged.display()));
            Locked::open(directory)?
        }
    };
    let dead = sweep(&mut locked)?;
    removed.extend(dead.iter().map(|id| format!("container {id}")));
    if locked.state.network.is_none() {
        if bridge::remove_lost(&mut link::route_client()?)? {
            removed.push(format!("bridge {BRIDGE}"));
            warn!("net: the former value of net.ipv4.ip_forward is lost: check it with sysctl");
        }
        let mut netfilter = table::netfilter_client()?;
        if table::exists(&mut netfilter)? {
            table::delete(&mut netfilter)?;
            removed.push(format!("table ip {}", table::TABLE));
        }
    }
    let lost = user::remove_lost(&mut link::route_client()?, &locked.state.bridges)?;
    removed.extend(lost.iter().map(|name| format!("bridge {name}")));
    if locked.state == State::default() {
        for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
            let path = entry.with_context(|| format!("read {directory:?}"))?.path();
            // Only directories named by a number hold a container's files.
            let ours = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
            if ours && path.is_dir() {
                files::remove(&path)?;
                removed.push(path.display().to_string());
            }
        }
    }
    locked.close()?;
    Ok(removed)
}

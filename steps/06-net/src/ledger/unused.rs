//! Removal of user-defined bridges that no container needs any more.

use anyhow::Result;

use crate::bridge::user;
use crate::kernel::link;
use crate::ledger::rules::published;
use crate::ledger::state::Locked;
use crate::nat::table;

/// Removes the user-defined bridges on which no container is, and the network if
/// there is none on any. The state is not written.
pub(crate) fn remove_unused(locked: &mut Locked) -> Result<()> {
    let state = &mut locked.state;
    let used = |name: &String| {
        let mut members = state.containers.values();
        members.any(|member| member.plugs.contains_key(name))
    };
    let unused: Vec<String> = state
        .bridges
        .keys()
        .filter(|name| !used(name))
        .cloned()
        .collect();
    if unused.is_empty() {
        return Ok(());
    }
    let mut route = link::route_client()?;
    for name in unused {
        user::down(&mut route, &name)?;
        state.bridges.remove(&name);
    }
    // Without the network there is no table either.
    let Some(network) = state.network.clone() else {
        return Ok(());
    };
    let mut netfilter = table::netfilter_client()?;
    if state.connected().next().is_none() {
        state.network = None;
        return network.down(&mut route, &mut netfilter);
    }
    network.install(&mut netfilter, &state.bridges, published(state))
}

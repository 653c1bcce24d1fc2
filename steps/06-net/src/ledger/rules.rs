//! The rules for the published ports of the containers in the state.

use std::net::Ipv4Addr;

use crate::comment;
use crate::ledger::state::State;
use crate::nat;
use crate::nat::publish::Publish;
use crate::nat::rule::Rule;

/// The rules for the published ports of all containers.
pub(crate) fn published(state: &State) -> Vec<Rule> {
    state
        .connected()
        .filter_map(|(id, member)| {
            let address = member.leads_to(&state.bridges)?;
            Some(of_container(id, address, &member.ports))
        })
        .flatten()
        .collect()
}

/// The rules for the published ports of one container.
pub(crate) fn of_container(id: &str, address: Ipv4Addr, ports: &[Publish]) -> Vec<Rule> {
    ports
        .iter()
        .flat_map(|port| nat::published(port, address, &comment(id)))
        .collect()
}

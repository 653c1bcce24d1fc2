//! The rules of user-defined bridges. A bridge is an island: the host and the
//! outside reach what is on it as they reach what is on the default bridge, and
//! other bridges do not.

use crate::bridge::user::UserBridge;
use crate::nat::protocol::LOOPBACK;
use crate::nat::rule::Rule;

// ANCHOR: rules
/// The rules of one bridge. They come before those of the default one, which
/// would accept a connection to a published port from an internal bridge.
pub(crate) fn rules(bridge: &UserBridge) -> Vec<Rule> {
    let name = &bridge.device;
    let forward = || Rule::new("forward");
    let postrouting = || Rule::new("postrouting");
    let mut rules = vec![
        // As on the default bridge: loopback addresses are for the host alone.
        Rule::new("raw").iifname(name).ip_saddr(LOOPBACK).drop(),
        Rule::new("raw").iifname(name).ip_daddr(LOOPBACK).drop(),
        // From the host's loopback to a published port.
        postrouting().ip_saddr(LOOPBACK).oifname(name).masquerade(),
    ];
    if bridge.internal {
        rules.extend([
            forward().iifname(name).oifname_not(name).drop(),
            forward().iifname_not(name).oifname(name).drop(),
        ]);
        return rules;
    }
    rules.extend([
        // Answers and published ports, and nothing else: not from the outside,
        // and not from another bridge.
        forward()
            .iifname_not(name)
            .oifname(name)
            .ct_state_established_related()
            .accept(),
        forward()
            .iifname_not(name)
            .oifname(name)
            .ct_status_dnat()
            .accept(),
        forward().iifname_not(name).oifname(name).drop(),
        postrouting()
            .ip_saddr(bridge.subnet)
            .oifname_not(name)
            .masquerade(),
        postrouting()
            .ip_saddr(bridge.subnet)
            .oifname(name)
            .ct_status_dnat()
            .masquerade(),
    ]);
    rules
}
// ANCHOR_END: rules

#[cfg(test)]
mod tests {
    use super::*;

    fn text(internal: bool) -> String {
        let bridge = UserBridge {
            device: "br-a".into(),
            subnet: "10.9.0.0/24".parse().unwrap(),
            gateway: "10.9.0.1".parse().unwrap(),
            range: None,
            internal,
        };
        rules(&bridge)
            .iter()
            .map(|rule| format!("{rule}\n"))
            .collect()
    }

    #[test]
    fn other_bridges_are_kept_out() {
        assert!(text(false).contains("forward iifname != \"br-a\" oifname \"br-a\" drop\n"));
        assert!(text(false).contains("ip saddr 10.9.0.0/24 oifname != \"br-a\" masquerade\n"));
    }

    #[test]
    fn nothing_passes_an_internal_one() {
        let text = text(true);
        assert!(text.contains("forward iifname \"br-a\" oifname != \"br-a\" drop\n"));
        assert!(!text.contains("accept"), "{text}");
    }
}

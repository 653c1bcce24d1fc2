//! Groups that systemd makes (`--systemd-cgroup`): a container is a scope, a unit
//! of processes that systemd has not started (systemd.scope(5)).
//!
//! systemd takes the tree of groups for its own. What it does not know, it may
//! move, limit or remove; so it is asked over D-Bus ([`bus`]) to make the group
//! and to leave what is below to the container (`Delegate`).

mod bus;
mod devices;
pub(crate) mod unit;

//! The kernel's side of the network: netlink(7) requests and sysctls.
//!
//! | module | what |
//! |---|---|
//! | [`netlink`], [`answer`] | a client: requests, and the kernel's answers |
//! | [`link`], [`address`], [`route`] | devices, their addresses, routes (rtnetlink(7)) |
//! | [`conntrack`] | the host's connection tracking |
//! | [`forwarding`], [`ports_for_all`] | sysctls of the host and of a container |
//! | [`within`] | work in another process's network namespace |

pub(crate) mod address;
mod answer;
pub(crate) mod conntrack;
pub(crate) mod forwarding;
pub(crate) mod link;
pub(crate) mod netlink;
pub(crate) mod ports_for_all;
pub(crate) mod route;
pub(crate) mod within;

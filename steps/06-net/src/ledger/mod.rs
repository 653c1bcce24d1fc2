//! The record of what was made on the host's network, by whom, and its removal.
//!
//! | module | what |
//! |---|---|
//! | [`state`] | the file that lists all of it |
//! | [`directory`], [`lock`] | the location of the file, and the lock on it |
//! | [`reclaim`] | the removal of a container's objects |
//! | [`reserve`] | reserved ports of the host |
//! | [`promised`] | subnets of networks that need not exist now |
//! | [`rules`], [`unused`] | what the rules of all containers are; bridges without any |

pub(crate) mod directory;
mod lock;
pub(crate) mod promised;
pub(crate) mod reclaim;
pub(crate) mod reserve;
pub(crate) mod rules;
pub(crate) mod state;
pub(crate) mod unused;

//! What was made on the host's network, by whom, and how it goes again.
//!
//! | module | what |
//! |---|---|
//! | [`state`] | the file that names all of it |
//! | [`directory`], [`lock`] | where that is, and the lock on it |
//! | [`reclaim`] | the removal of what a container had |
//! | [`reserve`] | ports of the host that are kept for a container |

pub(crate) mod directory;
mod lock;
pub(crate) mod reclaim;
pub(crate) mod reserve;
pub(crate) mod state;

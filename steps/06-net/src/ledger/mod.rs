//! What was made on the host's network, by whom, and how it goes again.
//!
//! | module | what |
//! |---|---|
//! | [`state`], [`lock`] | the file that names all of it, and the lock on its directory |
//! | [`reclaim`] | the removal of what a container had |
//! | [`reserve`] | ports of the host that are kept for a container |

mod lock;
pub(crate) mod reclaim;
pub(crate) mod reserve;
pub(crate) mod state;

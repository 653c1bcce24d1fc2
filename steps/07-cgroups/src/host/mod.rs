//! The host's hierarchies, and the caller's group in each.
//!
//! | module | what |
//! |---|---|
//! | [`hierarchy`](mod@hierarchy), [`layout`], [`membership`] | the hierarchies of v1 and v2, and the caller's group in each |
//! | [`systemd`] | the groups of systemd's tree that are ours to use |

pub(crate) mod hierarchy;
pub(crate) mod layout;
pub(crate) mod membership;
pub(crate) mod systemd;

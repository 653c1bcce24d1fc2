//! What this host has, and where the caller stands in it.
//!
//! | module | what |
//! |---|---|
//! | [`hierarchy`](mod@hierarchy), [`layout`], [`membership`] | the hierarchies of v1 and v2, and the caller's group in each |
//! | [`systemd`] | which groups of systemd's tree are ours to use |

pub(crate) mod hierarchy;
pub(crate) mod layout;
pub(crate) mod membership;
pub(crate) mod systemd;

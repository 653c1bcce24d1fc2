//! Networks as objects, with names.
//!
//! | module | what |
//! |---|---|
//! | [`store`] | networks as files |
//! | [`subnet`] | the addresses of a new network |
//! | [`attached`] | the networks of a container: in its record, at its start, and while it runs |
//! | [`resolver`] | a container's questions for names, answered by its monitor |
//! | `names`, `dns` | which names there are, and the messages about them |

pub mod attached;
mod dns;
mod names;
pub mod resolver;
pub mod store;
pub mod subnet;

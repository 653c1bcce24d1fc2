//! The launch: the parts of a container that the configuration asks for.

pub(crate) mod console;
mod copy_up;
pub(crate) mod group;
pub(crate) mod hooks;
pub(crate) mod identity;
pub(crate) mod namespaces;
pub(crate) mod progress;
pub(crate) mod rdt;
pub(crate) mod resources;
pub(crate) mod rootfs;
pub(crate) mod sources;
pub(crate) mod workdir;

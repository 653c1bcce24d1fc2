//! AUFS in user space, mounted: as root, on a machine with /dev/fuse. Elsewhere
//! each test says that it was left out.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod branches;
mod concurrent;
mod corners;
mod differential;
mod experiment;
mod failure;
mod mounted;
mod tree;

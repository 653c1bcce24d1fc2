//! Step 08: union file systems.
//!
//! A container's root is a stack of layers: read-only ones that many containers
//! share, and one on top that takes the container's changes. This crate has
//! five storage drivers that show the stack as one tree, behind one trait.
//!
//! Read these, in this order:
//!
//! 1. [`driver`]: the trait that a storage driver implements, and the view of a
//!    stack
//! 2. [`overlay2`]: the driver that everybody uses
//! 3. [`isolation`]: [`Union`], a container on layers
//! 4. [`tree`], [`archive`]: trees of files compared and copied; layers as tar
//!    archives with whiteouts
//! 5. [`trees`]: drivers that keep a whole tree for each layer
//! 6. [`aufs`], and the server of its file system in a crate of its own beside
//!    this one
//!
//! What makes it safe to kill, and usable on unusual hosts:
//!
//! - [`layers`]: notes and locks, clean-up after a dead launcher, removal
//! - [`mounts`]: mounts that end with their process
//! - `overlay2/mount_legacy`: overlay on kernels before 6.8
//! - [`detect`]: the drivers that work here, and the reasons why others do not
//!
//! [`cli`] has the commands that a learner runs.

pub mod archive;
mod aufs;
pub mod cli;
pub mod detect;
pub mod driver;
mod isolation;
mod kind;
pub mod layers;
pub mod mounts;
mod overlay2;
mod size_option;
pub mod tree;
mod trees;

pub use driver::{StorageDriver, View};
pub use isolation::{Harvest, Layers, Union, UnionSettings, remove_container, sweep};
pub use kind::Kind;
pub use layers::id::LayerId;
pub use size_option::SizeOption;

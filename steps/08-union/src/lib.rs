//! Step 08: union file systems.
//!
//! A container's root is a stack of layers: read-only ones that many containers
//! share, and one on top that takes the container's changes. This crate has
//! five ways to make one tree of the stack, behind one trait.
//!
//! | module | what |
//! |---|---|
//! | [`driver`] | the trait that the storage drivers implement |
//! | [`overlay2`], [`aufs`] | drivers that keep a layer's changes |
//! | [`vfs`], [`btrfs`], [`devicemapper`] | drivers that keep a whole tree a layer, over [`whole`] |
//! | [`detect`] | which of them work here, and why not the others |
//! | [`isolation`], [`image`] | a container on layers: [`Union`], and what is below its own |
//! | [`store`], [`lineage`], [`layer_id`] | the state directory, which layers exist, their names |
//! | [`tree`] | trees of files: walked, copied, compared, removed |
//! | [`archive`] | layers as tar archives with whiteouts |
//! | [`finding`] | which layer a file comes from |
//! | [`detached`], [`private`], [`loop_device`], [`program`] | mounts that leave nothing, block devices, programs |
//! | [`tool`] | the commands that a learner runs |

pub mod archive;
pub mod aufs;
pub mod btrfs;
pub mod detached;
pub mod detect;
pub mod devicemapper;
pub mod driver;
pub mod finding;
pub mod image;
pub mod isolation;
pub mod layer_id;
pub mod lineage;
pub mod loop_device;
pub mod overlay2;
pub mod private;
pub mod program;
pub mod store;
pub mod tool;
pub mod trash;
pub mod tree;
pub mod vfs;
pub mod whole;

pub use driver::{Kind, StorageDriver, View};
pub use isolation::{Union, UnionArgs};
pub use layer_id::LayerId;

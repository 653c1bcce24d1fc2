//! The bookkeeping of layers that all drivers share.
//!
//! | module | what |
//! |---|---|
//! | [`store`] | the state directory: where layers are kept, who may change them, which containers are alive |
//! | [`id`], [`lineage`] | the name of a layer, and its parents |
//! | [`image`] | the `-init` layer of a container, and a directory as an image |
//! | [`finding`] | which layer a file comes from |
//! | [`trash`] | removal that may be interrupted at any point |

pub mod finding;
pub mod id;
pub mod image;
pub mod lineage;
pub mod store;
pub mod trash;

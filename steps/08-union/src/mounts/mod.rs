//! Mounts that end with their process: detached ones, and those in a mount
//! namespace of the process.

pub mod detached;
pub mod private;

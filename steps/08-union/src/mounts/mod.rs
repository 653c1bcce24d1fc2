//! Mounts that leave nothing behind: attached nowhere, or in a mount namespace
//! that ends with its process.

pub mod detached;
pub mod private;

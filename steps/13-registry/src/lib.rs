//! Step 13: registries.
//!
//! An image is data that is named by its content: a manifest names a
//! configuration and layers by their digests, and its own digest names the whole.
//! A registry is a server of such names. HTTP itself is a library's; what is said
//! through it is here.
//!
//! Read these, in this order:
//!
//! 1. [`reference`](mod@reference), [`settings`]: what a name means, and where it
//!    leads
//! 2. [`manifest`]: the documents of a registry
//! 3. [`blobs`]: the store of what registries keep
//! 4. [`transfer`]: pull and push
//! 5. [`http::token`], [`credentials`]: who we are
//! 6. [`image`], [`cli`]: what images are good for besides, and the commands
//!
//! What makes it safe:
//!
//! - [`http`], [`transfer::fetch`]: a registry that lies, stalls or never ends
//! - [`blobs::partial`], [`blobs::garbage`]: kills, full disks, two pulls at once
//! - All threads of a transfer have ended when it returns. The launcher of a
//!   container clones afterwards, and has none.

pub mod blobs;
pub mod cli;
pub mod credentials;
pub mod http;
pub mod image;
pub mod manifest;
pub mod progress;
pub mod reference;
pub mod settings;
pub mod transfer;

//! Step 09: the full run. All steps together, on images.
//!
//! Read these, in this order:
//!
//! 1. [`list`](mod@list): the isolations of a container, each with the reason
//!    for its position
//! 2. [`cli::options`], [`cli::run`], [`spec`]: how options and image become
//!    the description of a container
//! 3. [`image`]: how images are loaded, stored and read
//! 4. [`command`]: the command, its environment and its restrictions
//! 5. [`terminal`], [`volume`]: its standard streams; directories that outlive
//!    it
//!
//! What makes it safe to kill, and fit for odd hosts:
//!
//! - [`container`]: the record of a container, and what a killed launcher
//!   leaves
//! - [`image::store`], [`image::remove`]: an image is complete or absent
//! - [`image::document`]: JSON as Go reads it

pub mod cli;
pub mod command;
pub mod container;
pub mod image;
pub mod list;
pub mod spec;
pub mod terminal;
pub mod volume;

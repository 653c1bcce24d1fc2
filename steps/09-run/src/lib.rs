//! Step 09: the full run. All of the steps at once, on images.
//!
//! Read these, in this order:
//!
//! 1. [`list`](mod@list): the isolations of a container, each with its reason
//! 2. [`cli::options`], [`cli::run`], [`spec`]: from options and image to what a
//!    container is
//! 3. [`image`]: where images come from, how they are kept, what they say
//! 4. [`command`]: the command, its surroundings, and what it may not do
//! 5. [`terminal`], [`volume`]: its streams; files that outlive it
//!
//! What makes it safe to kill, and fit for odd hosts:
//!
//! - [`container`]: the record of a container, and what a dead launcher has left
//! - [`image::store`], [`image::remove`]: an image is whole or not there
//! - [`image::document`]: documents as Go reads them

pub mod cli;
pub mod command;
pub mod container;
pub mod image;
pub mod list;
pub mod spec;
pub mod terminal;
pub mod volume;

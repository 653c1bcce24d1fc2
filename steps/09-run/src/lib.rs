//! Step 09: the full run. All of the steps at once, on images.
//!
//! | module | what |
//! |---|---|
//! | [`image`] | images: where they come from, how they are kept, what they say |
//! | [`options`], [`places`] | the options of `drydock run`, and of every command |
//! | [`plan`], `defaults` | from both to the parts of a container |
//! | [`environment`], [`workdir`], [`ulimit`] | the command and its surroundings |
//! | [`hardening`], [`filter`], [`devices`] | what it may not, and what it may if it is privileged |
//! | [`terminal`] | its streams, and a terminal of its own |
//! | [`mounts`], [`volume`] | files that outlive it |
//! | [`record`], [`names`] | what is written down about it |

mod defaults;
pub mod devices;
pub mod environment;
pub mod filter;
pub mod hardening;
pub mod image;
pub mod mounts;
pub mod names;
pub mod options;
pub mod places;
pub mod plan;
pub mod record;
pub mod terminal;
pub mod ulimit;
pub mod volume;
pub mod workdir;

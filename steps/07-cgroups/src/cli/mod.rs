//! The command line of step 07: the options, in Docker's spelling, and the
//! tools.

pub(crate) mod args;
pub mod tool;

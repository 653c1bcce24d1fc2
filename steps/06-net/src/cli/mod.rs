//! The command line of step 06.
//!
//! | module | what |
//! |---|---|
//! | [`args`], [`mode`] | the options; `none`, `host`, `bridge` or `container:PID` |
//! | [`tool`] | `step-06 network`, `step-06 restore` |

pub(crate) mod args;
pub(crate) mod mode;
pub mod tool;

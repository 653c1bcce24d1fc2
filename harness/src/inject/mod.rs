//! Faults: a call of a launcher fails, or the launcher is killed or stopped at
//! it.
//!
//! | module | what |
//! |---|---|
//! | [`follow`](mod@follow) | a program and all that it forks, call by call: ptrace(2) |
//! | [`call`] | the name of a call, and what it is about |
//! | [`window`] | for checks: a launcher is stopped at a call, and something is done meanwhile |

pub mod call;
pub mod follow;
pub mod window;

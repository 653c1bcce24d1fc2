//! A program and all that it forks, followed call by call: ptrace(2).
//!
//! | module | what |
//! |---|---|
//! | [`follow`](mod@follow), [`call`] | the tracer, and a call as it shows it |
//! | [`window`] | for checks: stops a launcher at a call while the check does something |

pub mod call;
pub mod follow;
pub mod window;

//! The command of a container: its environment, and what it does not inherit.
//!
//! | module | what |
//! |---|---|
//! | [`environment`], [`workdir`], [`ulimit`] | environment and command line, working directory, limits of setrlimit(2) |
//! | [`inherited`] | what the caller has and the command does not: keys, umask(2), securebits |
//! | [`devices`] | the host's devices, for a privileged container |

pub mod devices;
pub mod environment;
pub mod inherited;
pub mod ulimit;
pub mod workdir;

//! The command of a container: its environment and its restrictions.
//!
//! | module | what |
//! |---|---|
//! | [`environment`], [`workdir`], [`ulimit`] | environment and command line, working directory, limits of setrlimit(2) |
//! | [`hardening`], [`filter`] | capabilities, `no_new_privs`, the filter of system calls, keyrings |
//! | [`devices`] | the host's devices, for a privileged container |

pub mod devices;
pub mod environment;
pub mod filter;
pub mod hardening;
pub mod ulimit;
pub mod workdir;

//! The command of a container: what it finds around it, and what it may not do.
//!
//! | module | what |
//! |---|---|
//! | [`environment`], [`workdir`], [`ulimit`] | variables and words, the directory to start in, limits of setrlimit(2) |
//! | [`hardening`], [`filter`] | capabilities, `no_new_privs`, the filter of system calls, keyrings |
//! | [`devices`] | the host's devices, for a container that is privileged |

pub mod devices;
pub mod environment;
pub mod filter;
pub mod hardening;
pub mod ulimit;
pub mod workdir;

//! Step 10: harden.
pub mod seccomp;

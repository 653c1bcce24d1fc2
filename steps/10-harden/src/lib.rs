//! Step 10: what a container gives up, in which order, and why last.
//!
//! Namespaces decide what a process sees, control groups how much it gets. This
//! step decides what it may ask of the kernel at all: capabilities(7) and
//! seccomp(2).
//!
//! Read these, in this order:
//!
//! 1. [`isolation`]: [`Harden`], the isolation, and why the filter comes last
//! 2. [`capabilities`]: what a container may have
//! 3. [`seccomp`]: from a profile to a program in the kernel
//! 4. [`sysctl`], [`time`], `label`: parameters of namespaces; clocks; AppArmor and
//!    SELinux
//!
//! [`cli`] has the tools, [`options`] the options.

pub mod capabilities;
pub mod cli;
pub mod isolation;
pub mod label;
pub mod options;
pub mod seccomp;
pub mod sysctl;
pub mod time;

pub use isolation::{Door, Harden, Told};
pub use options::{HardenSettings, SecurityOpt};
pub use sysctl::Sysctls;
pub use time::TimeNamespace;

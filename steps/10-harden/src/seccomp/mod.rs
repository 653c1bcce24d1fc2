//! The filter over system calls: from a profile to a program in the kernel.

pub mod abi;
pub mod action;
pub mod bpf;
pub mod compile;
pub mod interpret;
pub mod profile;
pub mod resolve;

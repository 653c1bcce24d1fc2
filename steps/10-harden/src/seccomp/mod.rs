//! The filter over system calls: seccomp(2).
//!
//! Read these, in this order:
//!
//! 1. [`action`], [`abi`]: what a filter can say, and of whose calls
//! 2. [`profile`]: the rules as people write them; the default ones are in [`builtin`]
//! 3. [`resolve`]: what they mean for one machine and one container
//! 4. [`bpf`], [`compile`]: the program
//! 5. [`interpret`], [`disassemble`], [`explain`]: what a program says
//! 6. [`listener`]: another process that decides
//! 7. [`cache`], [`record`]

pub mod abi;
pub mod action;
pub mod bpf;
pub mod builtin;
pub mod cache;
pub mod compile;
pub mod disassemble;
pub mod explain;
pub mod interpret;
pub mod listener;
pub mod profile;
pub mod record;
pub mod resolve;

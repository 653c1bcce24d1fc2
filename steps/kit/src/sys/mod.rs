//! System calls for which no safe wrapper exists: the only `unsafe` of the
//! engine.
//!
//! Each function here is safe to call: it checks what the kernel or the
//! language would otherwise have to take on trust.
//!
//! | module | what |
//! |---|---|
//! | [`clone`], [`descriptors`], [`execute`], [`signals`], [`own`] | a process, its files, its program, its signals, its keyring |
//! | `clone_legacy`, `close_legacy` | the same on kernels before 5.3 and 5.9 |
//! | [`namespaces`], [`mounts`] | relations of namespaces; attributes of mounts |
//! | [`bpf`], [`seccomp`] | programs in the kernel |
//! | [`btrfs`], [`loop_device`] | ioctls of a file system and of a block device |
//! | [`quota`] | limits of a directory's size |
//! | [`sysvipc`] | System V IPC |
//! | [`memory`] | what the allocator keeps |
#![allow(unsafe_code)]

pub mod bpf;
pub mod btrfs;
mod clone;
mod clone_legacy;
mod close_legacy;
mod descriptors;
mod execute;
pub mod loop_device;
pub mod memory;
mod mounts;
mod namespaces;
mod own;
pub mod quota;
pub mod seccomp;
pub mod signals;
pub mod sysvipc;

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};

pub use clone::{clone3, exit, fork, names};
pub use descriptors::{
    close_all_but, close_except, close_others_on_exec, inherited, open_descriptors,
    open_descriptors_below,
};
pub use execute::{Arguments, act_last, die_with_parent};
pub use mounts::{change_mount, map_ids, map_ids_below, mount_setattr};
pub use namespaces::{namespace_kind, owning_user_namespace, parent_namespace};
pub use own::{
    MemoryPolicy, SchedAttr, adjust_tick, default_personality, leave_real_time,
    new_session_keyring, personality, set_io_priority, set_memory_policy, set_scheduler,
};

/// Converts a string for a system call.
///
/// # Errors
/// Names a string that contains a NUL byte.
pub fn c_string(s: &OsStr) -> Result<CString> {
    CString::new(s.as_bytes()).with_context(|| format!("{s:?} contains a NUL byte"))
}

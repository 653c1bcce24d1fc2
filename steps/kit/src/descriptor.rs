//! File descriptors, for people to read.

use std::os::fd::{AsRawFd, BorrowedFd};

/// The path of a descriptor.
pub fn name_of(fd: BorrowedFd<'_>) -> String {
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(path) => format!("{path:?}"),
        // No /proc to ask.
        Err(_) => format!("file descriptor {}", fd.as_raw_fd()),
    }
}

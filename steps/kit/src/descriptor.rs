//! The names of file descriptors in messages.

use std::os::fd::{AsRawFd, BorrowedFd};

/// The path of a descriptor, or its number where there is no /proc.
pub fn name_of(fd: BorrowedFd<'_>) -> String {
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(path) => format!("{path:?}"),
        // There is no /proc.
        Err(_) => format!("file descriptor {}", fd.as_raw_fd()),
    }
}

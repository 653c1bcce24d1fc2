//! Memory that the allocator keeps.

/// Gives memory back to the kernel that is not in use: malloc_trim(3). For a
/// process that has needed much once, and lives long. Does nothing with another
/// C library than glibc.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but the allocator's own lists, under their lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! System calls by their numbers, as a program would make them that no library
//! keeps from it.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// Makes a system call of this machine's own interface, or of x32 if the number
/// has bit 30.
///
/// # Safety of the caller
/// The arguments are numbers, not addresses: the kernel refuses what leads
/// nowhere (`EFAULT`). The caller must not ask for calls that end or change
/// this process's memory.
pub fn call(number: i64, arguments: [i64; 6]) -> nix::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the calls that a check asks for touch no memory of this process.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// Makes a 32-bit system call from this 64-bit program (`int $0x80`).
#[cfg(target_arch = "x86_64")]
pub fn call_32(number: i32, arguments: [i32; 3]) -> nix::Result<i64> {
    let [a, b, c] = arguments;
    let result: i32;
    // SAFETY: as above; the kernel preserves all registers but the result, and
    // those that it clears are named.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) i64::from(a) => _,
            inlateout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            in("esi") 0,
            in("edi") 0,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    match result {
        -4095..0 => Err(Errno::from_raw(-result)),
        result => Ok(i64::from(result)),
    }
}

/// `ENOSYS`: this machine has no such interface.
#[cfg(not(target_arch = "x86_64"))]
pub fn call_32(_: i32, _: [i32; 3]) -> nix::Result<i64> {
    Err(Errno::ENOSYS)
}

/// `struct if_nextdqblk`.
#[repr(C)]
#[derive(Default)]
struct NextQuota {
    hard_limit: u64,
    others: [u64; 7],
    valid: u32,
    id: u32,
}

/// The first project from `from` on that the quotas of a file system know, and
/// its limit in KiB; `None` after the last.
pub fn next_project(on: &File, from: u32) -> nix::Result<Option<(u32, u64)>> {
    const Q_GETNEXTQUOTA: u32 = 0x80_0009;
    const PROJECTS: u32 = 2;
    let mut next = NextQuota::default();
    // SAFETY: the kernel fills the structure, which has the layout of its header.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            on.as_raw_fd(),
            Q_GETNEXTQUOTA << 8 | PROJECTS,
            from,
            &raw mut next,
        )
    };
    match Errno::result(done) {
        Ok(_) => Ok(Some((next.id, next.hard_limit))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

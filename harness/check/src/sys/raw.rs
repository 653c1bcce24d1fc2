//! System calls by their numbers, as a program would make them that no library
//! keeps from it.
#![allow(unsafe_code)]

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

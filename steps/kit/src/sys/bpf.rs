//! bpf(2): loading a program and attaching it to a cgroup. nix and rustix do
//! not have these calls, and libraries that have them compile programs as well.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;

/// One instruction of eight bytes, in the layout of the kernel (linux/bpf.h,
/// `struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Destination register in the lower four bits, source in the upper.
    pub registers: u8,
    /// Offset of a jump or of a memory access.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// The first members of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The members of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program of type `prog_type` (`BPF_PROG_TYPE_*`) and returns its
/// descriptor, which is close-on-exec.
///
/// # Errors
/// `EPERM` without `CAP_BPF` (before Linux 5.8 `CAP_SYS_ADMIN`), also for root
/// of a user namespace other than the initial one; `EINVAL` or `EACCES` if the
/// verifier rejects the program, with the last line of its log.
pub fn prog_load(prog_type: u32, program: &[Instruction]) -> Result<OwnedFd> {
    let attempt = |log: &mut [u8]| {
        let attr = Load {
            prog_type,
            insn_cnt: program.len() as u32,
            insns: program.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log_buf: if log.is_empty() {
                0
            } else {
                log.as_mut_ptr() as u64
            },
            ..Load::default()
        };
        // SAFETY: the kernel reads `attr`, the program and the licence, and
        // writes at most `log_size` bytes into `log`; all of them outlive the call.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attr, size_of_val(&attr)) };
        Errno::result(fd)
    };
    // SAFETY: the kernel has just opened this descriptor for us alone.
    let owned = |fd: i64| unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let errno = match attempt(&mut []) {
        Ok(fd) => return Ok(owned(fd)),
        Err(errno @ (Errno::EINVAL | Errno::EACCES)) => errno,
        Err(errno) => return Err(errno).context("bpf(BPF_PROG_LOAD)"),
    };
    // Again, for the reason: the verifier writes its log only on request.
    let mut log = vec![0; 1 << 16];
    if let Ok(fd) = attempt(&mut log) {
        return Ok(owned(fd));
    }
    let log = String::from_utf8_lossy(&log);
    let verdict = log
        .trim_end_matches('\0')
        .lines()
        .rfind(|line| !line.starts_with("processed "))
        .unwrap_or("the verifier says nothing");
    Err(errno).with_context(|| format!("bpf(BPF_PROG_LOAD): {verdict}"))
}

/// Attaches a loaded program to the cgroup2 directory `cgroup`. The kernel
/// keeps it there until that cgroup is removed.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, in the cases of [`prog_load`], or if a
/// cgroup above forbids it; `EBADF` if `cgroup` is not on cgroup2.
pub fn prog_attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
    flags: u32,
) -> Result<()> {
    let attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type,
        attach_flags: flags,
    };
    // SAFETY: the kernel reads `attr` and nothing else.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attr, size_of_val(&attr)) };
    Errno::result(done).context("bpf(BPF_PROG_ATTACH)")?;
    Ok(())
}

//! Locks the machine before the first check runs.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Forbids all tracing (ptrace(2), "ptrace_scope"), and locks the kernel down:
/// nobody may read or change its memory, or boot another kernel
/// (kernel_lockdown(7)).
pub(super) fn lock_the_kernel() -> Result<()> {
    let scope = "/proc/sys/kernel/yama/ptrace_scope";
    fs::write(scope, "3").with_context(|| format!("write 3 to {scope}"))?;
    let dir = Path::new("/sys/kernel/security");
    mount(
        None::<&str>,
        dir,
        Some("securityfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount(securityfs, {dir:?})"))?;
    let file = dir.join("lockdown");
    let locked = match fs::write(&file, "confidentiality") {
        // The kernel was built without lockdown.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written.with_context(|| format!("write to {}", file.display())),
    };
    umount2(dir, MntFlags::empty()).with_context(|| format!("umount {dir:?}"))?;
    locked
}

/// A sealed copy of a program in memory, which nobody can change.
pub(super) fn sealed(program: &Path) -> Result<File> {
    let mut from = File::open(program).with_context(|| format!("open {}", program.display()))?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create(c"checks", flags).context("memfd_create")?);
    std::io::copy(&mut from, &mut memory).with_context(|| format!("copy {}", program.display()))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).context("fcntl(F_ADD_SEALS)")?;
    Ok(memory)
}

//! Restrictions of a container that is not privileged: capabilities(7),
//! `PR_SET_NO_NEW_PRIVS` of prctl(2), keyrings(7).
//!
//! To the kernel, root in a container without a user namespace is root of the
//! host. What keeps it from the host is the lack of capabilities. They are
//! dropped from all five sets, so that no execve(2), set-user-ID program or
//! file capability restores them.
//!
//! Step 04 masks paths and makes others read-only. Step 00 closes descriptors
//! at the child's birth, so that not even before execve(2) one leads to a
//! directory of the host. And a command, or its interpreter, cannot be the
//! engine's own program: no magic link leads to it.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use kit::{say, sys, warn};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use process::Isolation;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use crate::command::filter;
use crate::spec::Safety;

/// The capabilities that a container keeps: Docker's default (moby
/// `daemon/pkg/oci/caps/defaults.go`), enough for root among the container's
/// own files and processes.
pub const KEPT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// The isolation that drops what the command does not need, and resets what the
/// caller happens to have: umask(2), personality(2), securebits, oom_score_adj.
pub struct Hardening {
    safety: Safety,
}

impl Hardening {
    /// An isolation with these restrictions. A privileged container keeps its
    /// power; what the caller happens to have is reset for it too.
    pub fn new(safety: Safety) -> Self {
        Hardening { safety }
    }

    /// Replaces the session keyring, through which the caller's keys are
    /// reachable: fork(2) and execve(2) pass it on.
    fn leave_keys(&self) -> Result<()> {
        // ANCHOR: exercise_leave_keys
        if !self.safety.new_keyring {
            return Ok(());
        }
        sys::new_session_keyring()
            .context("the caller's keys would stay accessible: allow it by --no-new-keyring")
        // ANCHOR_END: exercise_leave_keys
    }

    /// Installs the seccomp filter: see [`filter`].
    fn filter(&self) -> Result<()> {
        // ANCHOR: exercise_filter
        if !self.safety.filter {
            return Ok(());
        }
        sys::seccomp::set_filter(&mut filter::program()).context(
            "without it the container could lift its limits: allow it by --security-opt \
             seccomp=unconfined",
        )
        // ANCHOR_END: exercise_filter
    }
}

impl Isolation for Hardening {
    fn name(&self) -> &'static str {
        "hardening"
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        reset_oom_score(child)
    }

    // ANCHOR: before_exec
    fn before_exec(&mut self) -> Result<()> {
        // ANCHOR: exercise_harden
        // Docker's umask. With the caller's, a service might make files that it
        // cannot share.
        umask(Mode::from_bits_truncate(0o022));
        sys::default_personality()?;
        default_securebits()?;
        self.leave_keys()?;
        clear_ambient_capability_set().context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
        let mut own = capabilities(None).context("capget")?.permitted;
        if !self.safety.privileged {
            drop_from_bounding_set()?;
            own &= KEPT;
        }
        let sets = CapabilitySets {
            effective: own,
            permitted: own,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).with_context(|| format!("capset({own:?})"))?;
        if self.safety.privileged {
            say!("privileged: capabilities and privileges stay as they are");
            return Ok(());
        }
        set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
        self.filter()
        // ANCHOR_END: exercise_harden
    }
    // ANCHOR_END: before_exec
}

/// Resets the securebits to the kernel's default (capabilities(7), “The
/// securebits flags”): with the caller's `SECBIT_NO_SETUID_FIXUP`, a command
/// that becomes an ordinary user would keep root's capabilities.
///
/// # Errors
/// `EPERM` if the caller has locked them.
fn default_securebits() -> Result<()> {
    let now = capabilities_secure_bits().context("prctl(PR_GET_SECUREBITS)")?;
    if now.is_empty() {
        return Ok(());
    }
    set_capabilities_secure_bits(CapabilitiesSecureBits::empty())
        .with_context(|| format!("prctl(PR_SET_SECUREBITS, 0): the caller has set {now:?}"))
}

/// Resets oom_score_adj to 0, as Docker does. A caller that the kernel spares
/// when memory runs out, such as a system service, would otherwise pass that
/// on.
fn reset_oom_score(child: Pid) -> Result<()> {
    let file = format!("/proc/{child}/oom_score_adj");
    let now = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let now = now.trim();
    if now == "0" {
        return Ok(());
    }
    match fs::write(&file, "0") {
        // Going below the value that was set for the caller needs
        // CAP_SYS_RESOURCE.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            match now.starts_with('-') {
                true => warn!("hardening: the kernel spares the container too: {file} is {now}"),
                // A container that is killed sooner spares the host.
                false => say!("the caller's oom_score_adj stays: {now}"),
            }
            Ok(())
        }
        written => written.with_context(|| format!("write 0 to {file}")),
    }
}

/// Drops all capabilities but [`KEPT`] from the bounding set, also those that
/// are newer than this program: up to the first number that the kernel does not
/// know (`EINVAL`).
fn drop_from_bounding_set() -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(errno)
                    .with_context(|| format!("prctl(PR_CAPBSET_DROP, {capability:?})"));
            }
        }
    }
    Ok(())
}

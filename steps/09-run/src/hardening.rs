//! What a container may not, unless it is privileged: capabilities(7),
//! `PR_SET_NO_NEW_PRIVS` of prctl(2), keyrings(7).
//!
//! Root in a container without a user namespace is root of the host as far as
//! the kernel can tell. What keeps it from the host is that most of root's
//! power is taken from it: capabilities are given up in all five sets, so that
//! no execve(2), set-user-ID program or file capability brings them back.
//!
//! Masked and read-only paths are those of step 04. Descriptors are closed by
//! step 00 at the child's birth: a container has no way to a directory of the
//! host through one, before execve(2) neither. Nor does a command, or its
//! interpreter, come to be the engine's own program: no magic link leads to one.

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};
use process::{Isolation, say, sys};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What Docker leaves to a container (moby `daemon/pkg/oci/caps/defaults.go`):
/// enough to be root among one's own files and processes.
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

/// Takes from the command what it does not need.
///
/// Stands before step 03 in the list: an init that has forked has given up the
/// same. And before the credentials: a user who is not root could take nothing
/// from the bounding set any more.
pub struct Hardening {
    privileged: bool,
}

impl Hardening {
    /// An isolation that does nothing for a `privileged` container but the
    /// file creation mask.
    pub fn new(privileged: bool) -> Self {
        Hardening { privileged }
    }
}

impl Isolation for Hardening {
    fn name(&self) -> &'static str {
        "hardening"
    }

    // ANCHOR: before_exec
    fn before_exec(&mut self) -> Result<()> {
        // ANCHOR: exercise_harden
        // Docker's: the caller's would make files that a service cannot share.
        umask(Mode::from_bits_truncate(0o022));
        if self.privileged {
            say!("privileged: capabilities and privileges stay as they are");
            return Ok(());
        }
        // The caller's keys are reachable through the session keyring, which
        // fork(2) and execve(2) hand on.
        sys::new_session_keyring()?;
        drop_from_bounding_set()?;
        clear_ambient_capability_set().context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
        let own = capabilities(None).context("capget")?.permitted & KEPT;
        let sets = CapabilitySets {
            effective: own,
            permitted: own,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).with_context(|| format!("capset({own:?})"))?;
        set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")
        // ANCHOR_END: exercise_harden
    }
    // ANCHOR_END: before_exec
}

/// Takes all others from the bounding set, those too that this program has no
/// name for: up to the first number that the kernel does not know (`EINVAL`).
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

//! What the caller happens to have, and a container does not inherit: umask(2),
//! personality(2), securebits, oom_score_adj, keyrings(7).
//!
//! Step 10 bounds the capabilities and filters system calls. Step 04 masks paths
//! and makes others read-only. Step 00 closes descriptors at the child's birth,
//! so that not even before execve(2) one leads to a directory of the host. And a
//! command, or its interpreter, cannot be the engine's own program: no magic
//! link leads to it.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use kit::{say, sys, warn};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use process::Isolation;
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

/// Whose session keyring the command has (keyrings(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKeyring {
    /// One of its own.
    New,
    /// The caller's: `--no-new-keyring`.
    Callers,
}

/// The isolation that resets what the command would inherit from the caller,
/// privileged or not.
pub struct Inherited {
    keyring: SessionKeyring,
}

impl Inherited {
    /// An isolation that gives the command this session keyring.
    pub fn new(keyring: SessionKeyring) -> Self {
        Inherited { keyring }
    }

    /// Replaces the session keyring, through which the caller's keys are
    /// reachable: fork(2) and execve(2) pass it on.
    fn leave_keys(&self) -> Result<()> {
        // ANCHOR: exercise_leave_keys
        if self.keyring == SessionKeyring::Callers {
            return Ok(());
        }
        sys::new_session_keyring()
            .context("the caller's keys would stay accessible: allow it by --no-new-keyring")
        // ANCHOR_END: exercise_leave_keys
    }
}

impl Isolation for Inherited {
    fn name(&self) -> &'static str {
        "inherited"
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        reset_oom_score(child)
    }

    // ANCHOR: before_exec
    fn before_exec(&mut self) -> Result<()> {
        self.leave_keys()?;
        // ANCHOR: exercise_reset
        // Docker's umask. With the caller's, a service might make files that it
        // cannot share.
        umask(Mode::from_bits_truncate(0o022));
        sys::default_personality()?;
        default_securebits()
        // ANCHOR_END: exercise_reset
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
                true => warn!("inherited: the kernel spares the container too: {file} is {now}"),
                // A container that is killed sooner spares the host.
                false => say!("the caller's oom_score_adj stays: {now}"),
            }
            Ok(())
        }
        written => written.with_context(|| format!("write 0 to {file}")),
    }
}

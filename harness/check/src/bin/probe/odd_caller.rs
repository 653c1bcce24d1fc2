//! `probe odd-caller`: a caller with an unusual value of everything that
//! fork(2) and execve(2) hand on.

use std::fs;

use anyhow::{Context, Result};
use check::sys;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, configure_capability_in_ambient_set,
    set_capabilities, set_capabilities_secure_bits,
};

/// The signals that it ignores, including one without a name.
const IGNORED: [i32; 7] = [
    Signal::SIGHUP as i32,
    Signal::SIGINT as i32,
    Signal::SIGQUIT as i32,
    Signal::SIGTERM as i32,
    Signal::SIGCHLD as i32,
    Signal::SIGUSR2 as i32,
    40,
];

/// Makes this process such a caller. `key` is the name of a key.
pub(crate) fn become_odd(key: &str) -> Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    for signal in IGNORED {
        sys::ignore(signal)?;
    }
    let blocked: SigSet = [Signal::SIGUSR1, Signal::SIGPIPE].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).context("sigprocmask")?;
    sys::fixed_addresses()?;
    if nix::unistd::geteuid().is_root() {
        sys::real_time()?;
        fs::write("/proc/self/oom_score_adj", "300").context("write oom_score_adj")?;
        let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP;
        set_capabilities_secure_bits(bits).context("prctl(PR_SET_SECUREBITS)")?;
        let mut sets = capabilities(None).context("capget")?;
        sets.inheritable |= CapabilitySet::NET_ADMIN;
        set_capabilities(None, sets).context("capset")?;
        configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)
            .context("prctl(PR_CAP_AMBIENT)")?;
        sys::session_key(key)?;
    }
    Ok(())
}

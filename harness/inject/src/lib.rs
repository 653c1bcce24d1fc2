//! Faults: a call of a launcher fails, or the launcher is killed or stopped at
//! it.
//!
//! | module | what |
//! |---|---|
//! | [`errors`], [`forms`], [`plan`] | the calls of the launches, and their faults |
//! | [`launch`](mod@launch), [`ground`], [`plain`] | one launch, and its setting |
//! | [`verdict`], [`exceptions`] | whether it ended as it should |
//! | [`run`], [`table`] | all launches, and their results |

pub mod errors;
pub mod exceptions;
pub mod forms;
pub mod ground;
pub mod launch;
pub mod plain;
pub mod plan;
pub mod run;
pub mod table;
pub mod verdict;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;

use check::own_host::own_namespaces;
use check::{rtnl, sys};

/// Gives this process its own mounts, network, IPC objects, host name and
/// session keyring, so that launches with faults cannot damage the host's; and
/// makes it the parent of all orphans. Needs root.
pub fn keep_to_itself() -> Result<()> {
    own_namespaces()?;
    set_child_subreaper(true).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    match sys::join_session_keyring() {
        Ok(()) | Err(nix::errno::Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}

/// Moves this process into a new network.
fn new_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
    rtnl::set_up("lo")
}

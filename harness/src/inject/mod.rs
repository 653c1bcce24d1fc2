//! Faults: a call of a launcher fails, or the launcher is killed or stopped at
//! it.
//!
//! | module | what |
//! |---|---|
//! | [`follow`](mod@follow), [`call`] | a program and all that it forks, call by call: ptrace(2) |
//! | [`window`] | for checks: a launcher is stopped at a call, and something is done meanwhile |
//! | [`errors`], [`forms`], [`plan`] | which calls of which launches fail, and how |
//! | [`launch`](mod@launch), [`ground`], [`plain`] | one launch, and the place where it happens |
//! | [`protections`], [`verdict`], [`exceptions`] | whether it ended as it should |
//! | [`run`], [`table`] | all of them, and what came of it |

pub mod call;
pub mod errors;
pub mod exceptions;
pub mod follow;
pub mod forms;
pub mod ground;
pub mod launch;
pub mod plain;
pub mod plan;
pub mod protections;
pub mod run;
pub mod table;
pub mod verdict;
pub mod window;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;

use crate::{rtnl, sys};

/// Gives this process what launches with faults must not spoil on the host:
/// mounts, a network, IPC objects, a host name, a session keyring of its own;
/// and makes it the parent of all orphans.
///
/// # Errors
/// Those of the calls. They need root.
pub fn keep_to_itself() -> Result<()> {
    let new = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(new).context("unshare(CLONE_NEWNS|CLONE_NEWIPC|CLONE_NEWUTS)")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("mount(/, MS_REC|MS_PRIVATE)")?;
    new_network()?;
    set_child_subreaper(true).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    match sys::join_session_keyring() {
        Ok(()) | Err(nix::errno::Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}

/// A new network for this process.
fn new_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
    rtnl::set_up("lo")
}

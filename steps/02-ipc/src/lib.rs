//! Step 02: the IPC namespace (ipc_namespaces(7)).
//!
//! It holds what processes find by an identifier or a name of its own instead
//! of a path: System V message queues, semaphore sets and shared memory
//! (sysvipc(7)), and POSIX message queues (mq_overview(7)). They live as long
//! as the kernel, or as their namespace, unless somebody removes them.
//!
//! Pipes and Unix sockets go by descriptors and paths (abstract sockets by the
//! network namespace), POSIX shared memory and semaphores are files in
//! `/dev/shm`: this namespace isolates none of them.
//!
//! | module | what |
//! |---|---|
//! | [`sysv`] | System V objects: make, list, remove |
//! | [`mqueue`] | POSIX message queues: make, list, remove |
//! | [`tool`] | `step-02 ipc`: the same from the command line |

pub mod mqueue;
pub mod sysv;
pub mod tool;

use std::os::fd::BorrowedFd;

use anyhow::Result;
use clap::Args;
use nix::sched::CloneFlags;
use process::Isolation;
use serde::{Deserialize, Serialize};
use uts::{Namespace, NamespaceMode};

/// The options of the IPC namespace.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "IPC namespace (step 02)")]
pub struct IpcSettings {
    /// Whose IPC objects: private (none to begin with), host, or container:PID (that process's)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub ipc: NamespaceMode,
}

/// An IPC namespace: queues, semaphores and shared memory that nobody outside
/// finds, and that end with the last process in it.
pub struct Ipc {
    namespace: Namespace,
}

impl Ipc {
    /// The isolation that `args` describe.
    pub fn new(args: IpcSettings) -> Self {
        Ipc {
            namespace: Namespace::new(CloneFlags::CLONE_NEWIPC, args.ipc),
        }
    }
}

// ANCHOR: isolation
impl Isolation for Ipc {
    fn name(&self) -> &'static str {
        "ipc"
    }

    fn namespaces(&self) -> CloneFlags {
        // ANCHOR: exercise_new_namespace
        self.namespace.namespaces()
        // ANCHOR_END: exercise_new_namespace
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        self.namespace.joins()
    }

    fn prepare(&mut self) -> Result<()> {
        // ANCHOR: exercise_prepare
        self.namespace.prepare()
        // ANCHOR_END: exercise_prepare
    }
}
// ANCHOR_END: isolation

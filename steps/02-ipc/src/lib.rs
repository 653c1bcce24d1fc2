//! Step 02: the IPC namespace (ipc_namespaces(7)).
//!
//! It holds the objects that processes find by an identifier or a name of its
//! own instead of a path: System V message queues, semaphore sets and shared
//! memory (sysvipc(7)), and POSIX message queues (mq_overview(7)). They exist
//! until they are removed, or until the namespace ends.
//!
//! This namespace does not isolate pipes and Unix sockets, which processes find
//! by descriptors and paths (abstract sockets belong to the network namespace),
//! or POSIX shared memory and semaphores, which are files in `/dev/shm`.
//!
//! Read these, in this order:
//!
//! 1. this file: [`Ipc`], the isolation
//! 2. [`sysv`]: System V objects: make, list, remove
//! 3. [`mqueue`]: POSIX message queues: make, list, remove
//! 4. [`tool`]: `step-02 ipc`, the same from the command line
//!
//! Nothing here needs to be cleaned up: the namespace ends with its last
//! process, and its objects with it.

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
    /// IPC namespace to use: private (a new, empty one), host, or container:PID
    /// (that of a process)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub ipc: NamespaceMode,
}

/// The isolation that makes or joins an IPC namespace. Its queues, semaphores
/// and shared memory are invisible outside, and end with the last process in
/// it.
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

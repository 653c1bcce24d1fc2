//! Step 03: the PID namespace (pid_namespaces(7)).
//!
//! Inside, PIDs begin at 1, and processes outside are invisible. Outside, every
//! process is visible, under another PID. The namespace lives as long as its
//! PID 1: when that ends, the kernel kills all others.
//!
//! PID 1 adopts every orphan of its namespace, and gets a signal from inside
//! only if it has a handler for it. Programs that were not written for this
//! role leave zombies and cannot be ended by SIGTERM; `--init` puts an [`init`]
//! in front of them.
//!
//! Read these, in this order:
//!
//! 1. this file: [`PidNamespace`], the isolation
//! 2. [`init`]: a minimal init: reaps orphans, forwards signals
//! 3. [`pids`], [`status`]: `step-03 pids`, a container's processes as the host
//!    sees them
//!
//! What makes it safe: the init is a program of its own, in a sealed copy, with
//! nothing of the launcher in its memory.

pub mod init;
pub mod pids;
pub mod status;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use nix::sched::CloneFlags;
use process::{Exit, Isolation};
use serde::{Deserialize, Serialize};
use uts::{Namespace, NamespaceMode};

/// The options of the PID namespace.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "PID namespace (step 03)")]
pub struct PidSettings {
    /// PID namespace to use: private (a new one, in which the command is PID
    /// 1), host, or container:PID (that of a process)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub pid: NamespaceMode,

    /// Run an init as PID 1 that forwards signals and reaps processes; the
    /// command is its child
    #[arg(long)]
    pub init: bool,
}

/// The isolation that makes or joins a PID namespace, with an init as PID 1 if
/// requested.
pub struct PidNamespace {
    namespace: Namespace,
    init: bool,
    /// The sealed program that PID 1 executes. `None` without `--init`, and
    /// before `prepare`.
    program: Option<OwnedFd>,
    seal: Option<Seal>,
}

/// What an init does last before it executes its program: [`Isolation::seal`]
/// of other isolations, which runs in the command's process only.
pub type Seal = Box<dyn FnOnce() -> Result<()>>;

impl PidNamespace {
    /// The isolation that `args` describe. They are checked in `prepare`.
    pub fn new(args: PidSettings) -> Self {
        PidNamespace {
            namespace: Namespace::new(CloneFlags::CLONE_NEWPID, args.pid),
            init: args.init,
            program: None,
            seal: None,
        }
    }

    /// Seals the init too, so that it is no way around what the command is kept
    /// from: root of the container may trace its init.
    #[must_use]
    pub fn sealed(mut self, seal: Option<Seal>) -> Self {
        self.seal = seal;
        self
    }
}

/// The `main` function of this step's program and of all later ones: runs the
/// container's [`init`] if the program was executed as such, else calls
/// [`process::main`].
pub fn main<A: Parser>(run: impl FnOnce(A) -> Result<Exit>) -> ExitCode {
    match init::asked_for() {
        Some(status) => status.into(),
        None => process::main(run),
    }
}

// ANCHOR: isolation
impl Isolation for PidNamespace {
    fn name(&self) -> &'static str {
        "pid"
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
        if self.init {
            // ANCHOR: exercise_refuse_without_a_namespace
            match self.namespace.mode() {
                NamespaceMode::Private => {}
                // An init has to be PID 1: orphans go to PID 1 of their
                // namespace, and only the end of PID 1 ends the other
                // processes.
                NamespaceMode::Host => bail!(
                    "--init with --pid host would not be PID 1: the host has an init; omit one \
                     of the two"
                ),
                NamespaceMode::Container(pid) => bail!(
                    "--init with --pid container:{pid} would not be PID 1: that container has \
                     one; omit one of the two"
                ),
            }
            // ANCHOR_END: exercise_refuse_without_a_namespace
            self.program = Some(init::seal().context("--init")?);
        }
        self.namespace.prepare()
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.program.iter().map(AsFd::as_fd).collect()
    }

    fn before_exec(&mut self) -> Result<()> {
        let seal = self.seal.take().unwrap_or_else(|| Box::new(|| Ok(())));
        self.program
            .take()
            .map_or(Ok(()), |program| init::fork(program, seal))
    }
}
// ANCHOR_END: isolation

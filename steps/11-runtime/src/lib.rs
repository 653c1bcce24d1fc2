//! Step 11: an OCI runtime, for podman, containerd and dockerd.
//!
//! An engine describes a container in a document and calls a runtime to make it
//! (runtime.md, config.md of the OCI runtime specification). The launch of step
//! 00 then spans two processes: `create` leaves a container that is set up and
//! waits, `start` lets it go, `delete` removes what is on disk.
//!
//! Read these, in this order:
//!
//! 1. `list`: the isolations of a creation, and of a further process
//! 2. `config`: the document, and what is refused before anything is made
//! 3. `launch`: the isolations: namespaces by path, groups that outlive their
//!    maker, the root, the terminal, hooks, the identity of the command
//! 4. `cli`: the commands
//! 5. `systemd`: groups that somebody else makes
//!
//! What makes it safe to kill, and closed to the container:
//!
//! - `state`: what is on disk, in which order
//! - [`process::gate`]: the wait between `create` and `start`
//! - `sealed`: a copy of the program that nobody can change

mod cli;
mod config;
mod launch;
mod list;
mod sealed;
mod state;
mod systemd;

pub use self::main::main;

/// The isolations of a further process in a running container, for an engine
/// that has containers of its own.
pub mod further {
    pub use crate::launch::group::{Beside, View};
    pub use crate::launch::workdir::Enter;
    pub use crate::list::join;
    pub use crate::sealed::ensure as ensure_sealed;
}

mod main {
    use std::process::ExitCode;

    /// The program `drydock-runtime`.
    pub fn main() -> ExitCode {
        crate::cli::main()
    }
}

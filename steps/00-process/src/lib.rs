//! Step 00: a process.
//!
//! A container is an ordinary process, launched through a list of
//! [`Isolation`]s. This crate is the launcher: it clones a child, blocks it on
//! a pipe while the host is prepared, releases it, reports its errors, forwards
//! signals, waits for its end, and cleans up the host. The launcher isolates
//! nothing: every later step adds one isolation to the list.
//!
//! Read these, in this order:
//!
//! 1. [`isolation`]: the trait that the steps implement
//! 2. [`container`]: the launcher, the order of all parts on the host
//! 3. `child`: the child's side, up to execve(2); [`exec`], the lookup of the
//!    command in `PATH`
//! 4. `birth`: clone3(2) into the namespaces of the isolations
//! 5. [`failure`], `exit`: errors, exit statuses and the report pipe
//! 6. `signals`, `terminal`: job control, as for a job of a shell
//!
//! What makes it safe to kill, and fit for odd hosts:
//!
//! - `launched`: the launcher's side of the pipes; the end of a child, however
//!   it comes
//! - [`inside`]: opening files of the container before the command runs
//! - [`handover`]: passing a descriptor to another process
//! - [`gate`]: a start by another process than the launcher
//! - `umask`: the file mode creation mask during set-up
//!
//! [`cli`] has the arguments and the exit status of every step's program.
//!
//! System calls without a safe wrapper, such as clone3(2), are in [`kit::sys`].

mod birth;
mod child;
pub mod cli;
pub mod container;
pub mod exec;
mod exit;
pub mod failure;
pub mod gate;
pub mod handover;
pub mod inside;
pub mod isolation;
mod launched;
mod signals;
mod terminal;
mod umask;

pub use cli::{CommandArgs, main};
pub use container::{Container, Created, Running};
pub use exec::Command;
pub use exit::Exit;
pub use failure::{Failure, LAUNCHER_FAILED, NOT_EXECUTABLE, NOT_FOUND};
pub use gate::Gate;
pub use isolation::Isolation;
pub use signals::Meanwhile;

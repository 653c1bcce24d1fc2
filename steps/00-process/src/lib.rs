//! Step 00: a process.
//!
//! A container is an ordinary process, launched through a list of
//! [`Isolation`]s. This crate is the launcher: it clones a child, holds it on a
//! pipe while the host is made ready, releases it, brings its errors back,
//! passes signals on, waits, and leaves the host as it was. It isolates
//! nothing: every later step adds one isolation to the list.
//!
//! | module | what |
//! |---|---|
//! | [`isolation`] | the trait that the steps implement |
//! | [`container`] | the launcher: the order of all parts on the host |
//! | `launched`, `child` | the two ends of the pipes: the launcher's and the child's |
//! | `birth` | clone3, in the namespaces that the isolations name |
//! | `exit` | how a container ended |
//! | [`exec`] | finding the command and becoming it |
//! | [`inside`] | files of the container, opened before the command runs |
//! | [`handover`] | a descriptor for another process |
//! | [`failure`] | errors, their exit statuses and their way through the pipe |
//! | `signals`, `terminal` | what makes a container a job like any other |
//! | `umask` | the mode of what is made for a container |
//! | [`cli`] | arguments and exit status of every step's program |
//!
//! What has no safe wrapper, clone3(2) above all, is in [`kit::sys`].

mod birth;
mod child;
pub mod cli;
pub mod container;
pub mod exec;
mod exit;
pub mod failure;
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
pub use isolation::Isolation;

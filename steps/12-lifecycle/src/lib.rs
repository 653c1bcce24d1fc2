//! Step 12: containers that stay.
//!
//! Until here a launcher waited in the caller's terminal. Here it may leave: it
//! becomes the *monitor* of its container, in a session of its own, with the
//! other ends of the command's streams in its hand. There is no daemon, and no
//! second way to launch: a monitor is the launcher of step 00 that has something
//! to do while it waits.
//!
//! Read these, in this order:
//!
//! 1. [`settings`]: what a container that stays is asked to do: restart, log
//!    ([`config`] has defaults, [`health`] how to check that it is well)
//! 2. [`monitor`]: how the launcher leaves its caller, and what it does while
//!    the container lives: the log, those who attach, stops and restarts
//! 3. [`protocol`]: what others say to a monitor through its socket
//! 4. [`log`]: lines of JSON in a file: written, rotated, read, followed
//! 5. [`exec`]: a further process in a container
//! 6. [`events`]: what has happened, a line each
//! 7. [`copy`]: files from and to a container
//! 8. [`cli`]: the commands
//!
//! What makes it safe to kill:
//!
//! - The container dies with its monitor (`PR_SET_PDEATHSIG`, step 00), and the
//!   next command sees by the launcher's identity in the record that it is gone.
//! - The log is only ever appended to, and read up to its last whole line.

pub mod cli;
pub mod client;
pub mod config;
pub mod copy;
pub mod events;
pub mod exec;
pub mod health;
pub mod inspect;
pub mod log;
pub mod monitor;
pub mod network;
pub mod protocol;
pub mod settings;
mod watch;

//! `step-02 ipc`: the functions of ipcmk(1), ipcs(1) and ipcrm(1), and POSIX
//! message queues, in one static program that also runs where util-linux is
//! missing.

use std::ffi::OsString;
use std::io::{Write, stdout};

use anyhow::{Context, Error, Result, anyhow};
use clap::{Subcommand, ValueEnum};
use kit::sys;
use kit::sys::sysvipc;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use process::Exit;

use crate::mqueue;
use crate::sysv::{self, Holds};

/// The permissions of new objects: only the owner may use them.
const MODE: u32 = 0o600;

/// What `step-02 ipc` can do.
#[derive(Subcommand, Clone, Debug)]
pub enum IpcTool {
    /// List the objects of the caller's IPC namespace
    Ls,
    /// Create an object, and print its identifier or name
    #[command(subcommand)]
    Make(New),
    /// Remove an object
    Rm {
        /// Type of the object
        kind: IpcKind,
        /// Identifier of the object; the name of an mqueue
        #[arg(value_name = "ID", allow_negative_numbers = true)]
        id: OsString,
    },
}

/// What can be made.
#[derive(Subcommand, Clone, Debug)]
pub enum New {
    /// A System V message queue
    Queue,
    /// A System V semaphore set
    Semaphore {
        /// Number of semaphores
        #[arg(default_value_t = 1)]
        count: u16,
    },
    /// A System V shared memory segment
    Memory {
        /// Size in bytes
        #[arg(default_value_t = 4096)]
        bytes: usize,
    },
    /// A POSIX message queue
    Mqueue {
        /// Name of the queue: a slash, then characters other than slashes
        name: OsString,
    },
}

/// The kinds of objects, as the command line names them.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpcKind {
    /// A System V message queue
    Queue,
    /// A System V semaphore set
    Semaphore,
    /// A System V shared memory segment
    Memory,
    /// A POSIX message queue
    Mqueue,
}

/// Runs the tool, and prints its output on standard output.
pub fn run(tool: IpcTool) -> Result<Exit> {
    // SIGPIPE ends this program quietly when a reader such as `head` closes the
    // pipe.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let output = match tool {
        IpcTool::Ls => list()?,
        IpcTool::Make(new) => make(new).map_err(explain)? + "\n",
        IpcTool::Rm { kind, id } => {
            remove(kind, id).map_err(explain_removal)?;
            String::new()
        }
    };
    stdout()
        .write_all(output.as_bytes())
        .context("write to standard output")?;
    Ok(Exit::Code(0))
}

fn make(new: New) -> Result<String> {
    // ANCHOR: exercise_make_and_remove_objects
    Ok(match new {
        New::Queue => sysvipc::msgget(MODE)?.to_string(),
        New::Semaphore { count } => sysvipc::semget(count, MODE)?.to_string(),
        New::Memory { bytes } => sysvipc::shmget(bytes, MODE)?.to_string(),
        New::Mqueue { name } => {
            mqueue::make(&name, MODE)?;
            name.display().to_string()
        }
    })
    // ANCHOR_END: exercise_make_and_remove_objects
}

fn remove(kind: IpcKind, id: OsString) -> Result<()> {
    // ANCHOR: exercise_make_and_remove_objects
    let kind = match kind {
        IpcKind::Queue => sysv::SysvKind::Queue,
        IpcKind::Semaphore => sysv::SysvKind::Semaphore,
        IpcKind::Memory => sysv::SysvKind::Memory,
        IpcKind::Mqueue => return mqueue::remove(&id),
    };
    let number = id
        .to_str()
        .and_then(|id| id.parse().ok())
        .with_context(|| format!("{id:?} is not an identifier: use a number from ipc ls"))?;
    kind.remove(number)
    // ANCHOR_END: exercise_make_and_remove_objects
}

/// Adds the remedy to an error.
fn explain(error: Error) -> Error {
    let remedy = match error.downcast_ref::<Errno>() {
        Some(Errno::EEXIST) => "the name is taken in this IPC namespace: see ipc ls",
        Some(Errno::EINVAL) => "the size is 0, or beyond sem or shmmax in /proc/sys/kernel",
        Some(Errno::ENOSPC | Errno::EMFILE) => {
            "a limit of this IPC namespace is reached: see msgmni, sem and shmmni in \
             /proc/sys/kernel, and /proc/sys/fs/mqueue"
        }
        _ => return error,
    };
    anyhow!("{error:#}; {remedy}")
}

fn explain_removal(error: Error) -> Error {
    let remedy = match error.downcast_ref::<Errno>() {
        Some(Errno::EINVAL | Errno::EIDRM | Errno::ENOENT) => {
            "there is no such object in this IPC namespace: see ipc ls"
        }
        Some(Errno::EPERM | Errno::EACCES) => "it is another user's",
        _ => return error,
    };
    anyhow!("{error:#}; {remedy}")
}

fn list() -> Result<String> {
    let mut table = line("kind", "id", "key", "uid", "mode", "holds");
    for kind in sysv::SysvKind::ALL {
        for object in kind.list()? {
            table += &line(
                kind.name(),
                &object.id.to_string(),
                &format!("{:#010x}", object.key),
                &object.uid.to_string(),
                &format!("{:04o}", object.mode),
                &holds(object.holds),
            );
        }
    }
    match mqueue::list() {
        Ok(queues) => {
            for queue in queues {
                table += &line(
                    "mqueue",
                    &queue.name.display().to_string(),
                    "-",
                    &queue.uid.to_string(),
                    &format!("{:04o}", queue.mode),
                    &queue
                        .bytes
                        .map_or("-".to_owned(), |bytes| format!("{bytes} bytes")),
                );
            }
        }
        // An incomplete list is useful if it says that it is incomplete.
        Err(error) => kit::errln!(
            "step-02: POSIX message queues are not listed: {error:#}; only root may mount their \
             file system"
        ),
    }
    Ok(table)
}

fn line(kind: &str, id: &str, key: &str, uid: &str, mode: &str, holds: &str) -> String {
    format!("{kind:<10} {id:<19} {key:<11} {uid:<7} {mode:<5} {holds}\n")
}

fn holds(holds: Holds) -> String {
    match holds {
        Holds::Messages { bytes, count } => format!("{bytes} bytes in {count} messages"),
        Holds::Semaphores(count) => format!("{count} semaphores"),
        Holds::Memory { bytes, attached } => format!("{bytes} bytes, attached {attached} times"),
    }
}

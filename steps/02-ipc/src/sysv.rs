//! System V IPC objects (sysvipc(7)), read from `/proc/sysvipc`
//! (proc_sysvipc(5)). It shows the IPC namespace of its reader, whoever mounted
//! that /proc.

use std::fs;
use std::str::FromStr;

use anyhow::{Context, Result};
use kit::sys::sysvipc;

/// The three kinds of System V IPC objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysvKind {
    /// A message queue (msgget(2)).
    Queue,
    /// A set of semaphores (semget(2)).
    Semaphore,
    /// A shared memory segment (shmget(2)).
    Memory,
}

impl SysvKind {
    /// All kinds, in the order of a listing.
    pub const ALL: [SysvKind; 3] = [SysvKind::Queue, SysvKind::Semaphore, SysvKind::Memory];

    /// The name on the command line and in a listing.
    pub fn name(self) -> &'static str {
        match self {
            SysvKind::Queue => "queue",
            SysvKind::Semaphore => "semaphore",
            SysvKind::Memory => "memory",
        }
    }

    fn listing(self) -> &'static str {
        match self {
            SysvKind::Queue => "/proc/sysvipc/msg",
            SysvKind::Semaphore => "/proc/sysvipc/sem",
            SysvKind::Memory => "/proc/sysvipc/shm",
        }
    }

    /// Removes the object of this kind with the identifier `id`.
    ///
    /// # Errors
    /// `EINVAL` if there is no such object, `EPERM` if it belongs to another
    /// user.
    pub fn remove(self, id: i32) -> Result<()> {
        match self {
            SysvKind::Queue => sysvipc::msgctl_rmid(id),
            SysvKind::Semaphore => sysvipc::semctl_rmid(id),
            SysvKind::Memory => sysvipc::shmctl_rmid(id),
        }
    }

    // ANCHOR: list
    /// Lists the objects of this kind in the caller's IPC namespace.
    pub fn list(self) -> Result<Vec<Object>> {
        let path = self.listing();
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        self.parse(&text).with_context(|| path.to_owned())
    }
    // ANCHOR_END: list

    fn parse(self, text: &str) -> Result<Vec<Object>> {
        // ANCHOR: exercise_read_the_tables
        let mut lines = text.lines();
        let header: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        lines
            .map(|line| self.object(&Row::new(&header, line)))
            .collect()
        // ANCHOR_END: exercise_read_the_tables
    }

    fn object(self, row: &Row) -> Result<Object> {
        let (id, holds) = match self {
            SysvKind::Queue => (
                row.number("msqid")?,
                Holds::Messages {
                    bytes: row.number("cbytes")?,
                    count: row.number("qnum")?,
                },
            ),
            SysvKind::Semaphore => (
                row.number("semid")?,
                Holds::Semaphores(row.number("nsems")?),
            ),
            SysvKind::Memory => (
                row.number("shmid")?,
                Holds::Memory {
                    bytes: row.number("size")?,
                    attached: row.number("nattch")?,
                },
            ),
        };
        Ok(Object {
            kind: self,
            id,
            key: row.number("key")?,
            uid: row.number("uid")?,
            mode: u32::from_str_radix(row.field("perms")?, 8).context("perms")? & 0o777,
            holds,
        })
    }
}

/// One System V object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The kind. Each kind has identifiers of its own.
    pub kind: SysvKind,
    /// The identifier, for calls such as msgsnd(2).
    pub id: i32,
    /// The key that it was made with: 0 for `IPC_PRIVATE`.
    pub key: i32,
    /// The user ID of the owner.
    pub uid: u32,
    /// The permissions: nine bits, as of a file.
    pub mode: u32,
    /// The content.
    pub holds: Holds,
}

/// The content of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The messages that have not been received yet.
    Messages {
        /// Their total size, in bytes.
        bytes: u64,
        /// Their number.
        count: u64,
    },
    /// The number of semaphores.
    Semaphores(u64),
    /// Shared memory.
    Memory {
        /// The requested size, in bytes.
        bytes: u64,
        /// The number of attachments (shmat(2)).
        attached: u64,
    },
}

/// A line of a table whose first line names the columns. Fields are looked up
/// by column, because kernels have added columns at the end and pad them
/// differently.
struct Row<'a> {
    header: &'a [&'a str],
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn new(header: &'a [&'a str], line: &'a str) -> Self {
        Row {
            header,
            fields: line.split_whitespace().collect(),
        }
    }

    fn field(&self, column: &str) -> Result<&'a str> {
        let at = self.header.iter().position(|name| *name == column);
        at.and_then(|at| self.fields.get(at).copied())
            .with_context(|| format!("no column {column}"))
    }

    fn number<N>(&self, column: &str) -> Result<N>
    where
        N: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        let field = self.field(column)?;
        field
            .parse()
            .with_context(|| format!("column {column}: {field:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_by_their_headers() {
        let shm = "\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
-559038737     131072  1600                  4096  4711  4711      2  1000  1000  1000  1000          0          0 1700000000                  4096                     0
";
        let objects = SysvKind::Memory.parse(shm).unwrap();
        assert_eq!(
            objects,
            [Object {
                kind: SysvKind::Memory,
                id: 131072,
                key: -559038737,
                uid: 1000,
                mode: 0o600,
                holds: Holds::Memory {
                    bytes: 4096,
                    attached: 2
                },
            }]
        );
    }

    #[test]
    fn a_table_of_another_form_is_an_error_that_names_the_column() {
        let error = SysvKind::Queue.parse("key msqid\n0 x\n").unwrap_err();
        assert!(format!("{error:#}").contains("msqid"), "{error:#}");
        assert!(SysvKind::Queue.parse("").unwrap().is_empty());
    }
}

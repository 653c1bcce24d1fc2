//! Records of containers: what is known about one, in a file of its own.
//!
//! ```text
//! STATE/ID.json        the record, replaced as a whole (rename(2))
//! STATE/names/NAME     a symbolic link: the id of the container with that name,
//!                      and the launcher that took it (symlink(2))
//! STATE/ID/            files of later steps, such as a log
//! ```
//!
//! `stop` kills the process that a record names, and `rm` removes the
//! container. So a record is trusted only if nobody but the caller and root can
//! have written it.
//!
//! Only the launcher writes the record of a running container. If it is killed,
//! the record names a process that no longer runs. So a record identifies its
//! launcher by PID and start time, and whoever reads it checks that this
//! process still runs.

pub mod keeper;
mod name;
pub mod observer;
pub mod store;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kit::ProcessIdentity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::Spec;

pub use store::Records;

/// The first 12 digits of an id, as docker(1) shows it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The container has a name and a description, and has never run.
    Created,
    /// The command runs, or is about to.
    Running,
    /// The command has ended, and the launcher is about to start it again.
    Restarting,
    /// The command has ended.
    Exited,
}

/// The record of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The description that it was started from.
    #[serde(flatten)]
    pub spec: Spec,
    /// The state that was last written: see [`Record::is_running`].
    pub status: Status,
    /// The PID of the first process, as the host sees it; 0 if there is none.
    pub pid: i32,
    /// The process that started the container and waits for it.
    pub launcher: ProcessIdentity,
    /// The time at which the record was made, RFC 3339; empty in a record of an
    /// older version.
    #[serde(default)]
    pub created_at: String,
    /// The time of the start, RFC 3339; empty before the first.
    pub started_at: String,
    /// The time of the end, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The exit status; none while the command runs, and if the launcher was
    /// killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// What later steps have noted, kept as it is.
    #[serde(flatten)]
    pub later: BTreeMap<String, Value>,
}

impl Record {
    /// The record of a container that this process is about to start.
    pub fn new(spec: Spec) -> Result<Self> {
        Ok(Record {
            spec,
            status: Status::Running,
            pid: 0,
            launcher: ProcessIdentity::current()?,
            created_at: kit::time::now(),
            started_at: String::new(),
            finished_at: None,
            exit_code: None,
            later: BTreeMap::new(),
        })
    }

    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        short(&self.spec.id)
    }

    /// Checks that an engine can have written this record into `path`.
    fn check(&self, path: &Path) -> Result<()> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        ensure!(
            self.spec.id.len() == 64 && self.spec.id.chars().all(digit),
            "its id is {:?}",
            self.spec.id
        );
        ensure!(
            path.file_stem().is_some_and(|stem| *stem == *self.spec.id),
            "it is about container {:?}",
            self.spec.id
        );
        kit::name::check(&self.spec.name)?;
        for volume in self.spec.volumes() {
            kit::name::check(volume.name).context("a volume")?;
        }
        ensure!(
            self.pid >= 0 && self.launcher.pid > 0,
            "its processes are {} and {}",
            self.pid,
            self.launcher.pid
        );
        Ok(())
    }

    /// Whether the container runs, or is about to run again. A record is true
    /// only as long as its launcher lives.
    pub fn is_running(&self) -> bool {
        self.claims_to_run() && self.launcher.is_alive()
    }

    /// Whether the container ran, or was about to run again, when the record was
    /// written.
    pub(crate) fn claims_to_run(&self) -> bool {
        matches!(self.status, Status::Running | Status::Restarting)
    }
}

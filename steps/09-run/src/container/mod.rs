//! Records of containers: what there is to know about one, in a file of its own.
//!
//! ```text
//! STATE/ID.json        the record, replaced as a whole (rename(2))
//! STATE/names/NAME     a symbolic link: the short id of who has the name, and the
//!                      launcher that took it (symlink(2))
//! ```
//!
//! `stop` kills what a record says, and `rm` removes it. So a record is believed
//! only where nobody but the caller and root can have put it.
//!
//! Only the launcher writes a record while the container lives. It may be
//! killed: then the record says that a process runs which is no more. So it
//! names the launcher by its PID and its start, and whoever reads it looks
//! whether that process is still there.

pub mod keeper;
mod name;
pub mod store;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use kit::ProcessIdentity;
use serde::{Deserialize, Serialize};

use crate::spec::Spec;

pub use store::Records;

/// The first 12 digits of an id, as docker(1) shows it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its command runs, or is about to.
    Running,
    /// Its command has ended.
    Exited,
}

/// What is known about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    #[serde(flatten)]
    pub spec: Spec,
    /// What it does.
    pub status: Status,
    /// The PID of its first process, as the host sees it; 0 when there is none.
    pub pid: i32,
    /// The process that started it and waits for it.
    pub launcher: ProcessIdentity,
    /// When it was started, as RFC 3339 has it.
    pub started_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// With which status; none while it runs, and where nobody was left to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

impl Record {
    /// That of a container which this process is about to start.
    ///
    /// # Errors
    /// Those of reading /proc/self/stat.
    pub fn new(spec: Spec) -> Result<Self> {
        Ok(Record {
            spec,
            status: Status::Running,
            pid: 0,
            launcher: ProcessIdentity::current()?,
            started_at: String::new(),
            finished_at: None,
            exit_code: None,
        })
    }

    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        short(&self.spec.id)
    }

    /// Whether all in it can be what an engine has written into `path`.
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

    /// Whether the container runs: also what a record says is true only as long
    /// as its writer lives.
    pub fn is_running(&self) -> bool {
        self.status == Status::Running && self.launcher.is_alive()
    }
}

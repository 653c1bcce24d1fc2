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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kit::ProcessIdentity;
use serde::{Deserialize, Serialize};

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

/// A volume that a container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedVolume {
    /// The volume's name.
    pub name: String,
    /// Its place in the container.
    pub target: PathBuf,
    /// Whether it goes with the container.
    pub anonymous: bool,
}

/// What is known about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits; the first 12 will do.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image's name, as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// What runs, and its arguments.
    pub command: Vec<String>,
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
    /// Whether it goes when its command ends.
    pub auto_remove: bool,
    /// The storage driver of its layers.
    pub driver: String,
    /// Its volumes.
    pub volumes: Vec<UsedVolume>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is asked to end.
    pub stop_signal: String,
    /// How many seconds it is given for that.
    pub stop_timeout: u64,
    /// The words by which it was started, after `drydock`.
    pub options: Vec<String>,
}

impl Record {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// Whether all in it can be what an engine has written into `path`.
    fn check(&self, path: &Path) -> Result<()> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        ensure!(
            self.id.len() == 64 && self.id.chars().all(digit),
            "its id is {:?}",
            self.id
        );
        ensure!(
            path.file_stem().is_some_and(|stem| *stem == *self.id),
            "it is about container {:?}",
            self.id
        );
        kit::name::check(&self.name)?;
        for volume in &self.volumes {
            kit::name::check(&volume.name).context("a volume")?;
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

//! What a container is: all that options, image and defaults have decided,
//! before anything is made. No more is needed to start it, and nothing in it is
//! known to this process only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use cgroups::CgroupSettings;
use ipc::IpcSettings;
use net::NetSettings;
use pid::PidSettings;
use serde::{Deserialize, Serialize};
use union::{Kind, LayerId};
use user::UserSettings;
use uts::UtsSettings;

use crate::command::ulimit::Ulimit;
use crate::volume::options::{Files, Source};

/// A container that can be started: [`list`](crate::list::list) makes one of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// 64 hexadecimal digits; the first 12 are enough to name the container.
    pub id: String,
    /// Its name; empty for one that is drawn at random when it is started.
    pub name: String,
    /// The image's name, as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The topmost of the image's layers.
    pub layer: LayerId,
    /// The storage driver of the layers.
    pub driver: Kind,
    /// What runs, and its arguments.
    #[serde(with = "kit::text")]
    pub command: Vec<OsString>,
    /// The environment of the command, as `NAME=VALUE`.
    #[serde(with = "kit::text")]
    pub env: Vec<OsString>,
    /// Where the command starts.
    #[serde(with = "kit::text")]
    pub workdir: PathBuf,
    /// Whether the command reads the caller's input.
    pub interactive: bool,
    /// Whether the command gets a terminal.
    pub tty: bool,
    /// The UTS namespace, step 01.
    pub uts: UtsSettings,
    /// The IPC namespace, step 02.
    pub ipc: IpcSettings,
    /// The PID namespace, step 03.
    pub pids: PidSettings,
    /// What is mounted: step 04 and volumes.
    pub files: Files,
    /// Users, step 05.
    pub user: UserSettings,
    /// The network, step 06.
    pub net: NetSettings,
    /// Control groups, step 07.
    pub cgroups: CgroupSettings,
    /// Limits of setrlimit(2).
    pub ulimits: Vec<Ulimit>,
    /// What the command may not do.
    pub safety: Safety,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is asked to end.
    pub stop_signal: String,
    /// How many seconds it is given for that.
    pub stop_timeout: u64,
    /// Whether it goes when its command ends.
    pub auto_remove: bool,
}

impl Spec {
    /// The volumes among what is mounted.
    pub fn volumes(&self) -> impl Iterator<Item = Volume<'_>> {
        self.files.mounted.iter().filter_map(|mounted| {
            let Source::Volume {
                name, anonymous, ..
            } = &mounted.source
            else {
                return None;
            };
            Some(Volume {
                name,
                anonymous: *anonymous,
            })
        })
    }
}

/// A volume that a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it goes with the container.
    pub anonymous: bool,
}

/// What a command is kept from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Safety {
    /// Gives up what keeps the container from the host.
    pub privileged: bool,
    /// Whether system calls are filtered.
    pub filter: bool,
    /// Whether the command gets a session keyring of its own.
    pub new_keyring: bool,
}

impl Default for Safety {
    fn default() -> Self {
        Safety {
            privileged: false,
            filter: true,
            new_keyring: true,
        }
    }
}

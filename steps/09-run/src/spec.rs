//! The description of a container: everything that options, image and defaults
//! decide, before anything is made. It is all that a start needs, and nothing
//! in it depends on this process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use cgroups::{Bytes, CgroupSettings};
use harden::HardenSettings;
use ipc::IpcSettings;
use net::NetSettings;
use pid::PidSettings;
use serde::{Deserialize, Serialize};
use union::{Kind, LayerId};
use user::UserSettings;
use uts::UtsSettings;

use crate::command::ulimit::Ulimit;
use crate::image::config::Healthcheck;
use crate::volume::options::{Files, MountSource};

/// The description of a container, from which [`list`](crate::list::list)
/// builds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The id: 64 random hexadecimal digits. `drydock ps` shows the first 12.
    pub id: String,
    /// The name; empty if one is to be drawn at random at the start.
    pub name: String,
    /// The image, as the user named it.
    pub image: String,
    /// The image's id: the digest of its configuration, or the id of its layer
    /// if the image is a directory.
    pub image_id: String,
    /// The topmost layer of the image.
    pub layer: LayerId,
    /// The storage driver that keeps the layers.
    pub driver: Kind,
    /// The most bytes that the container's layer may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_size: Option<Bytes>,
    /// The program and its arguments.
    #[serde(with = "kit::text")]
    pub command: Vec<OsString>,
    /// How many of these words are the entrypoint.
    #[serde(default)]
    pub entrypoint: usize,
    /// The environment, `NAME=VALUE` each.
    #[serde(with = "kit::text")]
    pub env: Vec<OsString>,
    /// The working directory, made if it is missing.
    #[serde(with = "kit::text")]
    pub workdir: PathBuf,
    /// Whether the command reads the caller's input (`--interactive`).
    pub interactive: bool,
    /// Whether the command gets a pseudo-terminal (`--tty`).
    pub tty: bool,
    /// The UTS namespace: step 01.
    pub uts: UtsSettings,
    /// The IPC namespace: step 02.
    pub ipc: IpcSettings,
    /// The PID namespace: step 03.
    pub pids: PidSettings,
    /// The mounts: step 04, and volumes.
    pub files: Files,
    /// The user namespace and the command's credentials: step 05.
    pub user: UserSettings,
    /// The network: step 06.
    pub net: NetSettings,
    /// Control groups: step 07.
    pub cgroups: CgroupSettings,
    /// Resource limits, set by setrlimit(2).
    pub ulimits: Vec<Ulimit>,
    /// What the command gives up: step 10.
    pub harden: HardenSettings,
    /// Whether the command gets a session keyring of its own (keyrings(7)).
    pub new_keyring: bool,
    /// Labels: the image's, overridden by the caller's.
    pub labels: BTreeMap<String, String>,
    /// The image's check of health, which step 12 carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The signal that `drydock stop` sends, by name: `SIGTERM`.
    pub stop_signal: String,
    /// Seconds from the stop signal to SIGKILL.
    pub stop_timeout: u64,
    /// Whether the container is removed when its command ends (`--rm`).
    pub auto_remove: bool,
}

impl Spec {
    /// The volumes among the mounts.
    pub fn volumes(&self) -> impl Iterator<Item = UsedVolume<'_>> {
        self.files.mounted.iter().filter_map(|mounted| {
            let MountSource::Volume {
                name, anonymous, ..
            } = &mounted.source
            else {
                return None;
            };
            Some(UsedVolume {
                name,
                anonymous: *anonymous,
            })
        })
    }
}

/// A volume of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedVolume<'a> {
    /// The volume's name.
    pub name: &'a str,
    /// Whether the volume is removed with the container.
    pub anonymous: bool,
}

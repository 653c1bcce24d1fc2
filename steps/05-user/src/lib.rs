//! Step 05: the user namespace (user_namespaces(7)).
//!
//! A process has numbers for its user and its groups. In a user namespace they
//! mean something else than outside: two tables, uid_map and gid_map, translate
//! them. UID 0 inside has every capability over the namespaces that this one
//! owns; outside it is the user that the table names. So an ordinary user may
//! create all the other namespaces.
//!
//! Read these, in this order:
//!
//! 1. [`isolation`]: the namespace, [`User`]
//! 2. [`map`], [`choice`]: the ranges of a map, the kernel's rules for them, and
//!    the choice of the maps from the options
//! 3. [`write_maps`]: writing the maps, while the child waits
//! 4. [`credentials`]: `--user`: [`Credentials`], last in the list
//! 5. [`caps`], [`attempts`]: what root inside may and may not do
//!
//! What makes it safe, and fit for odd hosts:
//!
//! - [`ids`], [`subid`], [`accounts`], [`caller`]: numbers and names, ranges of
//!   subordinate IDs, the caller and its rights
//! - [`diagnose`]: reasons why a user namespace is refused
//! - [`held`], [`inside`]: a user namespace without processes; work on files of
//!   mapped users, without a container

pub mod accounts;
pub mod attempts;
pub mod caller;
pub mod caps;
pub mod choice;
pub mod credentials;
pub mod diagnose;
pub mod held;
pub mod ids;
pub mod inside;
pub mod isolation;
pub mod map;
pub mod subid;
pub mod write_maps;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use uts::NamespaceMode;

use caller::Caller;
use choice::Mapping;

pub use credentials::{Credentials, UserSpec};
pub use isolation::User;
pub use map::IdMap;

/// The options of the user namespace.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "User namespace (step 05)")]
pub struct UserSettings {
    /// User namespace to use: private (a new one), host, or container:PID (that
    /// of a process) [default: host for root without a map, else private]
    #[arg(long, value_name = "MODE")]
    pub userns: Option<NamespaceMode>,

    /// Map COUNT UIDs, starting at INSIDE, to those starting at OUTSIDE.
    /// Without --gid-map, GIDs are mapped in the same way. Repeatable
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT")]
    pub uid_map: Vec<IdMap>,

    /// Map GIDs. Without --uid-map, UIDs are mapped in the same way. Repeatable
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT")]
    pub gid_map: Vec<IdMap>,

    /// Map only root inside, to the caller outside. The default
    #[arg(long, conflicts_with_all = ["uid_map", "gid_map", "map_auto", "map_none"])]
    pub map_root: bool,

    /// Map root inside to the caller, and IDs from 1 to the caller's ranges in
    /// /etc/subuid and /etc/subgid. If the caller is root, map IDs from 0 to
    /// these ranges
    #[arg(long, conflicts_with_all = ["uid_map", "gid_map", "map_none"])]
    pub map_auto: bool,

    /// Map no IDs. For experiments only: every ID inside is 65534, and no file
    /// can be created
    #[arg(long, conflicts_with_all = ["uid_map", "gid_map"])]
    pub map_none: bool,

    /// User name or UID, and group name or GID, to run the command as. Names
    /// are looked up in the container's /etc/passwd and /etc/group
    #[arg(short, long, value_name = "UID[:GID]", allow_hyphen_values = true)]
    pub user: Option<UserSpec>,

    /// Additional group of the command: a GID, or a name in the container's
    /// /etc/group. Repeatable
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
}

impl UserSettings {
    /// The maps, if root of the host asks for a namespace whose users have
    /// other IDs outside; otherwise none. Root's files must be ID-mapped for
    /// these users to own them.
    pub fn other_users(&self) -> Result<Vec<Mapping>> {
        if !self.asks_for_map() {
            return Ok(Vec::new());
        }
        let caller = Caller::look()?;
        if !caller.is_privileged() {
            return Ok(Vec::new());
        }
        let mappings = choice::mappings(self, &caller)?;
        let are_others = mappings
            .iter()
            .flat_map(|mapping| &mapping.maps)
            .any(|map| map.inside != map.outside);
        Ok(if are_others { mappings } else { Vec::new() })
    }

    /// Whether any option asks for a map, and so for a new user namespace.
    fn asks_for_map(&self) -> bool {
        self.map_root
            || self.map_auto
            || self.map_none
            || !self.uid_map.is_empty()
            || !self.gid_map.is_empty()
    }
}

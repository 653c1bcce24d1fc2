//! The storage drivers, by their names.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The storage drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Overlay file system of the kernel: shares files
    Overlay2,
    /// AUFS of the kernel, or in user space: shares files
    Aufs,
    /// Subvolumes and snapshots of btrfs: shares blocks
    Btrfs,
    /// Thin-provisioned block devices and their snapshots: shares blocks of 64
    /// KiB
    Devicemapper,
    /// Full copies of the parent layer: shares nothing
    Vfs,
}

impl Kind {
    /// All drivers, the preferred one first.
    pub const ALL: [Kind; 5] = [
        Kind::Overlay2,
        Kind::Aufs,
        Kind::Btrfs,
        Kind::Devicemapper,
        Kind::Vfs,
    ];

    /// Whether a container's layer can have a size.
    pub fn has_sizes(self) -> bool {
        match self {
            Kind::Overlay2 | Kind::Btrfs | Kind::Devicemapper => true,
            Kind::Aufs | Kind::Vfs => false,
        }
    }

    /// Refuses a driver without sizes.
    ///
    /// # Errors
    /// Names those that have them.
    pub fn expect_sizes(self) -> Result<()> {
        if self.has_sizes() {
            return Ok(());
        }
        let others = Kind::ALL.iter().filter(|kind| kind.has_sizes());
        let others: Vec<&str> = others.map(|kind| kind.as_str()).collect();
        bail!(
            "--storage-opt size: the storage driver {self} cannot limit a layer; {} can",
            others.join(", ")
        )
    }

    /// The driver's name on the command line, and the name of its directory
    /// below the state directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Overlay2 => "overlay2",
            Kind::Aufs => "aufs",
            Kind::Btrfs => "btrfs",
            Kind::Devicemapper => "devicemapper",
            Kind::Vfs => "vfs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

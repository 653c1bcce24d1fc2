//! The options, in Docker's spelling.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use clap::Args;
use mount::RootTree;
use serde::{Deserialize, Serialize};
use uts::NamespaceMode;

use crate::devices::{DeviceArg, RuleArg};
use crate::limits::id_list::IdList;
use crate::limits::units::{Bytes, Cpus, Swap};

/// The options of the control groups.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Control groups (step 07)")]
pub struct CgroupSettings {
    /// The most memory that all processes of the container use together, page
    /// cache included: 128m, 1.5g. Beyond it the kernel kills
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<Bytes>,

    /// Memory and swap together; -1 for as much swap as there is [default:
    /// twice --memory]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory_swap: Option<Swap>,

    /// Memory that is left to the container as long as others have some to give
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<Bytes>,

    /// The most CPU time, in CPUs: 0.5 is half of one, 2 are two
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<Cpus>,

    /// The most CPU time in each --cpu-period, in microseconds; the same as
    /// --cpus, in the kernel's words
    #[arg(
        long,
        value_name = "MICROSECONDS",
        allow_negative_numbers = true,
        conflicts_with = "cpus"
    )]
    pub cpu_quota: Option<i64>,

    /// How often --cpu-quota is granted, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    pub cpu_period: Option<u64>,

    /// CPU time against that of other groups, when there is not enough: 2 to
    /// 262144, of which 1024 is the middle
    #[arg(long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,

    /// The CPUs to run on: 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<IdList>,

    /// The memory nodes to take memory from: 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<IdList>,

    /// The most processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,

    /// Disk time against that of other groups: 10 to 1000. Needs the BFQ
    /// scheduler, or io.cost on v2
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u64>,

    /// The most bytes a second to read from a disk: /dev/sda:1m. May be given
    /// several times, as the three below
    #[arg(long, value_name = "DISK:BYTES")]
    pub device_read_bps: Vec<DeviceRate<Bytes>>,

    /// The most bytes a second to write to a disk
    #[arg(long, value_name = "DISK:BYTES")]
    pub device_write_bps: Vec<DeviceRate<Bytes>>,

    /// The most reads a second from a disk: /dev/sda:100
    #[arg(long, value_name = "DISK:NUMBER")]
    pub device_read_iops: Vec<DeviceRate<u64>>,

    /// The most writes a second to a disk
    #[arg(long, value_name = "DISK:NUMBER")]
    pub device_write_iops: Vec<DeviceRate<u64>>,

    /// A device of the host to allow inside, and to show there with --rootfs;
    /// to read (r), write (w) and mknod (m) it. May be given several times
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<DeviceArg>,

    /// Devices to allow inside, as "c 10:* rwm": c, b or a for both kinds,
    /// major and minor number; "a *:* rwm" for no rules at all. May be given
    /// several times
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<RuleArg>,

    /// Whose cgroup namespace: private (its own group is the root), host, or
    /// container:PID (that process's)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub cgroupns: NamespaceMode,

    /// The group to make the container's in, as a path from the root of the
    /// hierarchy [default: drydock, where the caller may make it]
    #[arg(long, value_name = "PATH")]
    #[serde(with = "kit::text")]
    pub cgroup_parent: Option<PathBuf>,
}

impl CgroupSettings {
    /// The `--cgroup-parent` option as it was given, for errors.
    pub(crate) fn parent_option(&self) -> Option<String> {
        let parent = self.cgroup_parent.as_ref()?;
        Some(format!("--cgroup-parent {}", parent.display()))
    }

    /// The devices of `--device`, each as `SRC:DST` for a bind mount: the
    /// control groups allow a device but do not make its node. On the host's
    /// root file system the nodes that already exist are omitted.
    pub fn device_binds(&self, tree: RootTree) -> Vec<OsString> {
        self.device
            .iter()
            .filter(|device| tree == RootTree::Own || device.host != device.container)
            .map(DeviceArg::bind)
            .collect()
    }
}

/// A disk and a rate: `/dev/sda:1m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRate<T> {
    /// The device's node.
    pub device: PathBuf,
    /// Bytes, or reads or writes, a second.
    pub rate: T,
}

impl<T: FromStr> FromStr for DeviceRate<T>
where
    Error: From<T::Err>,
{
    type Err = Error;

    /// Reads `DEVICE:RATE`, divided at the last colon.
    fn from_str(text: &str) -> Result<Self> {
        let what = || format!("{text:?}: write /dev/sda:RATE");
        let (device, rate) = text
            .rsplit_once(':')
            .filter(|(device, _)| !device.is_empty())
            .with_context(what)?;
        Ok(DeviceRate {
            device: device.into(),
            rate: rate.parse().map_err(Error::from).with_context(what)?,
        })
    }
}

impl<T: fmt::Display> fmt::Display for DeviceRate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device.display(), self.rate)
    }
}

kit::serde_as_text!(DeviceRate<Bytes>, DeviceRate<u64>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_stands_behind_the_last_colon() {
        let rate: DeviceRate<Bytes> = "/dev/disk/by-path/pci:0:1m".parse().unwrap();
        assert_eq!(rate.device, PathBuf::from("/dev/disk/by-path/pci:0"));
        assert_eq!(rate.rate, Bytes(1 << 20));
        assert_eq!("/dev/sda:100".parse::<DeviceRate<u64>>().unwrap().rate, 100);
        for text in ["/dev/sda", "/dev/sda:", ":1m", "/dev/sda:1m"] {
            assert!(text.parse::<DeviceRate<u64>>().is_err(), "{text}");
        }
    }
}

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
    /// Memory limit, including the page cache: 128m, 1.5g. If it is exceeded,
    /// the kernel kills a process
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<Bytes>,

    /// Limit of memory plus swap; -1 for unlimited swap [default: twice
    /// --memory]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory_swap: Option<Swap>,

    /// Memory soft limit: not reclaimed while other groups have reclaimable
    /// memory
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<Bytes>,

    /// Number of CPUs: 0.5 is half the time of one CPU
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<Cpus>,

    /// Limit CPU CFS (Completely Fair Scheduler) quota: microseconds in each
    /// --cpu-period
    #[arg(
        long,
        value_name = "MICROSECONDS",
        allow_negative_numbers = true,
        conflicts_with = "cpus"
    )]
    pub cpu_quota: Option<i64>,

    /// Limit CPU CFS period, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    pub cpu_period: Option<u64>,

    /// CPU shares (relative weight), 2 to 262144; a group without a setting has
    /// 1024
    #[arg(long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,

    /// CPUs in which to allow execution: 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<IdList>,

    /// Memory nodes (MEMs) in which to allow allocation: 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<IdList>,

    /// Limit of processes and threads; -1 for unlimited
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,

    /// Block I/O relative weight, 10 to 1000. Needs the BFQ scheduler, or
    /// io.cost on v2
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u64>,

    /// Limit the read rate from a device, in bytes per second: /dev/sda:1m.
    /// Repeatable
    #[arg(long, value_name = "DISK:BYTES")]
    pub device_read_bps: Vec<DeviceRate<Bytes>>,

    /// Limit the write rate to a device, in bytes per second. Repeatable
    #[arg(long, value_name = "DISK:BYTES")]
    pub device_write_bps: Vec<DeviceRate<Bytes>>,

    /// Limit the read rate from a device, in operations per second:
    /// /dev/sda:100. Repeatable
    #[arg(long, value_name = "DISK:NUMBER")]
    pub device_read_iops: Vec<DeviceRate<u64>>,

    /// Limit the write rate to a device, in operations per second. Repeatable
    #[arg(long, value_name = "DISK:NUMBER")]
    pub device_write_iops: Vec<DeviceRate<u64>>,

    /// Add a host device to the container, with permission to read (r), write
    /// (w) and mknod (m). Repeatable
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<DeviceArg>,

    /// Add a rule to the allowed devices: type (c, b, or a for both), major and
    /// minor number, and permissions, as in "c 10:* rwm"; "a *:* rwm" allows
    /// all. Repeatable
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<RuleArg>,

    /// Cgroup namespace to use: private (a new one, with the container's group
    /// as its root), host, or container:PID (that of a process)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub cgroupns: NamespaceMode,

    /// Parent group of the container's group, as a path from the root of the
    /// hierarchy [default: drydock, in a group that the caller may write]
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

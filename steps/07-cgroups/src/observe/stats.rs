//! Statistics of a group: its use, and how often it reached its limits
//! (cgroup-v2.rst, cgroup-v1/{memory,cpuacct,blkio-controller}.rst,
//! accounting/psi.rst).
//!
//! cgroups-rs reads cpu, cpuacct, pids and swap, with the same calls for both
//! versions. Its reader of memory panics if the group ends meanwhile, and its
//! reader of I/O at a minor number above 32767, so these two are our own.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cgroups_rs::MaxValue;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuacct::CpuAcctController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;

use crate::group::file;
use crate::group::find::containers;
use crate::group::processes::processes;
use crate::group::{Group, Member};
use crate::host::hierarchy::Version;
use crate::limits::units::Bytes;
use crate::observe::freeze::{self, GroupState};
use crate::observe::oom;

/// The statistics of a group. A value is `None` if the controller, or the
/// kernel's accounting, is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    /// The group's name.
    pub name: String,
    /// The state of its freezer.
    pub state: Option<GroupState>,
    /// The number of processes in it and below.
    pub processes: u64,
    /// The number of processes and threads, and `pids.max`.
    pub pids: Option<Used<u64>>,
    /// How many times fork(2) failed because of `pids.max`.
    pub forks_refused: Option<u64>,
    /// The CPU time that it has used.
    pub cpu: Option<Duration>,
    /// The periods in which the quota was used up.
    pub throttled: Option<Throttled>,
    /// Memory use, page cache included.
    pub memory: Option<Used<Bytes>>,
    /// The highest memory use so far.
    pub memory_peak: Option<Bytes>,
    /// Swap use.
    pub swap: Option<Used<Bytes>>,
    /// The number of processes that the OOM killer has ended.
    pub oom_kills: Option<u64>,
    /// Bytes read from and written to disks.
    pub io: Option<(Bytes, Bytes)>,
    /// Pressure on cpu, memory and io: the share of the last ten seconds, in
    /// percent, in which at least one process waited for it.
    pub pressure: Vec<(&'static str, f64)>,
}

/// A use and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used<T> {
    /// The present use.
    pub now: T,
    /// The limit; `None` without one.
    pub limit: Option<T>,
}

/// Throttling, from `cpu.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// The number of elapsed periods: `nr_periods`.
    pub periods: u64,
    /// The number of periods in which the quota was used up: `nr_throttled`.
    pub throttled: u64,
    /// How long the group had to wait: `throttled_usec` of v2, `throttled_time`
    /// (in nanoseconds) of v1.
    pub time: Duration,
}

/// Reads all statistics of a group. Those of a group that ends meanwhile are
/// empty.
pub(crate) fn of(group: &Group) -> Result<Stats> {
    let mut stats = Stats {
        name: group.name.clone(),
        state: freeze::get(group)?,
        ..Stats::default()
    };
    if let Some(first) = group.members.first() {
        stats.processes = processes(&first.dir)?.len() as u64;
    }
    if let Some(member) = group.controller("pids") {
        pids(member, &mut stats);
    }
    cpu(group, &mut stats);
    if let Some(member) = group.controller("memory") {
        memory(member, &mut stats)?;
        stats.oom_kills = oom::of(group)?.map(|oom| oom.killed);
    }
    stats.io = match (group.controller("blkio"), group.controller("io")) {
        (Some(v1), _) => file::read_if_there(&v1.dir.join(BLKIO_BYTES))?.map(|t| io_v1(&t)),
        (_, Some(v2)) => file::read_if_there(&v2.dir.join("io.stat"))?.map(|t| io_v2(&t)),
        (None, None) => None,
    };
    if let Some(member) = group.v2() {
        stats.pressure = pressure(&member.dir)?;
    }
    Ok(stats)
}

fn pids(member: &Member, stats: &mut Stats) {
    let controller = PidController::new(member.dir.clone(), member.version == Version::V2);
    stats.pids = controller.get_pid_current().ok().map(|now| Used {
        now,
        limit: match controller.get_pid_max() {
            Ok(MaxValue::Value(most)) => Some(most as u64),
            _ => None,
        },
    });
    stats.forks_refused = controller.get_pid_events().ok();
}

fn cpu(group: &Group, stats: &mut Stats) {
    if let Some(member) = group.controller("cpuacct") {
        let usage = CpuAcctController::new(member.dir.clone()).cpuacct().usage;
        stats.cpu = Some(Duration::from_nanos(usage));
    }
    // v2 counts in every group, v1 only with the cpu controller.
    let member = group.controller("cpu").or_else(|| group.v2());
    let Some(member) = member else { return };
    let v2 = member.version == Version::V2;
    let stat = CpuController::new(member.dir.clone(), v2).cpu().stat;
    let value = |key| file::value_of(&stat, key);
    if let Some(usage) = value("usage_usec") {
        stats.cpu = Some(Duration::from_micros(usage));
    }
    if let (Some(periods), Some(throttled)) = (value("nr_periods"), value("nr_throttled")) {
        let time = match value("throttled_time") {
            Some(nanos) => Duration::from_nanos(nanos),
            None => Duration::from_micros(value("throttled_usec").unwrap_or(0)),
        };
        stats.throttled = Some(Throttled {
            periods,
            throttled,
            time,
        });
    }
}

fn memory(member: &Member, stats: &mut Stats) -> Result<()> {
    let v2 = member.version == Version::V2;
    let (now, limit, peak) = match member.version {
        Version::V1 => (
            "memory.usage_in_bytes",
            "memory.limit_in_bytes",
            "memory.max_usage_in_bytes",
        ),
        Version::V2 => ("memory.current", "memory.max", "memory.peak"),
    };
    // "max" means no limit, and so does, on v1, a number beyond any machine.
    let bytes = |name: &str| -> Result<Option<Bytes>> {
        let text = file::read_if_there(&member.dir.join(name))?;
        Ok(text.and_then(|text| text.parse().ok()).map(Bytes))
    };
    let limited = |bytes: &Bytes| bytes.0 < oom::UNLIMITED;
    stats.memory = match bytes(now)? {
        Some(now) => Some(Used {
            now,
            limit: bytes(limit)?.filter(limited),
        }),
        None => None,
    };
    stats.memory_peak = bytes(peak)?;
    let swap_file = match member.version {
        Version::V1 => "memory.memsw.usage_in_bytes",
        Version::V2 => "memory.swap.current",
    };
    if let (true, Some(memory)) = (member.dir.join(swap_file).exists(), stats.memory) {
        let swap = MemController::new(member.dir.clone(), v2).memswap();
        let limit = u64::try_from(swap.limit_in_bytes)
            .ok()
            .map(Bytes)
            .filter(limited);
        // v1 counts and limits memory and swap together.
        let alone = |both: u64, memory: Bytes| match member.version {
            Version::V1 => Bytes(both.saturating_sub(memory.0)),
            Version::V2 => Bytes(both),
        };
        stats.swap = Some(Used {
            now: alone(swap.usage_in_bytes, memory.now),
            limit: limit.map(|both| alone(both.0, memory.limit.unwrap_or(Bytes(0)))),
        });
    }
    Ok(())
}

const BLKIO_BYTES: &str = "blkio.throttle.io_service_bytes_recursive";

/// Sums the lines `8:0 Read 4096` and `8:0 Write 4096`, without the total.
fn io_v1(text: &str) -> (Bytes, Bytes) {
    let sum = |what: &str| {
        let fields = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        Bytes(
            fields
                .filter(|fields| fields.len() == 3 && fields[1] == what)
                .filter_map(|fields| fields[2].parse::<u64>().ok())
                .sum(),
        )
    };
    (sum("Read"), sum("Write"))
}

/// Sums the fields of lines `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn io_v2(text: &str) -> (Bytes, Bytes) {
    let sum = |key: &str| {
        let fields = text.split_whitespace();
        Bytes(
            fields
                .filter_map(|field| field.strip_prefix(key)?.strip_prefix('='))
                .filter_map(|value| value.parse::<u64>().ok())
                .sum(),
        )
    };
    (sum("rbytes"), sum("wbytes"))
}

fn pressure(dir: &Path) -> Result<Vec<(&'static str, f64)>> {
    let mut all = Vec::new();
    for what in ["cpu", "memory", "io"] {
        let text = file::read_if_there(&dir.join(format!("{what}.pressure")))?;
        let average = text.as_deref().and_then(some_avg10);
        all.extend(average.map(|average| (what, average)));
    }
    Ok(all)
}

/// The number in `some avg10=1.50 avg60=…`.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let field = line
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))?;
    field.parse().ok()
}

/// Reads the statistics of all containers.
pub(crate) fn all() -> Result<Vec<Stats>> {
    containers()?.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_both_versions() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:0 Total 4106\n259:70000 Read 1\nTotal 4107\n";
        assert_eq!(io_v1(v1), (Bytes(4097), Bytes(10)));
        let v2 =
            "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n259:70000 rbytes=1\n7:0 \n";
        assert_eq!(io_v2(v2), (Bytes(4097), Bytes(10)));
    }

    #[test]
    fn pressure_is_the_average_of_ten_seconds() {
        let text = "some avg10=1.50 avg60=0.50 avg300=0.10 total=123\nfull avg10=0.00 avg60=0.00";
        assert_eq!(some_avg10(text), Some(1.5));
        assert_eq!(some_avg10(""), None);
    }
}

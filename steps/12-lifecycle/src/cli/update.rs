//! `update`: other limits for a container that exists.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use cgroups::{Bytes, CgroupSettings, Cpus, IdList, Swap};
use clap::Args;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use kit::ProcessIdentity;
use kit::lock::{Lock, LockFile, Turn};
use kit::own::make;

use crate::cli::group;
use crate::events::tell;

/// Whether the kernel limits swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swaps {
    Limited,
    Free,
}

/// The limits that can be changed.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Block I/O relative weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u64>,
    /// Limit CPU CFS (Completely Fair Scheduler) period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_period: Option<u64>,
    /// Limit CPU CFS quota: microseconds in each period
    #[arg(
        long,
        value_name = "MICROSECONDS",
        allow_negative_numbers = true,
        conflicts_with = "cpus"
    )]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// CPUs in which to allow execution: 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<IdList>,
    /// Memory nodes (MEMs) in which to allow allocation: 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<IdList>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<Bytes>,
    /// Limit of memory plus swap; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<Swap>,
    /// Limit of processes and threads; -1 for unlimited
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
}

impl Limits {
    /// Whether no limit is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The limits that hold afterwards.
    ///
    /// # Errors
    /// Names values that are invalid together.
    // ANCHOR: after
    fn after(&self, before: &CgroupSettings, swap: Swaps) -> Result<CgroupSettings> {
        let mut after = before.clone();
        // A limit of memory has brought one of memory and swap together, which
        // stays.
        if let (Swaps::Limited, Some(memory), None | Some(Swap::Total(Bytes(0)))) = (
            swap,
            before.memory.filter(|most| most.0 > 0),
            before.memory_swap,
        ) {
            after.memory_swap = Some(Swap::Total(Bytes(memory.0.saturating_mul(2))));
        }
        if let (Some(memory), None, Some(Swap::Total(total))) =
            (self.memory, self.memory_swap, after.memory_swap)
        {
            ensure!(
                memory <= total,
                "Memory limit should be smaller than already set memoryswap limit, update the \
                 memoryswap at the same time"
            );
        }
        if self.cpus.is_some() {
            (after.cpu_quota, after.cpu_period) = (None, None);
        }
        if self.cpu_quota.is_some() || self.cpu_period.is_some() {
            after.cpus = None;
        }
        fn put<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        put(&mut after.memory, &self.memory.filter(|most| most.0 > 0));
        put(&mut after.memory_swap, &self.memory_swap);
        put(&mut after.memory_reservation, &self.memory_reservation);
        put(&mut after.cpus, &self.cpus);
        put(&mut after.cpu_quota, &self.cpu_quota);
        put(&mut after.cpu_period, &self.cpu_period);
        put(&mut after.cpu_shares, &self.cpu_shares);
        put(&mut after.cpuset_cpus, &self.cpuset_cpus);
        put(&mut after.cpuset_mems, &self.cpuset_mems);
        put(&mut after.pids_limit, &self.pids_limit);
        put(&mut after.blkio_weight, &self.blkio_weight);
        after.check()?;
        Ok(after)
    }
    // ANCHOR_END: after
}

/// Keeps the limits of a container from being changed: `directory` is what is kept
/// of it.
pub(crate) fn lock(directory: &Path) -> Result<Lock> {
    LockFile::open(directory.join("update"))?.wait(Turn::Judging)
}

/// Whether the first process of a container still is one. A zombie is in no group
/// with limits, and a process that is being killed will be a zombie.
fn lives(record: &Record) -> bool {
    let first = ProcessIdentity::of(record.pid);
    first.is_ok_and(|first| first.is_alive()) && record.launcher.is_parent_of(record.pid)
}

/// Changes the limits of a container: of its groups if it runs, and in its record
/// in any case. If either fails, both are as before.
// ANCHOR: change
pub(super) fn change(records: &Records, record: &Record, limits: &Limits) -> Result<()> {
    let directory = records.directory(&record.spec.id);
    make(&directory, 0o700)?;
    // One at a time: what was before is what is put back. And not while it is
    // started: that reads its limits, and nobody sees yet in which groups.
    let _alone = lock(&directory)?;
    let record = records.find(&record.spec.id)?;
    let before = record.spec.cgroups.clone();
    let swap = match cgroups::limits_swap()? {
        true => Swaps::Limited,
        false => Swaps::Free,
    };
    let after = limits.after(&before, swap)?;
    let group = match record.is_running() && record.pid != 0 {
        true => match group(&record) {
            Ok(group) => Some(group),
            // It has ended. Its next start finds what the record says.
            Err(_) if !lives(&record) => None,
            Err(error) => return Err(error),
        },
        false => None,
    };
    if let Some(group) = &group
        && let changed @ Err(_) = group.change(&before, &after)
        && lives(&record)
    {
        changed.with_context(|| format!("Cannot update container {}", record.spec.id))?;
    }
    let written = records.change(&record.spec.id, &mut |record| {
        record.spec.cgroups.clone_from(&after);
    });
    let Err(error) = written else { return Ok(()) };
    if let Some(group) = &group
        && let Err(more) = group.change(&after, &before)
    {
        bail!("{error:#}; and its groups are not as before: {more:#}");
    }
    Err(error)
}
// ANCHOR_END: change

/// Tells of it, by the record as it is now.
pub(super) fn told(places: &Places, records: &Records, record: &Record) {
    let now = records.read(&record.spec.id).ok().flatten();
    tell(places, now.as_ref().unwrap_or(record), "update", &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_swap_stays() {
        let before = CgroupSettings {
            memory: Some(Bytes(64 << 20)),
            ..CgroupSettings::default()
        };
        let memory = |mega: u64| Limits {
            memory: Some(Bytes(mega << 20)),
            ..Limits::default()
        };
        let after = memory(100).after(&before, Swaps::Limited).unwrap();
        assert_eq!(after.memory_swap, Some(Swap::Total(Bytes(128 << 20))));
        assert!(memory(200).after(&before, Swaps::Limited).is_err());
        let both = Limits {
            memory_swap: Some(Swap::Unlimited),
            ..memory(200)
        };
        assert_eq!(
            both.after(&before, Swaps::Limited).unwrap().memory,
            Some(Bytes(200 << 20))
        );
        assert!(memory(1).after(&before, Swaps::Limited).is_err());
    }
}

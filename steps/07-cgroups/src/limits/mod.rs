//! The limits: the files of v1 and v2 for each option, side by side
//! (cgroup-v2.rst, cgroup-v1/*.rst, sched-bwc.rst).
//!
//! | option | v1 | v2 |
//! |---|---|---|
//! | `--memory` | `memory.limit_in_bytes` | `memory.max` |
//! | `--memory-swap` | `memory.memsw.limit_in_bytes`: both together | `memory.swap.max`: swap alone |
//! | `--memory-reservation` | `memory.soft_limit_in_bytes` | `memory.low` |
//! | `--cpus`, `--cpu-quota`, `--cpu-period` | `cpu.cfs_quota_us` of `cpu.cfs_period_us` | `cpu.max` |
//! | `--cpu-shares` | `cpu.shares` | `cpu.weight` |
//! | `--cpuset-cpus`, `--cpuset-mems` | `cpuset.cpus`, `cpuset.mems` | the same |
//! | `--pids-limit` | `pids.max` | the same |
//! | `--blkio-weight` | `blkio.weight` or `blkio.bfq.weight` | `io.bfq.weight` or `io.weight` |
//! | `--device-read-bps` and the like | `blkio.throttle.read_bps_device`… | `io.max` |
//!
//! [`units`], [`id_list`] and [`weight`] read the values, [`apply`] writes
//! them, [`change`] writes others later. [`mod@io`] has the disk limits, [`protection`] what `memory.low` requires
//! of the groups above, [`cpus`] the affinity of the command.

pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod cpus;
pub(crate) mod id_list;
pub(crate) mod io;
pub(crate) mod limit;
pub(crate) mod protection;
pub(crate) mod units;
pub(crate) mod weight;

use anyhow::{Context, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

use crate::cli::args::CgroupSettings;
use crate::limits::io::io;
use crate::limits::limit::{Limit, value};
use crate::limits::units::{Bytes, Cpus, Swap};
use crate::limits::weight::cpu_weight;

impl CgroupSettings {
    /// Checks the limits, as a start does.
    ///
    /// # Errors
    /// Names the option whose value is invalid, alone or with another one.
    pub fn check(&self) -> Result<()> {
        limits(self).map(drop)
    }
}

/// Whether this kernel limits swap.
pub fn limits_swap() -> Result<bool> {
    change::limits_swap()
}

/// The least memory limit: with less the kernel cannot start a program. Docker
/// has the same bound.
const LEAST_MEMORY: Bytes = Bytes(6 << 20);

/// Translates the options into limits.
///
/// # Errors
/// Names the option whose value is invalid, alone or with another one.
pub(crate) fn limits(args: &CgroupSettings) -> Result<Vec<Limit>> {
    let mut limits = Vec::new();
    memory(args, &mut limits)?;
    cpu(args, &mut limits)?;
    // ANCHOR: exercise_limit_pids
    // With Docker -1 and 0 mean no limit.
    if let Some(most @ 1..) = args.pids_limit {
        let pids = vec![value("pids", "pids.max", most)];
        limits.push(Limit {
            asked: format!("--pids-limit {most}"),
            implied: false,
            v1: pids.clone(),
            v2: pids,
        });
    }
    // ANCHOR_END: exercise_limit_pids
    io(args, &mut limits)?;
    Ok(limits)
}

/// The value of an option. With Docker `zero` means that it is not set.
fn set<T: Copy + PartialEq>(asked: Option<T>, zero: T) -> Option<T> {
    asked.filter(|asked| *asked != zero)
}

fn memory(args: &CgroupSettings, limits: &mut Vec<Limit>) -> Result<()> {
    // ANCHOR: exercise_limit_memory
    let (most, kept) = (
        set(args.memory, Bytes(0)),
        set(args.memory_reservation, Bytes(0)),
    );
    let both = set(args.memory_swap, Swap::Total(Bytes(0)));
    for (option, bytes) in [("--memory", most), ("--memory-reservation", kept)] {
        if let Some(bytes) = bytes.filter(|bytes| *bytes < LEAST_MEMORY) {
            bail!("{option} {bytes}: the minimum in which a process can start is {LEAST_MEMORY}");
        }
    }
    if let Some(most) = most {
        limits.push(Limit {
            asked: format!("--memory {most}"),
            implied: false,
            v1: vec![value("memory", "memory.limit_in_bytes", most.0)],
            v2: vec![value("memory", "memory.max", most.0)],
        });
        limits.push(swap(most, both)?);
    } else if let Some(swap @ Swap::Total(_)) = both {
        bail!("--memory-swap {swap} is memory and swap together: it needs --memory as well");
    }
    if let Some(kept) = kept {
        if let Some(most) = most.filter(|most| kept > *most) {
            bail!("--memory-reservation {kept} is more than --memory {most}");
        }
        limits.push(Limit {
            asked: format!("--memory-reservation {kept}"),
            implied: false,
            v1: vec![value("memory", "memory.soft_limit_in_bytes", kept.0)],
            v2: vec![value("memory", "memory.low", kept.0)],
        });
    }
    Ok(())
    // ANCHOR_END: exercise_limit_memory
}

/// The swap limit that comes with every memory limit: without it the kernel
/// would swap out what exceeds the limit, without end. Docker's default is as
/// much swap as memory.
fn swap(memory: Bytes, asked: Option<Swap>) -> Result<Limit> {
    let total = match asked {
        None => Bytes(memory.0.saturating_mul(2)),
        Some(Swap::Total(total)) if total < memory => bail!(
            "--memory-swap {total} is memory and swap together: it cannot be less than --memory \
             {memory}"
        ),
        Some(Swap::Total(total)) => total,
        Some(Swap::Unlimited) => {
            return Ok(Limit {
                asked: "--memory-swap -1".to_owned(),
                implied: false,
                v1: vec![value("memory", "memory.memsw.limit_in_bytes", -1)],
                v2: vec![value("memory", "memory.swap.max", "max")],
            });
        }
    };
    Ok(Limit {
        asked: format!("--memory-swap {total}"),
        implied: asked.is_none(),
        v1: vec![value("memory", "memory.memsw.limit_in_bytes", total.0)],
        v2: vec![value("memory", "memory.swap.max", total.0 - memory.0)],
    })
}

fn cpu(args: &CgroupSettings, limits: &mut Vec<Limit>) -> Result<()> {
    // ANCHOR: exercise_limit_cpu
    if let Some(cpus) = set(args.cpus, Cpus::whole(0)) {
        let online = sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .context("sysconf(_SC_NPROCESSORS_ONLN)")?
            .unwrap_or(1);
        let all = Cpus::whole(online as u64);
        // The kernel's least quota is one millisecond.
        if cpus.quota() < 1000 || cpus > all {
            bail!("--cpus {cpus}: this machine has {all}: give 0.01 to {all}");
        }
        let (quota, period) = (cpus.quota(), Cpus::PERIOD);
        limits.push(Limit {
            asked: format!("--cpus {cpus}"),
            implied: false,
            v1: vec![
                value("cpu", "cpu.cfs_period_us", period),
                value("cpu", "cpu.cfs_quota_us", quota),
            ],
            v2: vec![value("cpu", "cpu.max", format!("{quota} {period}"))],
        });
    }
    quota(args, limits)?;
    if let Some(shares) = set(args.cpu_shares, 0) {
        if !(2..=262_144).contains(&shares) {
            bail!("--cpu-shares {shares}: give 2 to 262144; 1024 is the default of a group");
        }
        limits.push(Limit {
            asked: format!("--cpu-shares {shares}"),
            implied: false,
            v1: vec![value("cpu", "cpu.shares", shares)],
            v2: vec![value("cpu", "cpu.weight", cpu_weight(shares))],
        });
    }
    for (option, file, ids) in [
        ("--cpuset-cpus", "cpuset.cpus", &args.cpuset_cpus),
        ("--cpuset-mems", "cpuset.mems", &args.cpuset_mems),
    ] {
        let Some(ids) = ids.as_ref().filter(|ids| !ids.0.is_empty()) else {
            continue;
        };
        let values = vec![value("cpuset", file, ids)];
        limits.push(Limit {
            asked: format!("{option} {ids}"),
            implied: false,
            v1: values.clone(),
            v2: values,
        });
    }
    Ok(())
    // ANCHOR_END: exercise_limit_cpu
}

/// `--cpu-quota` and `--cpu-period`, with the kernel's bounds (sched-bwc.rst).
fn quota(args: &CgroupSettings, limits: &mut Vec<Limit>) -> Result<()> {
    let period = set(args.cpu_period, 0);
    // With Docker 0 and below mean no limit.
    let quota = args.cpu_quota.filter(|quota| *quota > 0);
    if let Some(period) = period.filter(|period| !(1000..=1_000_000).contains(period)) {
        bail!("--cpu-period {period}: give 1000 to 1000000 microseconds");
    }
    let Some(quota) = quota else { return Ok(()) };
    if quota < 1000 {
        bail!("--cpu-quota {quota}: the minimum is 1000 microseconds");
    }
    let period = period.unwrap_or(Cpus::PERIOD);
    limits.push(Limit {
        asked: format!("--cpu-quota {quota}"),
        implied: false,
        v1: vec![
            value("cpu", "cpu.cfs_period_us", period),
            value("cpu", "cpu.cfs_quota_us", quota),
        ],
        v2: vec![value("cpu", "cpu.max", format!("{quota} {period}"))],
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::limit::Value;

    fn args(f: impl FnOnce(&mut CgroupSettings)) -> CgroupSettings {
        let mut args = CgroupSettings::default();
        f(&mut args);
        args
    }

    fn files(values: &[Value]) -> Vec<(&str, &str)> {
        values
            .iter()
            .map(|v| (v.choices[0].0, v.choices[0].1.as_str()))
            .collect()
    }

    #[test]
    fn a_limit_on_memory_brings_one_on_swap() {
        let all = limits(&args(|a| a.memory = Some(Bytes(64 << 20)))).unwrap();
        assert_eq!(files(&all[0].v2), [("memory.max", "67108864")]);
        assert!(!all[0].implied && all[1].implied);
        assert_eq!(
            files(&all[1].v1),
            [("memory.memsw.limit_in_bytes", "134217728")]
        );
        assert_eq!(files(&all[1].v2), [("memory.swap.max", "67108864")]);
    }

    #[test]
    fn swap_equal_to_memory_is_none() {
        let both = args(|a| {
            a.memory = Some(Bytes(64 << 20));
            a.memory_swap = Some(Swap::Total(Bytes(64 << 20)));
        });
        let all = limits(&both).unwrap();
        assert_eq!(files(&all[1].v2), [("memory.swap.max", "0")]);
        assert_eq!(
            files(&all[1].v1),
            [("memory.memsw.limit_in_bytes", "67108864")]
        );
    }

    #[test]
    fn cpus_and_shares_side_by_side() {
        let all = limits(&args(|a| {
            a.cpus = Some("0.5".parse().unwrap());
            a.cpu_shares = Some(1024);
        }))
        .unwrap();
        assert_eq!(
            files(&all[0].v1),
            [
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000")
            ]
        );
        assert_eq!(files(&all[0].v2), [("cpu.max", "50000 100000")]);
        assert_eq!(files(&all[1].v2), [("cpu.weight", "100")]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (args, word) in [
            (args(|a| a.memory = Some(Bytes(1 << 20))), "--memory 1m"),
            (
                args(|a| a.memory_swap = Some(Swap::Total(Bytes(64 << 20)))),
                "--memory-swap 64m",
            ),
            (
                args(|a| {
                    a.memory = Some(Bytes(64 << 20));
                    a.memory_swap = Some(Swap::Total(Bytes(32 << 20)));
                }),
                "--memory-swap 32m",
            ),
            (
                args(|a| a.cpus = Some(Cpus::whole(100_000))),
                "--cpus 100000",
            ),
            (
                args(|a| a.cpus = Some("0.001".parse().unwrap())),
                "--cpus 0.001",
            ),
            (args(|a| a.cpu_shares = Some(1)), "--cpu-shares 1"),
            (args(|a| a.cpu_quota = Some(999)), "--cpu-quota 999"),
            (args(|a| a.cpu_period = Some(1)), "--cpu-period 1"),
            (args(|a| a.blkio_weight = Some(5)), "--blkio-weight 5"),
            (
                args(|a| a.device_write_bps = vec!["/dev/null:1m".parse().unwrap()]),
                "not a block device",
            ),
        ] {
            let error = format!("{:#}", limits(&args).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        let none = args(|a| a.pids_limit = Some(-1));
        assert!(limits(&none).unwrap().is_empty());
        let none = args(|a| {
            a.memory = Some(Bytes(0));
            a.memory_swap = Some(Swap::Unlimited);
            a.memory_reservation = Some(Bytes(0));
            a.cpus = Some(Cpus::whole(0));
            a.cpu_shares = Some(0);
            a.cpu_quota = Some(-1);
            a.cpu_period = Some(0);
            a.pids_limit = Some(0);
            a.blkio_weight = Some(0);
        });
        assert!(limits(&none).unwrap().is_empty());
        let both = args(|a| {
            a.memory = Some(Bytes(64 << 20));
            a.memory_swap = Some(Swap::Total(Bytes(0)));
        });
        assert!(limits(&both).unwrap()[1].implied);
    }
}

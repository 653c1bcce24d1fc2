//! The CPU affinity of the command: sched_setaffinity(2).

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::limits::id_list::IdList;

/// Restricts the caller, which is in a cpuset of `cpus`, to these CPUs.
///
/// The kernel moves a process to the CPUs of a cpuset at once when it is moved
/// into it. For one that is born into it, by clone3(2) with
/// `CLONE_INTO_CGROUP`, Linux does so only since 6.3, and many stable kernels
/// of that time do not. Such a process has to leave the other CPUs itself, and
/// cannot return to them.
pub(crate) fn stay_on(cpus: &IdList) -> Result<()> {
    let this = Pid::from_raw(0);
    let now = sched_getaffinity(this).context("sched_getaffinity")?;
    let wanted = |cpu: &usize| u32::try_from(*cpu).is_ok_and(|cpu| cpus.0.contains(&cpu));
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..CpuSet::count())
        .filter(|cpu| now.is_set(*cpu).unwrap_or(false))
        .partition(wanted);
    if outside.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in inside {
        set.set(cpu).with_context(|| format!("CPU_SET({cpu})"))?;
    }
    sched_setaffinity(this, &set).with_context(|| format!("sched_setaffinity({cpus})"))
}

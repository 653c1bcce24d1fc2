//! The CPUs that a process may run on: sched_setaffinity(2).

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::limits::id_list::IdList;

/// Sees to it that the caller, who is in a cpuset of `cpus`, runs on no other.
///
/// Who is moved into a cpuset is put onto its CPUs at once. Who was born into
/// it, by clone3(2) with `CLONE_INTO_CGROUP`, is not before Linux 6.3, nor in
/// many a stable kernel of that time. It has to leave the other CPUs by itself,
/// and cannot go back to them.
///
/// # Errors
/// Those of sched_getaffinity(2) and sched_setaffinity(2).
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

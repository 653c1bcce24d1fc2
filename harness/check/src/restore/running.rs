//! Finds running programs of ours: what they use is not left over.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Broom;
use crate::host::{self, Process};

/// Processes that execute a step, the engine, the probe, a check or another
/// harness.
pub fn ours() -> Result<Vec<Process>> {
    let family = ancestors()?;
    let mut ours = host::processes()?;
    ours.retain(|process| !family.contains(&process.pid) && is_ours(process.pid));
    Ok(ours)
}

/// Kills `processes`.
pub fn end(broom: &mut Broom, processes: &[Process]) {
    for process in processes {
        broom.take(
            &format!("process {} ({})", process.pid, process.comm),
            || kill_and_wait(&[process.pid]),
        );
    }
}

/// Kills processes and waits until they have ended.
pub fn kill_and_wait(pids: &[i32]) -> Result<()> {
    for pid in pids {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => bail!("kill({pid}): {errno}"),
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    // A zombie holds nothing; its parent reaps it.
    let lives = |pid: &&i32| host::process(**pid).is_some_and(|process| process.state != 'Z');
    while let Some(pid) = pids.iter().find(lives) {
        if Instant::now() > end {
            bail!("process {pid} does not end");
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn is_ours(pid: i32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else {
        return false; // a kernel thread, or somebody else's
    };
    is_name_of_ours(&program.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether a program has one of our names: `step-03`, or
/// `step_03-1f2e3d4c5b6a7988` for its checks.
fn is_name_of_ours(name: &str) -> bool {
    // A program that was rebuilt after its start.
    let name = name.trim_end_matches(" (deleted)");
    let step = name
        .strip_prefix("step-")
        .or_else(|| name.strip_prefix("step_"));
    matches!(name, "drydock" | "drydock-runtime" | "probe" | "harness")
        || step
            .and_then(|rest| rest.get(..2))
            .is_some_and(|number| number.parse::<u8>().is_ok())
}

/// This process and its ancestors, which wait for it.
fn ancestors() -> Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    let mut pid = Pid::this().as_raw();
    while pid > 0 && all.insert(pid) {
        pid = host::process(pid).map_or(0, |process| process.ppid);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_names() {
        for name in [
            "step-03",
            "step_03-1f2e3d4c",
            "drydock",
            "drydock-runtime",
            "probe (deleted)",
        ] {
            assert!(is_name_of_ours(name), "{name}");
        }
        for name in ["step", "step-ca", "dockerd", "sh", "stepper-03"] {
            assert!(!is_name_of_ours(name), "{name}");
        }
    }
}

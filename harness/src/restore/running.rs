//! Programs of ours that are alive: what they use is in use, and not left.

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
///
/// # Errors
/// Those of reading /proc.
pub fn ours() -> Result<Vec<Process>> {
    let family = ancestors()?;
    let mut ours = host::processes()?;
    ours.retain(|process| !family.contains(&process.pid) && is_ours(process.pid));
    Ok(ours)
}

/// Ends `processes`.
pub fn end(broom: &mut Broom, processes: &[Process]) {
    for process in processes {
        broom.take(
            &format!("process {} ({})", process.pid, process.comm),
            || kill_and_wait(&[process.pid]),
        );
    }
}

/// Kills processes and waits until they are gone.
///
/// # Errors
/// Those of kill(2), and if one does not go.
pub fn kill_and_wait(pids: &[i32]) -> Result<()> {
    for pid in pids {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => bail!("kill({pid}): {errno}"),
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    // A zombie uses nothing any more; reaping it is its parent's.
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
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // What was rebuilt meanwhile.
    let name = name.trim_end_matches(" (deleted)");
    let digits = |rest: Option<&str>| {
        rest.is_some_and(|rest| {
            rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_digit)
        })
    };
    matches!(name, "drydock" | "probe" | "harness")
        || digits(name.strip_prefix("step-"))
        || digits(name.strip_prefix("step_"))
}

/// This process and those that wait for it: its parent, and so on.
fn ancestors() -> Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    let mut pid = Pid::this().as_raw();
    while pid > 0 && all.insert(pid) {
        pid = host::process(pid).map_or(0, |process| process.ppid);
    }
    Ok(all)
}

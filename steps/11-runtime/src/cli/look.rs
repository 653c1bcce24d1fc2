//! `state`, `list`, `ps` and `events`.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cgroups::named::Usage;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::json;

use crate::cli::args::{Events, Globals, List, Listing, Ps};
use crate::config::read::{line, print};
use crate::state::{Container, Status, Store};

/// `state`.
pub(crate) fn state(globals: &Globals, id: &str) -> Result<()> {
    let container = Store::new(globals.root.clone())?.look(id)?;
    let status = container.status()?;
    print(&container.state(status)?)
}

/// `list`.
pub(crate) fn list(globals: &Globals, args: &List) -> Result<()> {
    let containers = Store::new(globals.root.clone())?.list()?;
    if args.quiet {
        return containers
            .iter()
            .try_for_each(|container| line(&container.record.id));
    }
    let mut states = Vec::new();
    for container in &containers {
        let status = container.status()?;
        states.push(container.state(status)?);
    }
    if args.format == Listing::Json {
        let text = serde_json::to_string(&states).context("serialise")?;
        return line(&text);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    for state in states {
        rows.push([
            state.id,
            state.pid.to_string(),
            state.status.name().to_owned(),
            state.bundle.display().to_string(),
            state.created.unwrap_or_default(),
            state.owner.unwrap_or_default(),
        ]);
    }
    table(&rows)
}

fn table(rows: &[[String; 6]]) -> Result<()> {
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or_default()
    };
    for row in rows {
        let cells: Vec<String> = (0..row.len())
            .map(|n| format!("{:width$}", row[n], width = width(n)))
            .collect();
        line(kit::say::printable(&cells.join("   ")).trim_end())?;
    }
    Ok(())
}

/// `ps`.
pub(crate) fn ps(globals: &Globals, args: &Ps) -> Result<()> {
    let container = Store::new(globals.root.clone())?.look(&args.id)?;
    let mut pids: Vec<i32> = container
        .record
        .cgroup
        .processes()?
        .iter()
        .map(|pid| pid.as_raw())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    if args.format == Listing::Json {
        let text = serde_json::to_string(&pids).context("serialise")?;
        return line(&text);
    }
    let options = match args.options.is_empty() {
        true => vec!["-ef".to_owned()],
        false => args.options.clone(),
    };
    let output = Command::new("ps")
        .args(&options)
        .output()
        .context("execute ps(1)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ps: {}", said.trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        bail!("ps {}: there is no column PID", options.join(" "));
    };
    line(head)?;
    let wanted: BTreeSet<i32> = pids.into_iter().collect();
    for row in lines {
        let pid = row.split_whitespace().nth(column);
        if pid
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| wanted.contains(&pid))
        {
            line(row)?;
        }
    }
    Ok(())
}

/// `events`.
pub(crate) fn events(globals: &Globals, args: &Events) -> Result<()> {
    let container = Store::new(globals.root.clone())?.look(&args.id)?;
    ensure!(
        container.status()? != Status::Stopped,
        "container not running"
    );
    let mut kills = statistics(&container)?;
    if args.stats {
        return Ok(());
    }
    let first = container.process().context("container not running")?;
    let pid = rustix::process::Pid::from_raw(first.pid).context("0 is no PID")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let interval = PollTimeout::try_from(*args.interval).unwrap_or(PollTimeout::MAX);
    ensure!(interval != PollTimeout::ZERO, "--interval is 0");
    // Until the first process ends.
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, interval) {
            Ok(0) => {
                let now = statistics(&container)?;
                if now > kills {
                    event("oom", &container.record.id, None)?;
                }
                kills = now;
            }
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// Prints the statistics in runc's form. Returns the number of processes that
/// the lack of memory has ended.
fn statistics(container: &Container) -> Result<u64> {
    let Usage {
        processes,
        cpu_nanoseconds,
        memory,
        memory_limit,
        memory_peak,
        oom_kills,
        read,
        written,
        inactive_file: _,
    } = container.record.cgroup.usage()?;
    let disk = |value: Option<u64>, op: &str| json!({"op": op, "value": value.unwrap_or(0)});
    let data = json!({
            "cpu": {"usage": {"total": cpu_nanoseconds.unwrap_or(0) as u64}},
            "memory": {
                "usage": {
                    "usage": memory.unwrap_or(0),
                    "limit": memory_limit.unwrap_or(u64::MAX),
                    "max": memory_peak.unwrap_or(0),
                    "failcnt": oom_kills.unwrap_or(0),
                },
            },
            "pids": {"current": processes.unwrap_or(0)},
            "blkio": {
                "ioServiceBytesRecursive": [disk(read, "Read"), disk(written, "Write")],
            }
    });
    event("stats", &container.record.id, Some(&data))?;
    Ok(oom_kills.unwrap_or(0))
}

/// Prints an event. Its readers expect its properties in this order.
fn event(kind: &str, id: &str, data: Option<&serde_json::Value>) -> Result<()> {
    let data = data.map(|data| format!(",\"data\":{data}"));
    let data = data.unwrap_or_default();
    line(&format!("{{\"type\":\"{kind}\",\"id\":\"{id}\"{data}}}"))
}

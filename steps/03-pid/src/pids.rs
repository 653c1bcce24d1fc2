//! `step-03 pids`: the processes of containers, each with its PID on the host
//! and its PIDs inside.

use std::fs::{self, File};
use std::io::{ErrorKind, Write, stdout};
use std::iter;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use clap::Args;
use kit::sys;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use process::Exit;

use crate::status::{Status, is_gone};

/// The arguments of `step-03 pids`.
#[derive(Args, Clone, Debug)]
pub struct PidsArgs {
    /// A process of the container [default: all containers]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
}

/// A process, and its chain of PID namespaces.
struct Process {
    status: Status,
    /// The inodes of its PID namespace and of the ancestors that the caller may
    /// see. Empty if the caller may not even see the first.
    namespaces: Vec<u64>,
}

/// Prints the table on standard output: with a PID, every process of that
/// process's PID namespace and of those nested in it; without, every process of
/// any PID namespace below the caller's.
///
/// # Errors
/// Names a process that does not exist, is in no container, or may not be
/// inspected by the caller.
pub fn print(args: PidsArgs) -> Result<Exit> {
    // ANCHOR: exercise_show_pids
    // SIGPIPE ends this program quietly when a reader such as `head` closes the
    // pipe.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let container = args.pid.map(container_of).transpose()?;
    let mut found = Vec::new();
    for pid in all()? {
        let Some(process) = look_at(pid)? else {
            continue;
        };
        let shown = match container {
            Some(namespace) => process.namespaces.contains(&namespace),
            None => process.status.pids.len() > 1,
        };
        if shown {
            found.push(process);
        }
    }
    stdout()
        .write_all(table(&found).as_bytes())
        .context("write to standard output")?;
    Ok(Exit::Code(0))
    // ANCHOR_END: exercise_show_pids
}

/// The inode of the PID namespace of a process in a container.
fn container_of(pid: i32) -> Result<u64> {
    let Some(process) = look_at(Pid::from_raw(pid))? else {
        bail!("process {pid} does not exist");
    };
    if process.status.pids.len() < 2 {
        bail!("process {pid} belongs to no container: its PID namespace is not below this one");
    }
    match process.namespaces.first() {
        Some(namespace) => Ok(*namespace),
        None if process.status.state == 'Z' => {
            bail!("process {pid} is a zombie, which has no namespaces any more")
        }
        None => bail!("only root and the owner of process {pid} may see its PID namespace"),
    }
}

fn all() -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids.into_iter().map(Pid::from_raw).collect())
}

fn look_at(pid: Pid) -> Result<Option<Process>> {
    let Some(status) = Status::of(pid)? else {
        return Ok(None);
    };
    let namespaces = namespaces_of(pid).with_context(|| format!("PID namespace of {pid}"))?;
    Ok(Some(Process { status, namespaces }))
}

// ANCHOR: namespaces_of
/// The PID namespaces of a process: its own first, from `/proc/PID/ns/pid`,
/// then the ancestors, by `NS_GET_PARENT` (ioctl_ns(2)).
fn namespaces_of(pid: Pid) -> Result<Vec<u64>> {
    let path = format!("/proc/{pid}/ns/pid");
    let mut namespace = match File::open(&path) {
        Ok(file) => file,
        Err(e) if is_gone(&e) || e.kind() == ErrorKind::PermissionDenied => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("open {path}")),
    };
    let mut inodes = Vec::new();
    loop {
        inodes.push(namespace.metadata().context("fstat")?.ino());
        namespace = match sys::parent_namespace(namespace.as_fd()) {
            Ok(parent) => parent.into(),
            Err(e) if e.downcast_ref() == Some(&Errno::EPERM) => return Ok(inodes),
            Err(e) => return Err(e),
        };
    }
}
// ANCHOR_END: namespaces_of

fn table(processes: &[Process]) -> String {
    let line = |host: &str, inside: &str, namespace: &str, state: &str, command: &str| {
        format!("{host:<8} {inside:<10} {namespace:<11} {state:<6} {command}\n")
    };
    let header = line("host", "inside", "namespace", "state", "command");
    let rows = processes.iter().map(|Process { status, namespaces }| {
        let (host, inside) = status.pids.split_first().unwrap_or((&0, &[]));
        let inside: Vec<_> = inside.iter().map(i32::to_string).collect();
        line(
            &host.to_string(),
            &inside.join(" "),
            &namespaces.first().map_or("-".to_owned(), u64::to_string),
            &status.state.to_string(),
            &status.command,
        )
    });
    iter::once(header).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_every_pid_of_a_process() {
        let process = Process {
            status: Status {
                pids: vec![4711, 7, 1],
                state: 'S',
                command: "sh".to_owned(),
            },
            namespaces: vec![4026532761],
        };
        let text = table(&[process]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["host", "inside", "namespace", "state", "command"]);
        assert_eq!(rows[1], ["4711", "7", "1", "4026532761", "S", "sh"]);
    }

    #[test]
    fn a_process_outside_of_containers_is_no_containers() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(
            container_of(own)
                .unwrap_err()
                .to_string()
                .contains("no container")
        );
        let error = container_of(i32::MAX).unwrap_err();
        assert_eq!(error.to_string(), "process 2147483647 does not exist");
    }
}

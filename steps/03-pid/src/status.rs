//! The status of a process, from `/proc/PID/status` (proc_pid_status(5)).

use std::fs;
use std::io;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// A process, as the reader of this /proc sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The PIDs (`NSpid`): in the PID namespace of this /proc first, then in
    /// each one nested in it, down to the process's own. Never empty.
    pub pids: Vec<i32>,
    /// The letter of the state: `R`, `S`, `D`, `T`, `Z`…
    pub state: char,
    /// The command line, or the name in brackets if there is none: for a zombie
    /// or a kernel thread.
    pub command: String,
}

impl Status {
    /// Reads the status of a process. Returns `None` if it has ended.
    pub fn of(pid: Pid) -> Result<Option<Self>> {
        let (Some(text), Some(arguments)) = (read(pid, "status")?, read(pid, "cmdline")?) else {
            return Ok(None);
        };
        parse(&text, &arguments)
            .with_context(|| format!("/proc/{pid}/status"))
            .map(Some)
    }
}

fn read(pid: Pid, file: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/{file}");
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {path}")),
    }
}

/// Whether an error from `/proc/PID` means that the process has ended: `ENOENT`
/// for its directory, `ESRCH` for a file that was open.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use nix::errno::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ESRCH)
    )
}

fn parse(status: &str, arguments: &str) -> Result<Status> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .with_context(|| format!("no field {name}"))
    };
    let pids = field("NSpid")?
        .split_whitespace()
        .map(|pid| pid.parse().with_context(|| format!("NSpid {pid:?}")))
        .collect::<Result<Vec<i32>>>()?;
    anyhow::ensure!(!pids.is_empty(), "NSpid is empty");
    let command = match arguments.trim_end_matches('\0') {
        "" => format!("[{}]", field("Name")?),
        words => words.split('\0').map(shown).collect::<Vec<_>>().join(" "),
    };
    Ok(Status {
        pids,
        state: field("State")?.chars().next().context("State is empty")?,
        command,
    })
}

/// Replaces control characters, which would break a line of the table.
fn shown(word: &str) -> String {
    word.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nUmask:\t0022\nState:\tS (sleeping)\nNSpid:\t4711\t7\t1\n";

    #[test]
    fn the_pids_are_listed_from_the_outermost_in() {
        let status = parse(STATUS, "sh\0-c\0echo a\necho b\0").unwrap();
        assert_eq!(status.pids, [4711, 7, 1]);
        assert_eq!(status.state, 'S');
        assert_eq!(status.command, "sh -c echo a?echo b");
    }

    #[test]
    fn a_process_without_arguments_is_named_in_brackets() {
        assert_eq!(parse(STATUS, "").unwrap().command, "[sh]");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = parse("Name:\tsh\nState:\tS\n", "").unwrap_err();
        assert_eq!(error.to_string(), "no field NSpid");
    }

    #[test]
    fn the_caller_can_read_its_own() {
        let own = Status::of(Pid::this()).unwrap().unwrap();
        assert_eq!(own.pids[0], Pid::this().as_raw());
        assert!(Status::of(Pid::from_raw(i32::MAX)).unwrap().is_none());
    }
}

//! Runs a program with limits on its time, its memory and its output.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use check::sys;

/// The limit of the output that is kept, in bytes. The rest is not read.
const OUTPUT: u64 = 64 << 10;

/// The limits of each process, in bytes: address space (twice what rustc takes
/// for our largest step), file size (also of the output), core dumps.
const LIMITS: [(Resource, u64); 3] = [
    (Resource::RLIMIT_AS, 4 << 30),
    (Resource::RLIMIT_FSIZE, 1 << 30),
    (Resource::RLIMIT_CORE, 0),
];

/// The end of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// The beginning of its output, standard output and standard error
    /// together.
    pub output: String,
}

/// A program took longer than this, and was killed: the one error of [`run`]
/// that the program is to blame for.
#[derive(Debug)]
pub struct TooLong(Duration);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took more than {} s", self.0.as_secs())
    }
}

impl std::error::Error for TooLong {}

/// Runs `command` to its end, at most for `limit`, with limits on its memory
/// and its files. Standard output and standard error go to a file without a
/// name.
///
/// # Errors
/// If `command` cannot be started. [`TooLong`] if it took longer: it is then
/// killed, with everything it has started.
pub fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    let mut output = tempfile::tempfile().context("make a temporary file")?;
    let copy = |file: &File| file.try_clone().context("dup");
    sys::limit_child(command, &LIMITS);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(copy(&output)?)
        .stderr(copy(&output)?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait")? {
            break status;
        }
        if Instant::now() > end {
            killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).context("killpg")?;
            child.wait().context("wait")?;
            return Err(TooLong(limit).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    std::io::Seek::rewind(&mut output).context("lseek")?;
    let mut bytes = Vec::new();
    output
        .take(OUTPUT)
        .read_to_end(&mut bytes)
        .context("read the output")?;
    Ok(Ended {
        status,
        output: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_killed() {
        let limit = Duration::from_millis(100);
        let error = run(Command::new("sleep").arg("1000"), limit).map(|_| ());
        assert!(error.is_err_and(|error| error.is::<TooLong>()));
    }

    #[test]
    fn what_cannot_be_started_is_not_too_long() {
        let error = run(
            &mut Command::new("/no/such/compiler"),
            Duration::from_secs(20),
        )
        .map(|_| ());
        assert!(error.is_err_and(|error| !error.is::<TooLong>()));
    }

    #[test]
    fn output_is_kept_up_to_a_limit() -> Result<()> {
        let ended = run(
            Command::new("sh").args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x"]),
            Duration::from_secs(20),
        )?;
        assert_eq!(ended.output.len() as u64, OUTPUT);
        assert!(ended.status.success());
        Ok(())
    }

    #[test]
    fn memory_and_files_have_limits() -> Result<()> {
        let shell = |script| {
            run(
                Command::new("sh").args(["-c", script]),
                Duration::from_secs(20),
            )
        };
        assert_eq!(shell("ulimit -v")?.output.trim(), (4 << 20).to_string());
        // What is written goes to the file of the output.
        assert!(!shell("head -c 2000000000 /dev/zero")?.status.success());
        Ok(())
    }
}

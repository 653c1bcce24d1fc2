//! Logs that are written, and the commands that print them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::herd::{LIMIT, await_output, first_byte};
use crate::keepers::Keeper;
use crate::scratch::Stop;
use crate::session::Session;
use check::sys::bind_child;

/// A line of a log, 100 bytes with its end.
const LINE: &str = "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \
                    0123456789 01234567890";

/// A script that writes so many bytes, in lines.
pub(super) fn writes(bytes: u64) -> String {
    format!("yes '{LINE}' | head -c {bytes}")
}

/// Runs a command until it has printed so many bytes, and returns the time since
/// `begun`. The command is ended then: `logs -f` may go on for a while after
/// the container's end.
///
/// # Errors
/// If it prints less, or nothing for a minute; if a signal arrives.
pub(super) fn printed(
    argv: &[String],
    bytes: u64,
    begun: Instant,
    stop: &Stop,
) -> Result<Duration> {
    let mut followers = Followers(vec![follow(argv, Stdio::null())?]);
    let stdout = followers.0[0].stdout.as_mut();
    let stdout = stdout.context("no standard output")?;
    let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
    while count < bytes {
        await_output(&*stdout, LIMIT, &|| stop.check())?;
        match stdout.read(&mut buffer).context("read")? {
            0 => bail!("{count} of {bytes} bytes were printed"),
            n => count += n as u64,
        }
    }
    ensure!(
        count == bytes,
        "{count} bytes were printed instead of {bytes}"
    );
    Ok(begun.elapsed())
}

/// Starts a command whose output is read from a pipe, and which ends with the
/// bench.
fn follow(argv: &[String], stderr: Stdio) -> Result<Child> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(stderr);
    bind_child(&mut command, Vec::new(), Signal::SIGKILL);
    command.spawn().with_context(|| format!("run {}", argv[0]))
}

/// Commands that follow logs. Dropping them ends them.
#[derive(Default)]
pub(super) struct Followers(pub(super) Vec<Child>);

impl Followers {
    /// Follows the logs of all these containers, and waits until each command
    /// has printed something. Their complaints go to a file.
    pub(super) fn all(
        &mut self,
        session: &Session,
        keeper: &Keeper,
        names: &[String],
        complaints: &Path,
    ) -> Result<()> {
        let stderr = fs::File::create(complaints).context("create a file for complaints")?;
        for name in names {
            let stderr = stderr.try_clone().context("dup")?;
            let argv = keeper.argv(&["logs", "-f", name]);
            self.0.push(follow(&argv, Stdio::from(stderr))?);
        }
        for follower in &mut self.0 {
            let stdout = follower.stdout.as_mut().context("no standard output")?;
            first_byte(stdout, LIMIT, &|| session.scratch.stop.check())?;
        }
        Ok(())
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended, and been waited for, is killed no more.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("the end of logs -f: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_short_is_none() {
        let run = |bytes| {
            let argv = ["sh".to_owned(), "-c".to_owned(), writes(12_345)];
            printed(&argv, bytes, Instant::now(), &Stop::default())
        };
        assert_eq!(LINE.len(), 99);
        assert!(run(12_345).is_ok());
        let short = run(12_346).unwrap_err();
        assert_eq!(short.to_string(), "12345 of 12346 bytes were printed");
        assert!(run(12_344).is_err());
    }
}

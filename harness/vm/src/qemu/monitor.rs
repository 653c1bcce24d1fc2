//! QEMU's monitor, which saves and resumes machines: QMP, a line of JSON each
//! way; qemu-qmp-ref(7), "Migration".

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

/// Longest time for an answer. A busy host also delays QEMU.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to the monitor of a running QEMU.
pub(super) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Opens the connection.
    pub(super) fn open(socket: UnixStream) -> Result<Monitor> {
        let limit = Some(LIMIT);
        socket.set_read_timeout(limit).context("SO_RCVTIMEO")?;
        socket.set_write_timeout(limit).context("SO_SNDTIMEO")?;
        let mut monitor = Monitor(BufReader::new(socket));
        monitor.call("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Returns the machine's state, except for the memory, which is in the file
    /// that the machine was started with, and stops it for good. The machine
    /// must be running: one that was saved while stopped is stopped when it
    /// resumes.
    pub(super) fn save(&mut self) -> Result<Vec<u8>> {
        let dir = tempfile::Builder::new()
            .prefix("drydock-machine-")
            .tempdir()
            .context("make a temporary directory")?;
        let path = dir.path().join("state");
        let listener =
            UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        self.memory_stays()?;
        let to = format!("unix:{}", path.display());
        self.call("migrate", json!({ "uri": to }))?;
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(LIMIT).context("a time limit of poll")?;
        let waiting = poll(&mut ready, limit).context("poll")?;
        ensure!(waiting == 1, "QEMU sends no state: {}", self.migration()?);
        let (mut socket, _) = listener.accept().context("accept")?;
        socket
            .set_read_timeout(Some(LIMIT))
            .context("SO_RCVTIMEO")?;
        let mut state = Vec::new();
        socket
            .read_to_end(&mut state)
            .context("read the machine's state")?;
        self.completed()?;
        Ok(state)
    }

    /// Loads a saved state into a machine that waits for it. QEMU reads it from
    /// its descriptor `fd`; `to` is the other end. The machine then runs by
    /// itself. QEMU prints what is wrong with a bad state on standard error.
    pub(super) fn resume(&mut self, fd: i32, mut to: UnixStream, state: &[u8]) -> Result<()> {
        self.memory_stays()?;
        self.call("migrate-incoming", json!({ "uri": format!("fd:{fd}") }))?;
        to.set_write_timeout(Some(LIMIT)).context("SO_SNDTIMEO")?;
        to.write_all(state).context("send the machine's state")?;
        self.completed()
    }

    /// Waits until QEMU reports that all of the state has arrived.
    fn completed(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.migration()?.as_str() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => bail!("QEMU does not take the state"),
                status if Instant::now() > end => bail!("QEMU has not done with it: {status}"),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn memory_stays(&mut self) -> Result<()> {
        let memory = json!([{ "capability": "x-ignore-shared", "state": true }]);
        self.call(
            "migrate-set-capabilities",
            json!({ "capabilities": memory }),
        )?;
        Ok(())
    }

    /// The status of saving or resuming.
    fn migration(&mut self) -> Result<String> {
        let answer = self.call("query-migrate", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        let asking = || format!("ask QEMU's monitor for {command}");
        let to_qemu = self.0.get_mut();
        to_qemu.write_all(line.as_bytes()).with_context(asking)?;
        loop {
            let mut line = String::new();
            let length = self.0.read_line(&mut line).with_context(asking)?;
            ensure!(length > 0, "QEMU ended instead of {command}");
            let mut answer: Value = serde_json::from_str(&line).with_context(asking)?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {}", error["desc"].as_str().unwrap_or_default());
            }
            // Skip the greeting and events.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }
}

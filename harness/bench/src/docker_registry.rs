//! Debian's docker-registry, on a loopback device.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use super::session::Session;
use super::tools::{last_words, need};
use check::sys::bind_child;

/// The time limit for its first answer.
const LIMIT: Duration = Duration::from_secs(30);

/// A running registry. Dropping it ends it; its data stay in the scratch place.
pub struct Registry {
    child: Child,
    /// Its address: `127.0.0.1:41234`.
    pub host: String,
}

impl Registry {
    /// Starts a registry with its data in the directory `name` of the scratch
    /// place, in the network of this thread.
    ///
    /// # Errors
    /// Names the package if the program is missing, or says why there is no
    /// answer.
    pub fn start(session: &Session, name: &str) -> Result<Registry> {
        let program = need("docker-registry")?;
        let dir = session.scratch.make(name)?;
        let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
        let host = listener.local_addr().context("getsockname")?.to_string();
        drop(listener);
        let config = json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": dir.join("data") } },
            "http": { "addr": host },
        });
        let file = dir.join("config.yml"); // JSON is YAML
        fs::write(&file, config.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let log = dir.join("log");
        let output = File::create(&log).context("create a log for docker-registry")?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&file).stdin(Stdio::null());
        command
            .stdout(output.try_clone().context("dup")?)
            .stderr(output);
        // ^C is for the bench, which then ends the registry.
        command.process_group(0);
        bind_child(&mut command, Vec::new(), Signal::SIGKILL);
        let child = command.spawn().context("run docker-registry")?;
        let mut registry = Registry { child, host };
        let end = Instant::now() + LIMIT;
        while TcpStream::connect(&registry.host).is_err() {
            session.scratch.stop.check()?;
            let ended = registry
                .child
                .try_wait()
                .context("wait for docker-registry")?;
            if ended.is_some() || Instant::now() > end {
                let said = last_words(&fs::read(&log).unwrap_or_default());
                bail!("docker-registry does not listen: {said}");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the end of docker-registry: {error}");
        }
    }
}

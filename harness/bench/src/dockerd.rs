//! A dockerd of the bench's own. A daemon that serves this host has other
//! containers to care for, a store on another disk, and settings that nobody
//! here knows.
//!
//! It runs in namespaces of its own, with its state in the scratch place. All
//! that it starts is in its PID namespace, which ends with the bench, whatever
//! ends that.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::session::Session;
use super::tools::{complaint, last_words, named};
use check::host;
use check::restore::running::kill_and_wait;
use check::sys::bind_child;

/// The first process of the PID namespace: a shell, which reaps what dockerd's
/// children leave. /run belongs to the daemons of the host, and in /etc/docker a
/// daemon leaves its key. `$1` are the options of an overlay on /etc.
const FIRST: &str = "mount -t tmpfs tmpfs /run && mount -t overlay -o \"$1\" overlay /etc && \
                     shift && { \"$@\"; exit $?; }";

/// The time limit for the daemon's first answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A running dockerd. Dropping it ends it, its containers and its mounts.
pub struct Dockerd {
    /// unshare(1), which waits for the first process of the namespace.
    outer: Child,
    /// That first process, by its PID here.
    first: Option<i32>,
    host: String,
}

impl Dockerd {
    /// Starts a daemon with its state in the directory `name` of the scratch
    /// place. It has the network of this thread, and makes no bridge there.
    ///
    /// # Errors
    /// If it does not answer, with its last words.
    pub fn start(session: &Session, name: &str) -> Result<Dockerd> {
        let scratch = &session.scratch;
        let dir = scratch.make(name)?;
        let word = |file: &str| dir.join(file).display().to_string();
        let host = format!("unix://{}", word("socket"));
        let log = dir.join("log");
        // The settings of the host's daemon are in /etc/docker/daemon.json.
        let settings = word("daemon.json");
        fs::write(&settings, "{}").with_context(|| format!("write {settings}"))?;
        for name in ["etc", "work"] {
            fs::create_dir_all(dir.join(name)).with_context(|| format!("mkdir {name}"))?;
        }
        let etc = format!(
            "lowerdir=/etc,upperdir={},workdir={}",
            word("etc"),
            word("work")
        );
        let output = File::create(&log).context("create a log for dockerd")?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--ipc", "--uts", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh", "-c", FIRST, "sh"])
            .arg(etc)
            .arg(program()?)
            .args(["--config-file", &settings])
            .args(["--host", &host, "--data-root", &word("data")])
            .args(["--exec-root", &word("exec"), "--pidfile", &word("pid")])
            .args(["--cgroup-parent", &scratch.group()])
            .args(["--bridge", "none", "--iptables=false"])
            // Its own default exceeds what root without CAP_SYS_RESOURCE may set.
            .args(["--default-ulimit", "nofile=1024:1024"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("dup")?)
            .stderr(output)
            // ^C is for the bench, which then ends the daemon.
            .process_group(0);
        bind_child(&mut command, Vec::new(), Signal::SIGKILL);
        let outer = command.spawn().context("run unshare")?;
        let mut daemon = Dockerd {
            outer,
            first: None,
            host,
        };
        let end = Instant::now() + LIMIT;
        let ask = [daemon.words(), vec!["version".to_owned()]].concat();
        while let Some(words) = complaint(&ask)? {
            scratch.stop.check()?;
            let ended = daemon.outer.try_wait().context("wait for dockerd")?;
            if ended.is_some() || Instant::now() > end {
                let said = last_words(&fs::read(&log).unwrap_or_default());
                bail!("dockerd does not answer ({words}): {said}");
            }
            sleep(Duration::from_millis(20));
        }
        let children = host::children(daemon.outer.id() as i32)?;
        daemon.first = children.first().map(|child| child.pid);
        Ok(daemon)
    }

    /// The first words of every command line of its client.
    pub fn words(&self) -> Vec<String> {
        ["docker", "--host", &self.host].map(str::to_owned).to_vec()
    }

    /// The daemons: dockerd, and the containerd that it has started.
    pub fn daemons(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut parents: Vec<i32> = self.first.into_iter().collect();
        for comm in ["dockerd", "containerd"] {
            let mut found = Vec::new();
            for parent in parents {
                let children = host::children(parent)?.into_iter();
                found.extend(children.filter(|child| child.comm == comm).map(|c| c.pid));
            }
            pids.extend(&found);
            parents = found;
        }
        Ok(pids)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // The first process ends after all others of its namespace. Without it,
        // unshare(1) ends by itself.
        let ended = match self.first {
            Some(first) => kill_and_wait(&[first]),
            None => self.outer.kill().context("kill"),
        };
        if let Err(error) = ended.and_then(|()| self.outer.wait().map(drop).context("wait")) {
            eprintln!("the end of dockerd: {error:#}");
        }
    }
}

/// The program, which Debian keeps where only root's PATH may lead.
fn program() -> Result<PathBuf> {
    let found = check::requirement::tool("dockerd");
    found.with_context(|| format!("dockerd is {}", missing()))
}

fn missing() -> &'static str {
    "missing: package docker.io"
}

/// The reason why there can be no daemon here; `None` if its programs are here.
pub fn absent() -> Result<Option<String>> {
    let here = named("docker")?.find().is_some() && program().is_ok();
    Ok((!here).then(|| missing().to_owned()))
}

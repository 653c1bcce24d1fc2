//! A place for daemons: a directory, and namespaces of their own. Everything ends
//! with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use check::guard::Snapshot;
use check::{host, requirement, workspace};
use nix::unistd::geteuid;
use tempfile::TempDir;

/// The prefix of the control groups. `./just restore` knows it.
const GROUP: &str = "drydock-peers-";

/// The longest wait for a daemon, or for what it says: translated by QEMU, a
/// program in Go takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// The longest time for a call.
const CALL_LIMIT: &str = "180";

/// The value that the closure returns in time, asked again and again.
pub(crate) fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            None if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(50)),
            answer => return answer,
        }
    }
}

/// Mounts, network, IPC objects, host name and processes of the daemons. Process
/// 1 is a sleep: when it is killed, the kernel kills all others.
const FIRST: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && \
                     exec sleep infinity";

pub(crate) struct Place {
    dir: TempDir,
    first: Child,
    pid: i32,
    daemons: Vec<(String, Child)>,
    /// The group below which everything runs, from the root of a hierarchy.
    pub(crate) group: String,
    before: Option<Snapshot>,
    /// What there is in /sys/fs/cgroup: where that is a tmpfs, podman makes
    /// directories for controllers that are not mounted.
    hierarchies: Vec<PathBuf>,
}

/// A call that has ended.
pub(crate) struct Ended {
    pub(crate) call: String,
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(call: &str, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ended {
            call: call.to_owned(),
            status: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Expects this exit status.
    pub(crate) fn status(self, expected: i32) -> Result<Self> {
        ensure!(
            self.status == expected,
            "{}: expected status {expected}, found {}: {}",
            self.call,
            self.status,
            self.stderr
        );
        Ok(self)
    }

    /// Expects this on standard output, and status 0.
    pub(crate) fn prints(self, expected: &str) -> Result<Self> {
        let ended = self.status(0)?;
        ensure!(
            ended.stdout == expected,
            "{}: expected {expected:?}, found {:?}",
            ended.call,
            ended.stdout
        );
        Ok(ended)
    }

    /// Expects these words on standard error.
    pub(crate) fn says(self, words: &str) -> Result<Self> {
        ensure!(
            self.stderr.contains(words),
            "{}: expected {words:?} on standard error, found {:?}",
            self.call,
            self.stderr
        );
        Ok(self)
    }
}

impl Place {
    /// Makes a place. `programs` are needed in it, each with Debian's package
    /// that has it.
    pub(crate) fn new(programs: &[(&str, &str)]) -> Result<Self> {
        ensure!(geteuid().is_root(), "needs root");
        let lacks = |(program, _): &&(&str, &str)| requirement::tool(program).is_none();
        let missing: Vec<&str> = programs.iter().filter(lacks).map(|(_, p)| *p).collect();
        ensure!(
            missing.is_empty(),
            "missing: apt-get install {}",
            missing.join(" ")
        );
        let before = Snapshot::take()?;
        let dir = tempfile::Builder::new()
            .prefix("drydock-check-")
            .tempdir()
            .context("make a temporary directory")?;
        check::check::open_to_all(dir.path())?;
        let mut first = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--net",
                "--ipc",
                "--uts",
            ])
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                FIRST,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .context("run unshare")?;
        let mut line = String::new();
        let output = first.stdout.take().context("no standard output")?;
        BufReader::new(output)
            .read_line(&mut line)
            .context("read what the first process says")?;
        ensure!(line == "ready\n", "the namespaces cannot be made");
        let children = host::children(first.id() as i32)?;
        let pid = children.first().context("unshare has no child")?.pid;
        let name = dir
            .path()
            .file_name()
            .context("the directory has no name")?;
        let name = name.to_string_lossy().replace("drydock-check-", GROUP);
        Ok(Place {
            group: format!("/{}", name.to_lowercase()),
            dir,
            first,
            pid,
            daemons: Vec::new(),
            before: Some(before),
            hierarchies: hierarchies(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory, as a word of a command.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir().join(name).display().to_string()
    }

    /// A copy of the runtime that every user may execute.
    pub(crate) fn runtime(&self) -> Result<String> {
        let copy = self.dir().join("drydock-runtime");
        if !copy.exists() {
            let program = workspace::bin().join("drydock-runtime");
            fs::copy(&program, &copy)
                .with_context(|| format!("copy {program:?}: run ./just build first"))?;
        }
        Ok(copy.display().to_string())
    }

    /// An archive of busybox's root file system.
    pub(crate) fn rootfs(&self) -> Result<String> {
        let archive = self.dir().join("busybox.tar");
        if !archive.exists() {
            workspace::need_rootfs("busybox")?;
            let done = Command::new("tar")
                .arg("-C")
                .arg(workspace::rootfs("busybox"))
                .arg("-cf")
                .arg(&archive)
                .arg(".")
                .status()
                .context("run tar")?;
            ensure!(done.success(), "tar: {done}");
        }
        Ok(archive.display().to_string())
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--mount", "--net", "--ipc", "--uts", "--pid", "--"])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command in the namespaces, for three minutes at most.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Ended> {
        let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
        let limit = ["timeout", "--foreground", CALL_LIMIT].map(OsStr::new);
        let call: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let call = call.join(" ");
        let output = self
            .command(&[&limit[..], &words].concat())
            .output()
            .with_context(|| format!("run {call}"))?;
        Ok(Ended::of(&call, &output))
    }

    /// Starts a daemon, and waits for its socket.
    pub(crate) fn start(&mut self, name: &str, words: &[&str], socket: &Path) -> Result<()> {
        self.spawn(name, words)?;
        if soon(|| socket.exists().then_some(())).is_none() {
            bail!("{name} has no socket {socket:?}: {}", self.log(name)?);
        }
        Ok(())
    }

    /// Starts a dockerd without a bridge, and returns its address.
    pub(crate) fn dockerd(&mut self) -> Result<String> {
        let socket = self.dir().join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let [data, exec, pid] = ["data", "exec", "docker.pid"].map(|name| self.path(name));
        let group = self.group.clone();
        let words = [
            &["dockerd", "--host", &host, "--data-root", &data][..],
            &["--exec-root", &exec, "--pidfile", &pid],
            &["--cgroup-parent", &group, "--bridge", "none"],
            &["--iptables=false", "--default-ulimit", "nofile=1024:1024"],
        ];
        self.start("dockerd", &words.concat(), &socket)?;
        Ok(host)
    }

    /// Starts a daemon, and waits until it listens on a port of 127.0.0.1.
    pub(crate) fn start_listening(&mut self, name: &str, words: &[&str], port: u16) -> Result<()> {
        self.spawn(name, words)?;
        // proc_net(5): the address and the port in hexadecimal, and LISTEN.
        let socket = format!("0100007F:{port:04X} 00000000:0000 0A");
        let list = format!("/proc/{}/net/tcp", self.pid);
        let listens = || {
            fs::read_to_string(&list)
                .ok()?
                .contains(&socket)
                .then_some(())
        };
        if soon(listens).is_none() {
            bail!("{name} does not listen: {}", self.log(name)?);
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, words: &[&str]) -> Result<()> {
        let log = File::create(self.dir().join(format!("{name}.log"))).context("create a log")?;
        // On a host with systemd a daemon is in a group of its own. In the topmost one
        // dockerd finds no memory.swap.max on v2, and limits no swap.
        let group = self.daemons_group()?;
        let enter = r#"[ -z "$0" ] || echo $$ >"$0"/cgroup.procs; exec "$@""#;
        let enter = ["sh", "-c", enter, &group].map(OsStr::new);
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let child = self
            .command(&[&enter, &words[..]].concat())
            .stdout(log.try_clone().context("dup")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {name}"))?;
        self.daemons.push((name.to_owned(), child));
        Ok(())
    }

    /// The group of the daemons on v2, below the place's own; empty on v1.
    fn daemons_group(&self) -> Result<String> {
        let top = Path::new(HIERARCHIES);
        if !top.join("cgroup.controllers").exists() {
            return Ok(String::new());
        }
        let own = top.join(self.group.trim_start_matches('/'));
        let daemons = own.join("daemons");
        fs::create_dir_all(&daemons).with_context(|| format!("mkdir {daemons:?}"))?;
        fs::write(own.join("cgroup.subtree_control"), "+memory").context("+memory")?;
        Ok(daemons.display().to_string())
    }

    /// The last lines of a daemon's log.
    pub(crate) fn log(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.dir().join(format!("{name}.log"))).context("read")?;
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(8)..].join("\n"))
    }

    /// The groups of this place, in all hierarchies.
    fn groups(&self) -> Vec<PathBuf> {
        let name = self.group.trim_start_matches('/');
        let mut all = Vec::new();
        walk(&Path::new(HIERARCHIES).join(name), &mut all);
        for top in hierarchies() {
            walk(&top.join(name), &mut all);
        }
        all
    }

    /// Ends everything, and compares the host with what it was.
    pub(crate) fn end(mut self) -> Result<()> {
        let before = self.before.take();
        drop(self);
        let Some(before) = before else { return Ok(()) };
        let differences = before.settled_differences()?;
        ensure!(differences.is_empty(), "left: {}", differences.join("\n"));
        Ok(())
    }
}

/// Where the hierarchies are mounted.
const HIERARCHIES: &str = "/sys/fs/cgroup";

fn hierarchies() -> Vec<PathBuf> {
    let entries = fs::read_dir(HIERARCHIES).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Whether a directory is none of a hierarchy's, but was made beside them.
fn is_tmpfs(dir: &Path) -> bool {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type as u32 == TMPFS_MAGIC)
}

/// A directory with all below it, the deepest first.
fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), all);
        }
    }
    all.push(dir.to_owned());
}

impl Drop for Place {
    fn drop(&mut self) {
        // What fails here is found by the comparison of `end`.
        self.first.kill().ok();
        self.first.wait().ok();
        for (_, daemon) in &mut self.daemons {
            daemon.wait().ok();
        }
        soon(|| {
            for group in self.groups() {
                match is_tmpfs(&group) {
                    true => fs::remove_dir_all(group).ok(),
                    false => fs::remove_dir(group).ok(),
                };
            }
            self.groups().is_empty().then_some(())
        });
        let is_v1 = host::mounts("self").is_ok_and(|mounts| {
            let mut mounts = mounts.iter();
            mounts.any(|one| one.mount_point == HIERARCHIES && one.fstype == "tmpfs")
        });
        let new = hierarchies();
        for made in new
            .iter()
            .filter(|dir| is_v1 && !self.hierarchies.contains(dir))
        {
            fs::remove_dir(made).ok();
        }
    }
}

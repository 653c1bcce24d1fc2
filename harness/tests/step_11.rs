//! Checks of step 11: an OCI runtime.

#[path = "step_11/config.rs"]
mod config;
#[path = "step_11/place.rs"]
mod place;
#[path = "step_09/screen.rs"]
mod screen;
#[path = "step_11/systemd.rs"]
mod systemd;

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use check::prelude::*;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A runtime with a directory of states and a bundle of its own. Whatever is
/// created is deleted at the end.
struct Runtime<'a> {
    c: &'a Check,
    root: PathBuf,
    bundle: PathBuf,
    group: String,
    created: RefCell<Vec<String>>,
}

impl<'a> Runtime<'a> {
    fn new(c: &'a Check) -> Result<Self> {
        let bundle = c.dir().join(c.word("bundle"));
        fs::create_dir(&bundle).context("mkdir")?;
        fs::rename(c.rootfs()?, bundle.join("rootfs")).context("rename")?;
        Ok(Runtime {
            c,
            root: c.dir().join(c.word("state")),
            bundle,
            group: format!("drydock-{}", c.word("group")),
            created: RefCell::default(),
        })
    }

    fn call(&self, words: &[&str]) -> Step {
        let root = self.root.display().to_string();
        self.c.step().args(["--root", &root]).args(words)
    }

    /// Writes a configuration in which `sh -c SCRIPT` runs, changed by `edit`.
    fn configure(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
        let kinds = ["pid", "ipc", "uts", "mount", "network", "cgroup"];
        let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin:/sbin"],
                "cwd": "/",
                "capabilities": {"bounding": all, "effective": all, "permitted": all},
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=64k"]},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{}/c", self.group)},
        });
        edit(&mut config);
        fs::write(self.bundle.join("config.json"), config.to_string()).context("write config.json")
    }

    /// `create`, with the output in a file: the container keeps it open.
    fn create(&self, id: &str) -> Result<Created> {
        self.create_with(&[], id)
    }

    /// `create` with further options of the program.
    fn create_with(&self, globals: &[&str], id: &str) -> Result<Created> {
        self.created.borrow_mut().push(id.to_owned());
        let bundle = self.bundle.display().to_string();
        let pid_file = self.c.dir().join(format!("{id}.pid"));
        let pid_file = pid_file.display().to_string();
        let words = [
            globals,
            &["create", "--bundle", &bundle, "--pid-file", &pid_file, id],
        ]
        .concat();
        let output = self.c.dir().join(self.c.word("output"));
        let file = File::create(&output).context("create a file")?;
        let status = self
            .call(&words)
            .command()
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone().context("dup")?)
            .stderr(file)
            .status()
            .context("run the runtime")?;
        let pid = fs::read_to_string(&pid_file).ok();
        Ok(Created {
            status: status.code().unwrap_or(-1),
            pid: pid.and_then(|pid| pid.parse().ok()).unwrap_or(0),
            output,
        })
    }

    /// Creates and starts a container.
    fn start(&self, id: &str) -> Result<Created> {
        let created = self.create(id)?.success()?;
        self.call(&["start", id]).run()?.success()?;
        Ok(created)
    }

    fn state(&self, id: &str) -> Result<Value> {
        self.call(&["state", id]).run()?.success()?.json()
    }

    fn expect_state(&self, id: &str, status: &str) -> Result<()> {
        let found = self.state(id)?;
        expect_eq("the status", found["status"].as_str().unwrap_or(""), status)
    }

    /// Deletes the last container, and expects nothing to be left.
    fn end(&self, id: &str) -> Result<()> {
        self.call(&["delete", "--force", id]).run()?.success()?;
        reap();
        self.expect_nothing_left()
    }

    /// The states on disk, and the group, after everything is deleted.
    fn expect_nothing_left(&self) -> Result<()> {
        let left: Vec<String> = match fs::read_dir(&self.root) {
            Ok(entries) => entries
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .filter(|name| !name.starts_with('.'))
                .collect(),
            Err(_) => Vec::new(),
        };
        expect_eq("the directories of states", left, Vec::<String>::new())?;
        let groups = self.groups();
        expect(
            groups.is_empty(),
            "no control group left",
            format!("{groups:?}"),
        )
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mounts = host::mounts("self").unwrap_or_default();
        mounts
            .iter()
            .filter(|mount| mount.fstype.starts_with("cgroup"))
            .map(|mount| Path::new(&mount.mount_point).join(&self.group))
            .filter(|group| group.exists())
            .collect()
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        for id in self.created.borrow().iter() {
            // Whatever the check has found counts more.
            drop(self.call(&["delete", "--force", id]).run());
        }
        reap();
    }
}

/// Reaps the first processes of ended containers: the check is their subreaper,
/// as an engine's monitor is.
fn reap() {
    let none = WaitPidFlag::WNOHANG;
    while matches!(waitpid(None, Some(none)), Ok(status) if status != WaitStatus::StillAlive) {}
}

/// What `create` has left.
struct Created {
    status: i32,
    pid: i32,
    output: PathBuf,
}

impl Created {
    fn said(&self) -> Result<String> {
        fs::read_to_string(&self.output).context("read the output")
    }

    fn success(self) -> Result<Self> {
        let said = self.said()?;
        expect(
            self.status == 0,
            "create to succeed",
            format!("status {}: {said}", self.status),
        )?;
        Ok(self)
    }

    /// Expects that nothing was created, and this in one line.
    fn refused(self, words: &[&str]) -> Result<()> {
        let said = self.said()?;
        let lines = said.lines().count();
        expect(
            self.status == 1 && lines == 1 && words.iter().all(|word| said.contains(word)),
            format!("create to fail with status 1 and a line with {words:?}"),
            format!("status {}: {said}", self.status),
        )
    }

    /// Waits until the output has a line that begins with `word`, and returns
    /// the rest of that line.
    fn line(&self, word: &str) -> Result<String> {
        let found = wait_for(|| {
            let said = self.said().ok()?;
            let mut lines = said.lines();
            let line = lines.find_map(|line| line.strip_prefix(word))?;
            Some(line.trim().to_owned())
        });
        match found {
            Some(line) => Ok(line),
            None => Err(failed(
                format!("a line {word:?} from the container"),
                self.said()?,
            )),
        }
    }
}

const LOOP: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait $!; done";

#[test]
fn a_created_container_waits_for_its_start() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure("touch /started; echo $$; exec sleep 1000", |_| {})?;
        let created = runtime.create("one")?.success()?;
        runtime.expect_state("one", "created")?;
        let process = host::process(created.pid);
        let parent = process.map(|process| process.ppid);
        expect_eq(
            "the parent of the process in --pid-file",
            parent,
            Some(Pid::this().as_raw()),
        )?;
        let marker = runtime.bundle.join("rootfs/started");
        expect(
            !marker.exists(),
            "the command to wait for start",
            "it has run already",
        )?;
        let hostname = fs::read_to_string(format!("/proc/{}/root/etc/hostname", created.pid));
        expect(
            hostname.is_ok(),
            "the container's root in place before the start",
            "the process has another root",
        )?;
        runtime.call(&["start", "one"]).run()?.success()?;
        let started = wait_for(|| marker.exists().then_some(()));
        expect(
            started.is_some(),
            "the command to run after start",
            "it does not",
        )?;
        runtime
            .call(&["start", "one"])
            .run()?
            .expect_error(1, &["already running"])?;
        runtime.create("one")?.refused(&["exists"])?;
        runtime.end("one")
    });
}

#[test]
fn a_missing_command_is_an_error_of_create() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let log = c.dir().join("log.json");
        for (command, words) in [
            ("nosuch", "executable file not found in $PATH"),
            ("/no/such", "no such file or directory"),
            ("/etc", "permission denied"),
        ] {
            runtime.configure("", |config| config["process"]["args"] = json!([command]))?;
            let path = log.display().to_string();
            runtime
                .create_with(&["--log", &path, "--log-format", "json"], "x")?
                .refused(&[words])?;
            let entries = fs::read_to_string(&log).context("read the log")?;
            let last = entries.lines().last().unwrap_or_default();
            let last: Value = serde_json::from_str(last).unwrap_or_default();
            expect(
                last["level"] == "error"
                    && last["msg"]
                        .as_str()
                        .is_some_and(|said| said.contains(words)),
                format!("{words:?} as the last error of the log"),
                last.to_string(),
            )?;
            runtime.expect_nothing_left()?;
        }
        Ok(())
    });
}

#[test]
fn the_state_is_what_the_kernel_says() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure(LOOP, |config| {
            config["annotations"] = json!({"org.example.word": "x"});
        })?;
        let one = runtime.start("one")?;
        one.line("up")?;
        runtime.expect_state("one", "running")?;
        let state = runtime.state("one")?;
        expect_eq("the pid", state["pid"].as_i64(), Some(i64::from(one.pid)))?;
        expect_eq(
            "the annotation",
            state["annotations"]["org.example.word"].as_str(),
            Some("x"),
        )?;
        runtime.call(&["pause", "one"]).run()?.success()?;
        runtime.expect_state("one", "paused")?;
        runtime
            .call(&["exec", "one", "true"])
            .run()?
            .expect_error(255, &["paused"])?;
        runtime.call(&["resume", "one"]).run()?.success()?;
        runtime
            .call(&["delete", "one"])
            .run()?
            .expect_error(1, &["not stopped"])?;
        // By nobody's order.
        kill(Pid::from_raw(one.pid), Signal::SIGKILL).context("kill")?;
        let stopped = wait_for(|| {
            reap();
            let state = runtime.state("one").ok()?;
            (state["status"] == "stopped").then_some(())
        });
        expect(
            stopped.is_some(),
            "the status stopped after the death of the first process",
            "another: the status is remembered instead of asked for",
        )?;
        runtime
            .call(&["kill", "one", "TERM"])
            .run()?
            .expect_error(1, &["not running"])?;
        runtime.call(&["delete", "one"]).run()?.success()?;
        runtime
            .call(&["state", "one"])
            .run()?
            .expect_error(1, &["does not exist"])?;
        runtime.expect_nothing_left()?;
        // Its group has the last of its accounts.
        runtime.configure("exit 7", |_| {})?;
        runtime.created.borrow_mut().push("kept".to_owned());
        let bundle = runtime.bundle.display().to_string();
        runtime
            .call(&["run", "--keep", "--bundle", &bundle, "kept"])
            .run()?
            .expect_status(7)?;
        runtime.expect_state("kept", "stopped")?;
        expect(
            !runtime.groups().is_empty(),
            "the control group of a container that is kept",
            "none",
        )?;
        runtime.call(&["delete", "kept"]).run()?.success()?;
        runtime.expect_nothing_left()
    });
}

#[test]
fn what_is_contradictory_is_refused_before_anything_is_made() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        type Edit = fn(&mut Value);
        let cases: [(&str, Edit); 12] = [
            ("ociVersion", |config| config["ociVersion"] = json!("2.0.0")),
            ("process.user.uid", |config| {
                config["process"]["user"]["uid"] = json!("root");
            }),
            ("cwd", |config| config["process"]["cwd"] = json!("tmp")),
            ("is there twice", |config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "mount"}]);
            }),
            ("unknown variant", |config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "mnt"}]);
            }),
            ("would rename the host", |config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}]);
            }),
            ("uidMappings", |config| {
                config["linux"]["uidMappings"] =
                    json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            }),
            ("..", |config| {
                config["mounts"] = json!([{"destination": "/a/../../b", "type": "tmpfs"}]);
            }),
            ("rlimits", |config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]);
            }),
            ("cgroupsPath", |config| {
                config["linux"]["cgroupsPath"] = json!("/../..");
            }),
            ("memory.swap", |config| {
                config["linux"]["resources"] =
                    json!({"memory": {"limit": 10_000_000, "swap": 1_000_000}});
            }),
            ("seccomp", |config| {
                config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_PERHAPS"});
            }),
        ];
        for (words, edit) in cases {
            runtime.configure("true", edit)?;
            runtime.create("x")?.refused(&[words])?;
            runtime.expect_nothing_left()?;
        }
        // An unknown property is no error (config.md “Extensibility”).
        runtime.configure("true", |config| {
            config["linux"]["novelty"] = json!({"a": 1})
        })?;
        runtime
            .call(&[
                "run",
                "--bundle",
                &runtime.bundle.display().to_string(),
                "x",
            ])
            .run()?
            .success()?;
        runtime.expect_nothing_left()?;
        // The group of another container: what is refused ends nobody's processes.
        runtime.configure(LOOP, |_| {})?;
        let one = runtime.start("one")?;
        one.line("up")?;
        runtime.create("two")?.refused(&["not empty"])?;
        let bundle = runtime.bundle.display().to_string();
        runtime
            .call(&["run", "--bundle", &bundle, "three"])
            .run()?
            .expect_error(1, &["not empty"])?;
        let state = runtime.state("one")?;
        expect(
            state["status"] == "running",
            "a container to live on whose group another one is refused",
            format!(
                "{}: it was ended as if the group were the other's",
                state["status"]
            ),
        )?;
        runtime.end("one")
    });
}

#[test]
fn a_create_that_is_killed_can_be_deleted() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure(LOOP, |_| {})?;
        let bundle = runtime.bundle.display().to_string();
        let state = runtime.root.display().to_string();
        let record = || Point::after("rename").about("state.json");
        for (what, point) in [
            (
                "its directory was made",
                Point::after("mkdir").about(format!("{state}/x")),
            ),
            (
                "its record was written",
                Point::before("rename").about("state.json"),
            ),
            ("its record was there", record()),
            (
                "its first group was made",
                Point::after("mkdir").about(&runtime.group),
            ),
            ("its process was there", Point::after("clone3")),
            ("its process was recorded", record().nth(2)),
        ] {
            let create = runtime.call(&["create", "--bundle", &bundle, "x"]);
            create.stop(point)?.kill()?;
            // What nobody has recorded is no container.
            runtime
                .call(&["delete", "--force", "x"])
                .run()?
                .success()
                .with_context(|| format!("killed when {what}"))?;
            reap();
            runtime
                .expect_nothing_left()
                .with_context(|| format!("killed when {what}"))?;
            // The name is free.
            runtime.create("x")?.success()?;
            runtime.call(&["delete", "x"]).run()?.success()?;
            reap();
        }
        // So can one whose delete was killed.
        for point in [
            Point::before("unlink").about("config.json"),
            Point::after("unlink").about("config.json"),
            Point::after("unlink").about("state.json"),
        ] {
            runtime.create("x")?.success()?;
            let delete = runtime.call(&["delete", "x"]);
            delete.stop(point.clone())?.kill()?;
            runtime.call(&["list"]).run()?.success()?;
            runtime
                .call(&["delete", "--force", "x"])
                .run()?
                .success()
                .with_context(|| format!("delete killed at {point:?}"))?;
            reap();
        }
        runtime.expect_nothing_left()
    });
}

#[test]
fn mounts_stay_inside_and_in_their_order() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let rootfs = runtime.bundle.join("rootfs");
        let outside = c.dir().join("outside");
        fs::create_dir_all(outside.join("x")).context("mkdir")?;
        // What the image's links lead to is inside.
        symlink(&outside, rootfs.join("data")).context("symlink")?;
        symlink("../../../../../../..", rootfs.join("up")).context("symlink")?;
        let script = "mount | sed -n 's/^[^ ]* on \\(.*\\) type.*/at \\1/p'; cat /srv/a/word; \
                      touch /srv/a/b/x /ro/x /proc/sys/kernel/x; head -c1 /proc/kcore | wc -c; \
                      echo done";
        let word = c.word("word");
        let source = c.dir().join("source");
        fs::create_dir_all(source.join("b")).context("mkdir")?;
        fs::write(source.join("word"), format!("word {word}\n")).context("write")?;
        let from = source.display().to_string();
        runtime.configure(script, |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.extend([
                    json!({"destination": "/data/x", "type": "tmpfs", "source": "tmpfs"}),
                    json!({"destination": "/up/y", "type": "tmpfs", "source": "tmpfs"}),
                    json!({"destination": "/srv/a", "type": "bind", "source": from,
                           "options": ["rbind", "ro"]}),
                    json!({"destination": "/srv/a/b", "type": "tmpfs", "source": "tmpfs"}),
                    json!({"destination": "/ro", "type": "tmpfs", "source": "tmpfs",
                           "options": ["ro"]}),
                ]);
            }
            config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/no/such"]);
            config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        })?;
        let one = runtime.start("one")?;
        one.line("done")?;
        let said = one.said()?;
        for line in [
            &format!("at {}/x", outside.display()),
            // `up` is the root itself.
            "at /y",
            "at /srv/a",
            "at /srv/a/b",
            &format!("word {word}"),
        ] {
            expect(
                said.lines().any(|found| found == line),
                format!("the line {line:?}"),
                &said,
            )?;
        }
        expect(
            !said.contains("/srv/a/b/x") && said.contains("/ro/x: Read-only file system"),
            "the tmpfs on the read-only bind to be writable, and /ro not",
            &said,
        )?;
        // The next ones are in the same group.
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        // Nothing but some files of /proc may be covered.
        runtime.configure("true", |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(json!({"destination": "/proc/self/attr", "type": "tmpfs",
                                   "source": "tmpfs"}));
            }
        })?;
        runtime.create("two")?.refused(&["/proc"])?;
        // Who may not reach them there: root of a user namespace. The caller may.
        let mut mounts = Vec::new();
        for name in ["p", "q"] {
            let closed = c.dir().join(name);
            fs::create_dir_all(closed.join("dir")).context("mkdir")?;
            fs::create_dir_all(rootfs.join("srv").join(name)).context("mkdir")?;
            fs::write(closed.join("dir/word"), format!("{name} {word}\n")).context("write")?;
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).context("chmod")?;
            mounts.push(
                json!({"destination": format!("/srv/{name}"), "type": "bind",
                               "source": closed.join("dir"), "options": ["bind"]}),
            );
        }
        check::check::open_to_all(&runtime.bundle)?;
        runtime.configure("cat /srv/p/word /srv/q/word; echo done", |config| {
            let range = json!([{"containerID": 0, "hostID": 200_000, "size": 10_000}]);
            config["linux"]["uidMappings"] = range.clone();
            config["linux"]["gidMappings"] = range;
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.push(json!({"type": "user"}));
            }
            if let Some(all) = config["mounts"].as_array_mut() {
                all.append(&mut mounts);
            }
        })?;
        let three = runtime.start("three")?;
        three.line("done")?;
        expect_eq(
            "what root of a user namespace reads below directories that are closed to it",
            three.said()?.as_str(),
            format!("p {word}\nq {word}\ndone\n").as_str(),
        )
    });
}

#[test]
fn exec_joins_the_container_and_opens_no_way_out() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let rootfs = runtime.bundle.join("rootfs");
        fs::write(rootfs.join("trap"), "#!/proc/self/exe\n").context("write")?;
        fs::set_permissions(rootfs.join("trap"), fs::Permissions::from_mode(0o755))
            .context("chmod")?;
        symlink("/proc/self/exe", rootfs.join("link")).context("symlink")?;
        runtime.configure(LOOP, |config| {
            config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_PTRACE", "CAP_KILL"]);
            config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_PTRACE"]);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
            });
        })?;
        let one = runtime.start("one")?;
        one.line("up")?;
        let script = "for kind in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$kind; \
                      done; for fd in /proc/self/fd/*; do readlink $fd | sed 's/^/fd /'; done; \
                      grep -E '^(CapBnd|Seccomp):' /proc/self/status; \
                      [ \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" ] && echo one group; \
                      exit 7";
        let ran = runtime
            .call(&["exec", "one", "/bin/sh", "-c", script])
            .run()?;
        expect(
            ran.status == 7,
            "exec to run a further process: in the group, then in its cgroup namespace",
            format!("status {}: {}", ran.status, ran.stderr.trim()),
        )?;
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
            let link = fs::read_link(format!("/proc/{}/ns/{kind}", one.pid)).context("readlink")?;
            let link = link.display().to_string();
            expect(
                ran.stdout.lines().any(|line| line == link),
                format!("the {kind} namespace of the container, {link}"),
                &ran.stdout,
            )?;
        }
        // Namespaces are a view; these are the walls.
        for (wall, line) in [
            ("the capabilities", "CapBnd:\t0000000000080020"),
            ("the filter", "Seccomp:\t2"),
            ("the control group", "one group"),
        ] {
            expect(
                ran.stdout.lines().any(|found| found == line),
                format!("{wall} of the container, {line:?}, for the further process"),
                &ran.stdout,
            )?;
        }
        // A group below the container's, and none above or beside it.
        for group in runtime.groups() {
            let (own, below) = (group.join("c"), group.join("c/below"));
            if !own.exists() {
                continue;
            }
            fs::create_dir(&below).with_context(|| format!("mkdir {below:?}"))?;
            // On v1 a new group has no processors and no memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if below.join(file).exists() && below.join("tasks").exists() {
                    let all = fs::read_to_string(own.join(file)).context("read")?;
                    fs::write(below.join(file), all).context("write")?;
                }
            }
        }
        let words = [
            "exec",
            "--cgroup",
            "below",
            "one",
            "cat",
            "/proc/self/cgroup",
        ];
        let groups = runtime.call(&words).run()?.success()?.stdout;
        expect(
            groups.lines().any(|line| line.ends_with(":/below")),
            "the further process in the group below the container's",
            &groups,
        )?;
        for (group, word) in [
            ("..", "sub cgroup"),
            ("a/../..", "sub cgroup"),
            ("none", "none"),
        ] {
            runtime
                .call(&["exec", "--cgroup", group, "one", "true"])
                .run()?
                .expect_error(255, &[word])?;
        }
        let strange: Vec<&str> = ran
            .stdout
            .lines()
            .filter(|line| line.starts_with("fd /") && !line.starts_with("fd /dev"))
            .filter(|line| !line.starts_with("fd /proc"))
            .collect();
        expect_eq("descriptors of the host", strange, Vec::new())?;
        for cwd in ["/proc/self/fd/3", "/proc/self/fd/5", "/proc/self/cwd/../.."] {
            let ran = runtime.call(&["exec", "--cwd", cwd, "one", "pwd"]).run()?;
            expect(
                ran.status == 255 || ran.stdout.trim() == "/",
                format!("the working directory {cwd} refused"),
                format!("{}: {}", ran.status, ran.stdout),
            )?;
        }
        for program in ["/trap", "/link", "/proc/self/exe"] {
            let ran = runtime.call(&["exec", "one", program, "--version"]).run()?;
            expect(
                ran.status == 255 && ran.stdout.is_empty(),
                format!("{program}, which leads to the runtime itself, not to be executed"),
                format!("{}: {}", ran.status, ran.stdout),
            )?;
        }
        // The container may look into others: what enters it is a copy.
        let word = rootfs.join("entered");
        let mut launcher = runtime
            .call(&["exec", "one", "/bin/sh", "-c", "touch /entered; read x"])
            .command()
            .stdin(std::process::Stdio::piped())
            .spawn()
            .context("run exec")?;
        let entered = wait_for(|| word.exists().then_some(()));
        let program = fs::read_link(format!("/proc/{}/exe", launcher.id())).context("readlink")?;
        // Its standard input ends.
        drop(launcher.stdin.take());
        wait_or_kill(&mut launcher)?;
        expect(
            entered.is_some() && program.display().to_string().contains("memfd:"),
            "a sealed copy of the runtime to enter a container with CAP_SYS_PTRACE",
            "its program, which is a file of the host",
        )?;
        Ok(())
    });
}

#[test]
fn hooks_run_at_their_points_with_the_state() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let notes = c.dir().join("notes");
        let hook = c.dir().join("hook");
        let text = format!(
            "#!/bin/sh\nstate=$(cat)\nstatus=${{state#*status\\\":\\\"}}\n\
             echo \"$1 ${{status%%\\\"*}} $(test -d {}/rootfs && echo host)\" >> {}\n",
            runtime.bundle.display(),
            notes.display()
        );
        fs::write(&hook, text).context("write")?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).context("chmod")?;
        let one = |word: &str| json!([{"path": hook, "args": ["hook", word]}]);
        let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo $$ > /hook-was-here"],
                             "env": ["PATH=/bin"]}]);
        runtime.configure(LOOP, |config| {
            config["hooks"] = json!({
                "prestart": one("prestart"),
                "createRuntime": one("createRuntime"),
                "createContainer": one("createContainer"),
                "startContainer": inside,
                "poststart": one("poststart"),
                "poststop": one("poststop"),
            });
        })?;
        let noted = || -> Result<Vec<String>> {
            let text = fs::read_to_string(&notes).context("read the notes")?;
            Ok(text.lines().map(|line| line.trim().to_owned()).collect())
        };
        runtime.create("one")?.success()?;
        let mut expected = [
            "prestart creating host",
            "createRuntime creating host",
            "createContainer creating host",
        ]
        .map(String::from)
        .to_vec();
        expect_eq("the hooks of create", noted()?, expected.clone())?;
        runtime.call(&["start", "one"]).run()?.success()?;
        expected.push("poststart running host".to_owned());
        expect_eq("the hooks of start", noted()?, expected.clone())?;
        expect(
            runtime.bundle.join("rootfs/hook-was-here").exists(),
            "startContainer to run in the container",
            "it did not",
        )?;
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        expected.push("poststop stopped host".to_owned());
        expect_eq("the hooks of delete", noted()?, expected)?;
        // One that fails ends the creation, with its words.
        let bad = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
        runtime.configure(LOOP, |config| {
            config["hooks"] = json!({"createRuntime": bad})
        })?;
        runtime
            .create("two")?
            .refused(&["createRuntime", "because"])?;
        runtime.expect_nothing_left()
    });
}

#[test]
fn limits_and_identity_are_those_of_the_configuration() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let script = "grep -E '^(Cap|NoNew|Seccomp:|Uid|Groups)' /proc/self/status; umask; \
                      ulimit -n; cat /proc/self/oom_score_adj; mkdir /x 2>&1; echo done; \
                      exec sleep 1000";
        runtime.configure(script, |config| {
            config["process"]["user"] =
                json!({"uid": 7, "gid": 8, "additionalGids": [9], "umask": 63});
            config["process"]["noNewPrivileges"] = json!(true);
            config["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]);
            config["process"]["oomScoreAdj"] = json!(321);
            config["process"]["capabilities"] = json!({
                "bounding": ["CAP_KILL", "CAP_CHOWN"],
                "inheritable": ["CAP_KILL"],
                "permitted": ["CAP_KILL"],
                "effective": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            });
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                              "errnoRet": 38}],
            });
            config["linux"]["resources"] = json!({"pids": {"limit": 33}});
        })?;
        let one = runtime.start("one")?;
        one.line("done")?;
        let said = one.said()?;
        for line in [
            "CapInh:\t0000000000000020",
            "CapPrm:\t0000000000000020",
            "CapEff:\t0000000000000020",
            "CapBnd:\t0000000000000021",
            "CapAmb:\t0000000000000020",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "Uid:\t7\t7\t7\t7",
            "0077",
            "50",
            "321",
        ] {
            expect(
                said.lines().any(|found| found == line),
                format!("the line {line:?}"),
                &said,
            )?;
        }
        let groups = said.lines().find_map(|line| line.strip_prefix("Groups:"));
        expect_eq("the groups", groups.map(str::trim), Some("9"))?;
        expect(
            said.contains("Function not implemented"),
            "mkdir refused by the filter",
            &said,
        )?;
        let limit = |name: &str| {
            let groups = runtime.groups();
            let mut files = groups.iter().map(|group| group.join("c").join(name));
            files.find_map(|file| fs::read_to_string(file).ok())
        };
        expect_eq(
            "pids.max of the group",
            limit("pids.max").as_deref().map(str::trim),
            Some("33"),
        )?;
        runtime
            .call(&["update", "--resources", "-", "one"])
            .stdin(r#"{"pids":{"limit":44}}"#)
            .run()?
            .success()?;
        expect_eq(
            "pids.max after the update",
            limit("pids.max").as_deref().map(str::trim),
            Some("44"),
        )?;
        let listed: Vec<i32> = runtime
            .call(&["ps", "--format", "json", "one"])
            .run()?
            .success()?
            .json()?;
        expect(
            listed.contains(&one.pid),
            format!("process {} among those of ps", one.pid),
            format!("{listed:?}"),
        )?;
        kill(Pid::from_raw(one.pid), None::<Signal>)
            .or_else(|errno| match errno {
                Errno::ESRCH => Err(Errno::ESRCH),
                _ => Ok(()),
            })
            .context("the container has ended")
    });
}

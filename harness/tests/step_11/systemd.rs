//! Groups that systemd makes: on a system of its own, in a container.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use check::prelude::*;
use check::workspace;
use serde_json::{Value, json};

use crate::{Runtime, reap};

/// A container in which systemd is the first process. The runtime under test is
/// in /media, and a bundle in /mnt.
struct System<'a> {
    runtime: Runtime<'a>,
    /// The name of the program in /media.
    program: String,
}

impl<'a> System<'a> {
    fn start(c: &'a Check) -> Result<Self> {
        let runtime = Runtime::new(c)?;
        let inner = runtime.bundle.with_file_name("inner");
        fs::create_dir(&inner).context("mkdir")?;
        fs::rename(runtime.bundle.join("rootfs"), inner.join("rootfs")).context("rename")?;
        let program = c.step().command().get_program().to_owned();
        let programs = std::path::Path::new(&program).parent();
        let programs = programs.context("the program has no directory")?.to_owned();
        let name = std::path::Path::new(&program).file_name();
        let name = name.unwrap_or_default().to_string_lossy();
        let program = format!("/media/{name}");
        let features: Value = runtime.call(&["features"]).run()?.success()?.json()?;
        // Some machines lack this one, which would be said at each call.
        let names = features["linux"]["capabilities"].as_array();
        let all: Vec<&Value> = names
            .into_iter()
            .flatten()
            .filter(|name| *name != "CAP_SYS_RESOURCE")
            .collect();
        let tmpfs = |path: &str, option: &str| {
            json!({"destination": path, "type": "tmpfs", "source": "tmpfs",
                   "options": ["mode=755", option]})
        };
        runtime.configure("", |config| {
            config["process"] = json!({
                "user": {"uid": 0, "gid": 0},
                "args": ["/lib/systemd/systemd", "--unit=basic.target"],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=drydock"],
                "cwd": "/",
                "capabilities": {"bounding": all, "effective": all, "permitted": all},
            });
            config["root"] = json!({"path": workspace::rootfs("systemd"), "readonly": true});
            config["mounts"] = json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                tmpfs("/dev", "nosuid"),
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
                tmpfs("/run", "nodev"),
                tmpfs("/tmp", "nodev"),
                tmpfs("/etc", "tmpcopyup"),
                tmpfs("/var", "tmpcopyup"),
                {"destination": "/media", "type": "bind", "source": programs,
                 "options": ["rbind", "ro"]},
                {"destination": "/mnt", "type": "bind", "source": inner, "options": ["rbind"]},
            ]);
            config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
        })?;
        runtime.start("outer")?;
        let system = System { runtime, program };
        let up = wait_for(|| {
            let ran = system
                .inside(&["systemctl", "is-active", "dbus.socket"])
                .ok()?;
            (ran.status == 0).then_some(())
        });
        expect(
            up.is_some(),
            "systemd to come up in a container",
            "it does not",
        )?;
        Ok(system)
    }

    fn inside(&self, words: &[&str]) -> Result<Ran> {
        self.runtime
            .call(&[&["exec", "outer"], words].concat())
            .run()
    }

    /// The runtime, in the system.
    fn call(&self, words: &[&str]) -> Result<Ran> {
        let program = [&self.program, "--root", "/run/rt", "--systemd-cgroup"];
        self.inside(&[&program, words].concat())
    }

    fn configure(&self, path: &str, limits: Value) -> Result<()> {
        let file = self
            .runtime
            .bundle
            .with_file_name("inner")
            .join("config.json");
        let kinds = ["pid", "ipc", "uts", "mount", "network"];
        let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"args": ["/bin/sleep", "1000"], "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": path, "resources": limits},
        });
        fs::write(&file, config.to_string()).context("write config.json")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).context("chmod")
    }

    /// A property of the scope, as systemd says.
    fn property(&self, name: &str) -> Result<String> {
        let unit = "pre-one.scope";
        let ran = self.inside(&["systemctl", "show", "--value", "-p", name, unit])?;
        Ok(ran.success()?.stdout.trim().to_owned())
    }

    /// `create`, whose output is not waited for: the container keeps it open.
    fn create(&self) -> Result<Ran> {
        let script = format!(
            "{} --root /run/rt --systemd-cgroup create --bundle /mnt one < /dev/null \
             > /run/said 2>&1; status=$?; cat /run/said >&2; exit $status",
            self.program
        );
        self.inside(&["sh", "-c", &script])
    }
}

#[test]
fn systemd_makes_the_group() {
    check(|c| {
        let system = System::start(c)?;
        let limits = json!({"pids": {"limit": 33}, "memory": {"limit": 64 << 20}});
        system.configure("a-b.slice:pre:one", limits)?;
        system.create()?.success()?;
        system.call(&["start", "one"])?.success()?;
        for (name, value) in [
            ("ActiveState", "active"),
            ("Slice", "a-b.slice"),
            ("Delegate", "yes"),
            ("TasksMax", "33"),
        ] {
            expect_eq(name, system.property(name)?.as_str(), value)?;
        }
        let state: Value = system.call(&["state", "one"])?.success()?.json()?;
        let group = format!("/proc/{}/cgroup", state["pid"]);
        let group = system.inside(&["cat", &group])?.success()?.stdout;
        expect(
            group
                .lines()
                .any(|line| line.ends_with(":/a.slice/a-b.slice/pre-one.scope")),
            "the container in the group of its scope",
            &group,
        )?;
        let listed: Vec<i64> = system
            .call(&["ps", "--format", "json", "one"])?
            .success()?
            .json()?;
        expect_eq(
            "the processes: nobody holds a place any more",
            listed.len(),
            1,
        )?;
        // systemd would restore what it knows.
        system
            .call(&["update", "--pids-limit", "44", "one"])?
            .success()?;
        system.inside(&["systemctl", "daemon-reload"])?.success()?;
        expect_eq(
            "TasksMax after an update",
            system.property("TasksMax")?.as_str(),
            "44",
        )?;
        // Nor would the rules for devices outlast a reload if it did not know
        // them.
        expect_eq(
            "DevicePolicy",
            system.property("DevicePolicy")?.as_str(),
            "strict",
        )?;
        let allowed = system.property("DeviceAllow")?;
        expect(
            allowed.contains("/dev/char/1:3 rwm") && !allowed.contains("1:11"),
            "DeviceAllow with /dev/null, and without /dev/kmsg",
            &allowed,
        )?;
        let lists = "cat $(find /sys/fs/cgroup -path '*pre-one.scope/devices.list')";
        let list = system.inside(&["sh", "-c", lists])?.stdout;
        expect(
            !list.contains("a *:* rwm"),
            "rules for devices after a reload",
            &list,
        )?;
        system.call(&["delete", "--force", "one"])?.success()?;
        expect_eq(
            "ActiveState after delete",
            system.property("ActiveState")?.as_str(),
            "inactive",
        )?;
        let left = system.inside(&["find", "/sys/fs/cgroup", "-name", "pre-one*"])?;
        expect_eq("groups left", left.stdout.as_str(), "")?;
        // A launch that fails leaves no scope.
        system.configure("a-b.slice:pre:one", json!({"unified": {"no.such": "1"}}))?;
        system.create()?.expect_status(1)?;
        expect_eq(
            "ActiveState after a failure",
            system.property("ActiveState")?.as_str(),
            "inactive",
        )?;
        for path in ["/a/b", "a:b:c", "a.slice:../b:c"] {
            system.configure(path, json!({}))?;
            system.create()?.expect_error(1, &["linux.cgroupsPath"])?;
        }
        let runtime = &system.runtime;
        runtime
            .call(&["delete", "--force", "outer"])
            .run()?
            .success()?;
        reap();
        if !fs::exists("/run/systemd/system").unwrap_or(false) {
            let bundle = runtime.bundle.display().to_string();
            runtime
                .call(&["--systemd-cgroup", "create", "--bundle", &bundle, "two"])
                .run()?
                .expect_error(1, &["systemd does not run on this host"])?;
        }
        runtime.expect_nothing_left()
    });
}

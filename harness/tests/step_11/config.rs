//! What a configuration may ask for besides the ordinary.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use check::agent::Agent;
use check::prelude::*;
use check::rtnl;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

use crate::screen::Screen;
use crate::{LOOP, Runtime, reap};

#[test]
fn a_terminal_without_a_console_socket_is_the_callers() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let bundle = runtime.bundle.display().to_string();
        let terminal = |script: &str| {
            runtime.configure(script, |config| {
                config["process"]["terminal"] = json!(true);
                // The window's own size counts.
                config["process"]["consoleSize"] = json!({"height": 5, "width": 6});
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    mounts.push(json!({"destination": "/dev/pts", "type": "devpts",
                        "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
                }
            })
        };
        terminal("tty; stty size; echo ready; read x; stty size; echo again; read x; exit 7")?;
        // Nobody would relay for a runtime that ends.
        for words in [
            ["create", "--bundle", &bundle, "one"].as_slice(),
            &["run", "--detach", "--bundle", &bundle, "one"],
        ] {
            runtime
                .call(words)
                .run()?
                .expect_error(1, &["console", "socket"])?;
            runtime.expect_nothing_left()?;
        }
        let mut screen = Screen::start(&runtime.call(&["run", "--bundle", &bundle, "one"]))?;
        screen.until("/dev/pts/0")?;
        screen.until("33 101")?;
        screen.until("ready")?;
        expect(
            !screen.is_cooked()?,
            "the caller's terminal to be raw meanwhile",
            "it still turning keys into signals",
        )?;
        screen.resize(44, 55)?;
        let pid = runtime.state("one")?["pid"].as_i64().unwrap_or(0);
        let resized = wait_for(|| {
            let terminal = fs::File::open(format!("/proc/{pid}/root/dev/pts/0")).ok()?;
            let size = rustix::termios::tcgetwinsize(&terminal).ok()?;
            (size.ws_row == 44).then_some(())
        });
        expect(
            resized.is_some(),
            "the container's terminal to follow the window's size",
            "it keeps the size from the start",
        )?;
        screen.press("x\n")?;
        screen.until("44 55")?;
        screen.until("again")?;
        // A further process has a terminal of its own.
        let mut second = Screen::start(&runtime.call(&[
            "exec",
            "--tty",
            "one",
            "/bin/sh",
            "-c",
            "tty; read x; exit 9",
        ]))?;
        second.until("/dev/pts/1")?;
        second.press("x\n")?;
        let (status, _) = second.end()?;
        expect_eq("the status of exec", status, Some(9))?;
        screen.press("x\n")?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "the caller's terminal to be as before in the end",
            "it still raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status of run", status, Some(7))?;
        runtime.expect_nothing_left()?;
        // Whatever the way out.
        terminal("echo ready; exec sleep 1000")?;
        let mut screen = Screen::start(&runtime.call(&["run", "--bundle", &bundle, "one"]))?;
        screen.until("ready")?;
        runtime.call(&["kill", "one", "KILL"]).run()?.success()?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "the caller's terminal to be as before after SIGKILL",
            "it still raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status of run", status, Some(137))?;
        let screen = Screen::start(&runtime.call(&["exec", "--tty", "one", "true"]))?;
        let (status, _) = screen.end()?;
        expect_eq("the status of exec in no container", status, Some(255))?;
        runtime.expect_nothing_left()?;
        Ok(())
    });
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure(LOOP, |config| {
            config["linux"]["resources"] = json!({
                "pids": {"limit": 33},
                "cpu": {"quota": 50_000, "period": 100_000},
                "memory": {"limit": 64 << 20},
            });
        })?;
        runtime.start("one")?.line("up")?;
        let limits = || -> Result<[String; 3]> {
            let groups = runtime.groups();
            let read = |name: &str| {
                let mut files = groups.iter().map(|group| group.join("c").join(name));
                files.find_map(|file| Some(fs::read_to_string(file).ok()?.trim().to_owned()))
            };
            let cpu = read("cpu.max").or_else(|| {
                let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
                Some(format!("{quota} {period}"))
            });
            let memory = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
            let all = [cpu, memory, read("pids.max")];
            Ok(all.map(|value| value.unwrap_or_default()))
        };
        let expect_limits = |what: &str, cpu: &str, memory: &str, pids: &str| {
            expect_eq(what, limits()?, [cpu, memory, pids].map(String::from))
        };
        expect_limits("the limits", "50000 100000", "67108864", "33")?;
        // Half a pair: on cgroup2 one file holds both.
        runtime
            .call(&["update", "--cpu-period", "50000", "one"])
            .run()?
            .success()?;
        expect_limits("after --cpu-period", "50000 50000", "67108864", "33")?;
        runtime
            .call(&["update", "--cpu-quota", "20000", "--memory", "128m", "one"])
            .run()?
            .success()?;
        expect_limits("after --cpu-quota", "20000 50000", "134217728", "33")?;
        runtime
            .call(&["update", "--resources", "-", "one"])
            .stdin(r#"{"pids":{"limit":44},"memory":{"limit":0},"cpu":{"period":40000}}"#)
            .run()?
            .success()?;
        expect_limits("after --resources", "20000 40000", "134217728", "44")?;
        // What the kernel refuses changes nothing.
        runtime
            .call(&[
                "update",
                "--cpu-quota",
                "30000",
                "--cpuset-cpus",
                "4094",
                "one",
            ])
            .run()?
            .expect_error(1, &["cpu.cpus"])?;
        expect_limits("after a refusal", "20000 40000", "134217728", "44")?;
        runtime
            .call(&["update", "--memory", "64q", "one"])
            .run()?
            .expect_status(1)?;
        runtime
            .call(&["update", "one"])
            .run()?
            .expect_error(1, &["no limit"])?;
        if !fs::exists("/sys/fs/resctrl/tasks").unwrap_or(false) {
            runtime
                .call(&["update", "--l3-cache-schema", "L3:0=f", "one"])
                .run()?
                .expect_error(1, &["resctrl"])?;
        }
        runtime.end("one")
    });
}

/// The PIDs of this check's hooks that hang.
fn hanging(word: &str) -> Vec<i32> {
    let named = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| String::from_utf8_lossy(&words).contains(word))
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(named)
        .collect()
}

#[test]
fn what_hangs_can_be_deleted() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let bundle = runtime.bundle.display().to_string();
        let word = c.word("hang");
        let hang = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!(": {word}; kill -STOP $$")],
                           "env": ["PATH=/bin:/usr/bin"]}]);
        for (kind, verb) in [
            ("prestart", "create"),
            ("createRuntime", "create"),
            ("createContainer", "create"),
            ("createRuntime", "run"),
            ("startContainer", "start"),
            ("poststart", "start"),
        ] {
            runtime.configure(LOOP, |config| config["hooks"] = json!({ kind: hang }))?;
            let words = match verb {
                "start" => {
                    runtime.create("one")?.success()?;
                    vec!["start", "one"]
                }
                verb => vec![verb, "--bundle", &bundle, "one"],
            };
            let mut caller = runtime
                .call(&words)
                .command()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("run the runtime")?;
            let hangs = wait_for(|| (!hanging(&word).is_empty()).then_some(()));
            expect(hangs.is_some(), format!("a {kind} hook that hangs"), "none")?;
            if verb != "start" {
                runtime
                    .call(&["delete", "one"])
                    .run()?
                    .expect_error(1, &["creating"])?;
            }
            let begun = Instant::now();
            runtime
                .call(&["delete", "--force", "one"])
                .run()?
                .success()
                .with_context(|| format!("a {kind} hook hangs"))?;
            expect(
                begun.elapsed() < Duration::from_secs(9),
                format!("delete --force within seconds while a {kind} hook hangs"),
                format!("{:?}", begun.elapsed()),
            )?;
            if kind == "poststart" {
                // It belongs to the caller of start, who waits for it.
                expect_eq("hooks that hang", hanging(&word).len(), 1)?;
                kill(Pid::from_raw(caller.id() as i32), Signal::SIGKILL).context("kill")?;
            }
            caller.wait().context("wait")?;
            reap();
            let gone = wait_for(|| hanging(&word).is_empty().then_some(()));
            expect(
                gone.is_some(),
                format!("no {kind} hook left of who waited for it"),
                format!("{:?}", hanging(&word)),
            )?;
            runtime
                .expect_nothing_left()
                .with_context(|| format!("a {kind} hook hangs"))?;
        }
        Ok(())
    });
}

#[test]
fn exec_in_an_ended_container_fails_clearly() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let marker = runtime.bundle.join("rootfs/ran");
        for own_pids in [true, false] {
            runtime.configure(LOOP, |config| {
                if !own_pids && let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                    all.retain(|one| one["type"] != "pid");
                }
            })?;
            for (point, child) in [
                (
                    Point::after("flock").about(runtime.root.join("one").display().to_string()),
                    false,
                ),
                (Point::before("openat").about("/ns/ipc"), false),
                (Point::after("openat").about("/ns/mnt"), false),
                (Point::before("clone3").by("launcher.1"), false),
                (Point::after("clone3").by("launcher.1"), true),
            ] {
                let one = runtime.start("one")?;
                one.line("up")?;
                let exec = runtime.call(&["exec", "one", "/bin/sh", "-c", "touch /ran"]);
                let stopped = exec.stop(point.clone())?;
                kill(Pid::from_raw(one.pid), Signal::SIGKILL).context("kill")?;
                let ended = match own_pids && child {
                    true => None,
                    false => wait_for(|| {
                        reap();
                        let there = fs::exists(format!("/proc/{}", one.pid)).unwrap_or(true);
                        (!there).then_some(())
                    }),
                };
                // It ends after all others of its PID namespace, of which the check
                // stops one.
                expect(
                    ended.is_some() || own_pids && child,
                    "the first process to end",
                    "it lives",
                )?;
                stopped
                    .go_on()?
                    .expect_error(255, &["stopped container"])
                    .with_context(|| format!("killed at {point:?}"))?;
                expect(
                    !marker.exists(),
                    "nothing to run in a container that has ended",
                    "it did",
                )?;
                runtime
                    .call(&["exec", "one", "true"])
                    .run()?
                    .expect_error(255, &["stopped container"])?;
                runtime.call(&["delete", "one"]).run()?.success()?;
                reap();
            }
        }
        runtime.expect_nothing_left()
    });
}

/// The lines of a container's output, from `run`.
fn ran(runtime: &Runtime<'_>) -> Result<String> {
    let bundle = runtime.bundle.display().to_string();
    let ran = runtime.call(&["run", "--bundle", &bundle, "one"]).run()?;
    Ok(ran.success()?.stdout)
}

fn expect_line(said: &str, line: &str, otherwise: &str) -> Result<()> {
    expect(
        said.lines().any(|found| found.trim() == line),
        format!("the line {line:?}"),
        format!("{said:?}: {otherwise}"),
    )
}

#[test]
fn clocks_memory_and_processors_are_the_containers() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let script = "cat /proc/self/timens_offsets; head -n 1 /proc/self/numa_maps; echo up; \
                      read x < /proc/self/fd/0; exec sleep 1000";
        runtime.configure(script, |config| {
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.push(json!({"type": "time"}));
            }
            config["linux"]["timeOffsets"] = json!({
                "boottime": {"secs": 86_400, "nanosecs": 500},
                "monotonic": {"secs": 3600},
            });
            config["linux"]["memoryPolicy"] =
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        })?;
        let one = runtime.start("one")?;
        one.line("up")?;
        let said = one.said()?;
        let clocks: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        for clock in [["boottime", "86400", "500"], ["monotonic", "3600", "0"]] {
            expect(
                clocks.iter().any(|found| *found == clock),
                format!("the clock {clock:?} in /proc/self/timens_offsets"),
                &said,
            )?;
        }
        expect(
            said.contains("interleave=static:0"),
            "memory by the policy interleave=static:0",
            &said,
        )?;
        // A further process has them too.
        let process = c.dir().join("process.json");
        let script = "grep Cpus_allowed_list /proc/self/status; head -n 1 /proc/self/numa_maps; \
                      cat /proc/uptime";
        let further = |affinity: serde_json::Value| -> Result<Step> {
            let text = json!({
                "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                "execCPUAffinity": affinity,
            });
            fs::write(&process, text.to_string()).context("write")?;
            let file = process.display().to_string();
            Ok(runtime.call(&["exec", "--process", &file, "one"]))
        };
        let ran = further(json!({"initial": "0", "final": "0"}))?
            .run()?
            .success()?;
        expect_line(&ran.stdout, "Cpus_allowed_list:\t0", "other processors")?;
        expect(
            ran.stdout.contains("interleave=static:0"),
            "the memory of exec by the policy",
            ran.stdout.lines().nth(1).unwrap_or_default(),
        )?;
        let outside = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
        let seconds = |text: &str| -> Option<f64> { text.split(' ').next()?.parse().ok() };
        let inside = ran.stdout.lines().last().and_then(seconds);
        expect(
            inside
                .zip(seconds(&outside))
                .is_some_and(|(a, b)| a > b + 80_000.0),
            "the clock of exec to be the container's",
            &ran.stdout,
        )?;
        further(json!({"final": "100000"}))?
            .run()?
            .expect_error(255, &["execCPUAffinity"])?;
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        // Refused by name.
        type Edit = fn(&mut serde_json::Value);
        let cases: [(&str, Edit); 6] = [
            ("memoryPolicy.mode", |linux| {
                linux["memoryPolicy"] = json!({"mode": "MPOL_BEST"});
            }),
            ("memoryPolicy.nodes", |linux| {
                linux["memoryPolicy"] = json!({"mode": "MPOL_LOCAL", "nodes": "0"});
            }),
            ("set_mempolicy", |linux| {
                linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "999"});
            }),
            ("timeOffsets", |linux| {
                linux["timeOffsets"] = json!({"monotonic": {"secs": 1}});
            }),
            ("resctrl", |linux| {
                linux["intelRdt"] = json!({"closID": "x"})
            }),
            ("SELinux", |linux| {
                linux["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
            }),
        ];
        for (words, edit) in cases {
            if words == "resctrl" && fs::exists("/sys/fs/resctrl/tasks").unwrap_or(false)
                || words == "SELinux" && fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
            {
                continue;
            }
            runtime.configure("true", |config| edit(&mut config["linux"]))?;
            let bundle = runtime.bundle.display().to_string();
            runtime
                .call(&["run", "--bundle", &bundle, "two"])
                .run()?
                .expect_error(1, &[words])?;
        }
        Ok(())
    });
}

/// A network namespace of the check's own, so that nobody misses its devices.
struct OwnNetwork(fs::File);

impl OwnNetwork {
    fn enter() -> Result<Self> {
        let before = fs::File::open("/proc/thread-self/ns/net").context("open")?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("unshare")?;
        Ok(OwnNetwork(before))
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        if let Err(errno) = nix::sched::setns(&self.0, nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("setns: {errno}");
        }
    }
}

#[test]
fn a_device_of_the_host_is_moved_with_its_addresses() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let name = format!("v{}", c.number(1_000_000));
        let network = OwnNetwork::enter()?;
        let own = nix::unistd::gettid().as_raw();
        rtnl::add_veth(&name, "other", own)?;
        rtnl::set_up("other")?;
        rtnl::add_address(&name, "192.0.2.7".parse()?, 24)?;
        let script = "ip -o address; ip -o link; ip route; exit 0";
        runtime.configure(script, |config| {
            config["linux"]["netDevices"] = json!({ &name: {"name": "inside"} });
        })?;
        let said = ran(&runtime)?;
        let bundle = runtime.bundle.display().to_string();
        rtnl::add_veth("third", "more", own)?;
        let mut refusals = Vec::new();
        for devices in [
            json!({"nosuch0": {}}),
            json!({"third": {"name": "a/b"}}),
            json!({"lo": {"name": "x"}}),
            json!({"third": {"name": "x"}, "nosuch": {"name": "x"}}),
        ] {
            runtime.configure("true", |config| {
                config["linux"]["netDevices"] = devices;
            })?;
            let refused = runtime.call(&["run", "--bundle", &bundle, "two"]).run()?;
            refusals.push(format!("{} {}", refused.status, refused.stderr));
        }
        drop(network);
        expect(
            said.contains("inside") && !said.contains(&name),
            "the device under its name inside",
            &said,
        )?;
        expect(
            said.contains("192.0.2.7/24") && said.contains("192.0.2.0/24 dev inside"),
            "its address, and a route because it is up",
            &said,
        )?;
        for (refusal, words) in refusals.iter().zip(["nosuch0", "a/b", "lo ", "twice"]) {
            expect(
                refusal.starts_with("1 ") && refusal.contains(words),
                format!("a refusal that says {words:?}"),
                refusal,
            )?;
        }
        runtime.configure("true", |config| {
            config["linux"]["netDevices"] = json!({"other": {}});
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.retain(|one| one["type"] != "network");
            }
        })?;
        runtime
            .create("three")?
            .refused(&["netDevices", "network namespace"])?;
        runtime.expect_nothing_left()
    });
}

/// A mount of the check's, until this is dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(errno) = nix::mount::umount(&self.0) {
            eprintln!("umount {:?}: {errno}", self.0);
        }
    }
}

#[test]
fn a_mount_has_other_owners_inside() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let source = c.dir().join("source");
        fs::create_dir_all(source.join("below")).context("mkdir")?;
        nix::mount::mount(
            Some("tmpfs"),
            &source.join("below"),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=64k"),
        )
        .context("mount")?;
        let _mounted = Mounted(source.join("below"));
        for (file, owner) in [("a", 3000), ("below/b", 3001)] {
            fs::write(source.join(file), "").context("write")?;
            std::os::unix::fs::chown(source.join(file), Some(owner), Some(owner))
                .context("chown")?;
        }
        let from = source.display().to_string();
        let script = "stat -c '%n %u:%g' /srv/a /srv/below/b";
        // On the disk 3000 and 3001; in the container 100 and 101.
        let maps = json!([{"containerID": 3000, "hostID": 100, "size": 10}]);
        for (option, below) in [("ridmap", "101:101"), ("idmap", "3001:3001")] {
            runtime.configure(script, |config| {
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    mounts.push(
                        json!({"destination": "/srv", "type": "bind", "source": from,
                        "options": ["rbind", option], "uidMappings": maps,
                        "gidMappings": maps}),
                    );
                }
            })?;
            let said = ran(&runtime)?;
            expect_line(&said, "/srv/a 100:100", "the map does not apply")?;
            expect_line(&said, &format!("/srv/below/b {below}"), option)?;
        }
        runtime.configure(script, |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(
                    json!({"destination": "/srv", "type": "bind", "source": from,
                    "options": ["rbind", "idmap"]}),
                );
            }
        })?;
        runtime.create("two")?.refused(&["idmap", "uidMappings"])?;
        // Without maps of its own: the container's.
        let range = json!([{"containerID": 0, "hostID": 200_000, "size": 10_000}]);
        runtime.configure("stat -c '%u:%g' /srv/a", |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(
                    json!({"destination": "/srv", "type": "bind", "source": from,
                    "options": ["bind", "idmap"]}),
                );
            }
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.push(json!({"type": "user"}));
            }
            config["linux"]["uidMappings"] = range.clone();
            config["linux"]["gidMappings"] = range.clone();
        })?;
        fs::set_permissions(c.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .context("chmod")?;
        expect_line(
            &ran(&runtime)?,
            "3000:3000",
            "the map is not the container's",
        )?;
        Ok(())
    });
}

#[test]
fn a_listener_is_told_of_the_container_and_of_each_process() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let path = c.dir().join("agent");
        let script = "mkdir /x; echo made $?; exec sleep 1000";
        runtime.configure(script, |config| {
            config["annotations"] = json!({"org.example.word": "x"});
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": path,
                "listenerMetadata": "meta",
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"},
                    {"names": ["sendmsg"], "action": "SCMP_ACT_KILL_PROCESS"},
                ],
            });
        })?;
        runtime.create("none")?.refused(&["listenerPath"])?;
        runtime.expect_nothing_left()?;
        let agent = Agent::start(&path, Errno::EXDEV)?;
        let one = runtime.start("one")?;
        expect_eq("the status of mkdir", one.line("made")?.as_str(), "1")?;
        expect(
            one.said()?.contains("nvalid cross-device link") || one.said()?.contains("ross-device"),
            "the listener's errno",
            one.said()?,
        )?;
        fs::remove_file(&path).context("unlink")?;
        let second = Agent::start(&path, Errno::EXDEV)?;
        let exec = runtime
            .call(&["exec", "one", "/bin/sh", "-c", "mkdir /y; echo $?"])
            .run()?;
        expect_eq("mkdir by exec", exec.success()?.stdout.trim(), "1")?;
        let further = second.end()?.message;
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        let first = agent.end()?.message;
        let pid = Some(i64::from(one.pid));
        expect_eq("pid", first["pid"].as_i64(), pid)?;
        expect_eq("state.pid", first["state"]["pid"].as_i64(), pid)?;
        expect_eq("state.pid for exec", further["state"]["pid"].as_i64(), pid)?;
        expect(
            further["pid"]
                .as_i64()
                .is_some_and(|other| Some(other) != pid),
            "another pid for exec",
            further.to_string(),
        )?;
        for message in [&first, &further] {
            expect(
                message["state"]["id"] == "one"
                    && message["state"]["annotations"]["org.example.word"] == "x"
                    && message["metadata"] == "meta",
                "the container's state, and the metadata",
                message.to_string(),
            )?;
        }
        runtime.expect_nothing_left()
    });
}

#[test]
fn without_pivot_root_nothing_of_the_host_stays() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let bundle = runtime.bundle.display().to_string();
        let word = c.word("word");
        fs::write(runtime.bundle.join("rootfs/word"), &word).context("write")?;
        runtime.configure(
            "cat /word; awk '{print \" at \" $5}' /proc/self/mountinfo",
            |_| {},
        )?;
        let run = |id: &str| {
            runtime
                .call(&["run", "--no-pivot", "--bundle", &bundle, id])
                .run()
        };
        let said = run("one")?.success()?.stdout;
        expect(
            said.contains(&word) && !said.contains(" at /sys") && said.contains(" at /dev"),
            "the container's root, and its mounts",
            &said,
        )?;
        // There the host's mounts are locked together: umount2(2) fails with
        // EINVAL, as for what is not mounted.
        let range = json!([{"containerID": 0, "hostID": 0, "size": 10_000}]);
        runtime.configure("true", |config| {
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.push(json!({"type": "user"}));
            }
            config["linux"]["uidMappings"] = range.clone();
            config["linux"]["gidMappings"] = range.clone();
        })?;
        run("two")?.expect_error(1, &["stays mounted"])?;
        runtime.expect_nothing_left()
    });
}

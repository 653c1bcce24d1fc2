//! What a configuration may ask for besides the ordinary.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use check::prelude::*;
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
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        runtime.expect_nothing_left()
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

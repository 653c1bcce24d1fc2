//! In runc's place: what callers and configurations expect because runc does it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use check::agent::Agent;
use check::prelude::*;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::{LOOP, Runtime, reap};

#[test]
fn a_start_hook_is_behind_the_filter() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let rootfs = runtime.bundle.join("rootfs");
        let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let configure = |seccomp: Value| {
            runtime.configure(
                "mkdir /by-the-command; echo up; exec sleep 1000",
                |config| {
                    config["hooks"] = json!({"startContainer": hook("mkdir /by-a-hook; true")});
                    config["linux"]["seccomp"] = seccomp;
                },
            )
        };
        configure(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
        }))?;
        runtime.start("one")?.line("up")?;
        for who in ["by-the-command", "by-a-hook"] {
            expect(
                !rootfs.join(who).exists(),
                "mkdir(2) refused by the filter, in a hook as in the command",
                format!("the directory /{who}"),
            )?;
        }
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        // One that the filter kills ends the start, in the words that engines know.
        runtime.configure("true", |config| {
            config["hooks"] = json!({"startContainer": hook("exec mkdir /by-a-hook")});
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
            });
        })?;
        runtime.create("two")?.success()?;
        runtime
            .call(&["start", "two"])
            .run()?
            .expect_error(1, &["error running hook #0", "signal: bad system call"])?;
        runtime
            .call(&["delete", "--force", "two"])
            .run()?
            .success()?;
        reap();
        // It may replace the command by a link to whoever executes it.
        symlink("/bin/busybox", rootfs.join("command")).context("symlink")?;
        runtime.configure("", |config| {
            let replace = "rm /command; ln -s /proc/self/exe /command";
            config["process"]["args"] = json!(["/command", "--version"]);
            config["hooks"] = json!({"startContainer": hook(replace)});
        })?;
        let three = runtime.create("three")?.success()?;
        let started = runtime.call(&["start", "three"]).run()?;
        expect(
            started.status == 1 && !three.said()?.contains("version"),
            "the command looked at after the hooks, and not executed: it leads to the runtime",
            "it was executed",
        )?;
        runtime
            .call(&["delete", "--force", "three"])
            .run()?
            .success()?;
        reap();
        // A filter that asks somebody asks about the hook too.
        let agents = c.dir().join("agents");
        configure(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agents,
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }))?;
        let both = Agent::several(&agents, Errno::EXDEV, 2)?;
        let asking = runtime.start("asking")?;
        asking.line("up")?;
        runtime
            .call(&["delete", "--force", "asking"])
            .run()?
            .success()?;
        reap();
        for agent in both {
            let heard = agent.end()?;
            expect_eq(
                "calls of mkdir(2) on which an agent has decided",
                heard.calls.len(),
                1,
            )?;
            let pid = Some(i64::from(asking.pid));
            expect_eq(
                "the container's PID",
                heard.message["state"]["pid"].as_i64(),
                pid,
            )?;
        }
        runtime.expect_nothing_left()
    });
}

/// The container's group in the hierarchy of v2, or of a controller of v1.
fn group(runtime: &Runtime<'_>, hierarchy: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup")
        .join(hierarchy)
        .join(&runtime.group)
        .join("c")
}

#[test]
fn exec_enters_the_containers_group_while_that_takes_processes() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure(LOOP, |_| {})?;
        let one = runtime.start("one")?;
        one.line("up")?;
        let own = group(&runtime, "");
        let exec = |options: &[&str]| {
            let words = [&["exec"], options, &["one", "cat", "/proc/self/cgroup"]].concat();
            runtime.call(&words).run()
        };
        let write = |file: &str, text: &str| {
            let file = own.join(file);
            fs::write(&file, text).with_context(|| format!("write {text} to {}", file.display()))
        };
        // What a container does that has groups of its own.
        fs::create_dir(own.join("inner")).context("mkdir")?;
        for pid in fs::read_to_string(own.join("cgroup.procs"))
            .context("read")?
            .lines()
        {
            write("inner/cgroup.procs", pid)?;
        }
        expect_eq(
            "the group of exec, while the container's takes processes",
            exec(&[])?.success()?.stdout.trim(),
            "0::/",
        )?;
        // A loop's sleep may have been born meanwhile.
        for pid in fs::read_to_string(own.join("cgroup.procs"))
            .context("read")?
            .lines()
        {
            write("inner/cgroup.procs", pid)?;
        }
        write("cgroup.subtree_control", "+memory")?;
        expect_eq(
            "the group of exec, when the container's own groups have controllers",
            exec(&[])?.success()?.stdout.trim(),
            "0::/inner",
        )?;
        // Who names the group means it.
        let busy = ["adding pid ", "cgroup.procs: device or resource busy"];
        exec(&["--cgroup", "/"])?.expect_error(255, &busy)?;
        let none = [
            "adding pid ",
            "/none/cgroup.procs: no such file or directory",
        ];
        exec(&["--cgroup", "none"])?.expect_error(255, &none)?;
        runtime.end("one")
    });
}

#[test]
fn exec_refuses_to_run_outside_of_a_group() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        runtime.configure(LOOP, |config| {
            config["linux"]["resources"] = json!({"pids": {"limit": 9}});
        })?;
        runtime.start("one")?.line("up")?;
        let tree = Tree::private()?;
        let hierarchy = Path::new("/sys/fs/cgroup/pids");
        umount2(hierarchy, MntFlags::MNT_DETACH).context("umount the hierarchy of pids")?;
        let exec = runtime
            .call(&["exec", "one", "/bin/sh", "-c", "touch /ran"])
            .run()?;
        let ran = runtime.bundle.join("rootfs/ran").exists();
        // For `delete`, which ends the group.
        mount(
            Some("cgroup"),
            hierarchy,
            Some("cgroup"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("pids"),
        )
        .context("mount the hierarchy of pids")?;
        expect(
            !ran,
            "nothing to run outside of a group of the container's: the hierarchy of pids is not \
             mounted",
            "it ran without the limit of pids",
        )?;
        exec.expect_error(255, &["adding pid ", "/pids/", "no such file or directory"])?;
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        drop(tree);
        reap();
        runtime.expect_nothing_left()
    });
}

/// The entries of a log in JSON, as level and message.
fn entries(log: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(log).context("read the log")?;
    let mut all = Vec::new();
    for line in text.lines() {
        let entry: Value =
            serde_json::from_str(line).map_err(|_| failed("an object a line in the log", line))?;
        let word = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        all.push((word("level"), word("msg")));
    }
    Ok(all)
}

#[test]
fn callers_of_runc_find_their_words() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        // An engine that calls it in runc's place knows that name.
        let called = |words: &[&str]| -> Result<String> {
            let mut command = runtime.call(words).command();
            let output = command.arg0("/usr/sbin/runc").output().context("run")?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = called(&["--version"])?;
        let lines: Vec<&str> = version.lines().collect();
        expect(
            matches!(lines[..], [first, second, third]
                if first.starts_with("runc version ")
                    && second.starts_with("commit: ")
                    && third.starts_with("spec: ")),
            "the lines that dockerd reads: runc version, commit, spec",
            lines.first().unwrap_or(&""),
        )?;
        let help = called(&["delete", "--help"])?;
        expect(
            help.starts_with("NAME:\n   runc delete - "),
            "NAME: and runc delete at the head of the help",
            help.lines().next().unwrap_or_default(),
        )?;
        runtime
            .call(&["checkpoint", "--image-path", "/x", "one"])
            .run()?
            .expect_error(1, &["not supported"])?;
        // The progress goes where the log is, also that of the container's process.
        let log = c.dir().join("log.json");
        let path = log.display().to_string();
        runtime.configure(LOOP, |_| {})?;
        let globals = ["--debug", "--log", &path, "--log-format", "json"];
        let one = runtime.create_with(&globals, "one")?.success()?;
        expect(
            one.said()?.is_empty(),
            "nothing of the progress on standard error, which is the container's",
            "it is there",
        )?;
        let all = entries(&log)?;
        for words in [
            "nsexec container setup",
            "child process in init()",
            "init: closing the pipe to signal completion",
        ] {
            expect(
                all.iter()
                    .any(|(level, said)| level == "debug" && said.contains(words)),
                format!("an entry of level debug with {words:?}"),
                "none",
            )?;
        }
        runtime.call(&["start", "one"]).run()?.success()?;
        one.line("up")?;
        runtime
            .call(&["delete", "--force", "one"])
            .run()?
            .success()?;
        reap();
        // `a` is all that is refused, and nothing that is allowed.
        let device = |allow: bool| {
            runtime.configure(LOOP, |config| {
                config["linux"]["resources"] = json!({"devices": [
                    {"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rwa"},
                ]});
            })
        };
        device(true)?;
        runtime.create("two")?.refused(&["devices[0]", "rwa"])?;
        device(false)?;
        runtime.create("two")?.success()?;
        runtime
            .call(&["delete", "--force", "two"])
            .run()?
            .success()?;
        reap();
        runtime.expect_nothing_left()
    });
}

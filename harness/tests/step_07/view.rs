//! What is seen of a group, from outside and inside: freezer, statistics,
//! namespace.

use std::path::Path;
use std::time::Duration;

use check::prelude::*;

use crate::common::{computing, cpu_ticks, groups, kill, own_groups, path_in};

#[test]
fn a_paused_container_stands_still() {
    check(|c| {
        let burner = c.step().args(["probe", "burn", "60000"]).start()?;
        let pid = computing(&burner)?;
        let name = pid.to_string();
        c.step().args(["pause", &name]).run()?.success()?;
        let before = cpu_ticks(pid)?;
        std::thread::sleep(Duration::from_millis(500));
        expect_eq(
            "CPU time while paused, in ticks",
            cpu_ticks(pid)? - before,
            0,
        )?;
        let shown = c.step().args(["stats", &name]).run()?.success()?.stdout;
        expect(
            shown.contains("paused"),
            "stats to show that it is paused",
            shown,
        )?;
        c.step().args(["resume", &name]).run()?.success()?;
        expect(
            wait_for(|| (cpu_ticks(pid).ok()? > before + 2).then_some(())).is_some(),
            "it to go on when it is resumed",
            "no progress in ten seconds",
        )?;
        let own = std::process::id().to_string();
        c.step().args(["pause", &own]).run()?.expect_status(125)?;
        kill(pid)?;
        burner.wait()?.expect_status(137)?;
        Ok(())
    });
}

#[test]
fn stats_tell_what_was_used() {
    check(|c| {
        let mut held = c
            .step()
            .args(["-m", "64m", "--cpus", "0.25", "--pids-limit", "77"])
            .hold()?;
        held.ask::<Attempt>(&["burn", "1000"])?;
        let pid = held.pid()?.to_string();
        let text = c.step().args(["stats", &pid]).run()?.success()?.stdout;
        let line = |what: &str| -> Result<String> {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(what)?.trim().to_owned()))
                .ok_or_else(|| failed(format!("a line on {what:?} from stats"), &text))
        };
        let memory = line("memory ")?;
        expect(
            memory.ends_with("of 67108864"),
            "the memory used, and its limit in bytes",
            memory,
        )?;
        let pids = line("pids ")?;
        expect(
            pids.ends_with("of 77"),
            "the processes, and their limit",
            pids,
        )?;
        let throttled = line("throttled ")?;
        expect(
            !throttled.starts_with("in 0 "),
            "how often it was throttled",
            throttled,
        )?;
        expect_eq("the OOM kills", line("oom kills ")?.as_str(), "0")?;
        let cpu = line("cpu ")?;
        let seconds: f64 = cpu.split(' ').next().unwrap_or("").parse().unwrap_or(0.0);
        expect(seconds > 0.05, "the CPU time in seconds", cpu)?;
        let name = line("group ")?;
        let table = c.step().args(["stats"]).run()?.success()?.stdout;
        expect(
            table.contains(&name),
            format!("{name} in the table of all"),
            table,
        )?;
        let top = c.step().args(["top"]).run()?.success()?.stdout;
        expect(top.contains(&name), format!("{name} in top, once"), top)?;
        c.step().args(["stats", &name]).run()?.success()?;
        c.step()
            .args(["stats", "no-such-group"])
            .run()?
            .expect_error(125, &["no-such-group"])?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn its_own_group_is_the_root_it_sees() {
    check(|c| {
        let private = c.step().args(["-m", "64m", "--pids-limit", "50"]).hold()?;
        let own = host::namespaces("self")?["cgroup"];
        expect(
            private.seen().namespaces["cgroup"] != own,
            "a cgroup namespace of its own",
            "the host's",
        )?;
        for controller in ["memory", "pids"] {
            let path = path_in(&private.seen().cgroup, controller);
            expect(
                path == "/",
                format!("/proc/self/cgroup to show / for {controller}"),
                format!("{path}: CLONE_NEWCGROUP takes the caller's group as the root"),
            )?;
        }
        let container = format!("container:{}", private.pid()?);
        let joined = c.step().args(["--cgroupns", &container]).probe()?;
        expect_eq(
            "the cgroup namespace with --cgroupns container:PID",
            joined.namespaces["cgroup"],
            private.seen().namespaces["cgroup"],
        )?;
        private.end()?.success()?;
        let shared = c.step().args(["--cgroupns", "host", "-m", "64m"]).hold()?;
        expect_eq(
            "the cgroup namespace with --cgroupns host",
            shared.seen().namespaces["cgroup"],
            own,
        )?;
        let path = path_in(&shared.seen().cgroup, "memory").to_owned();
        let groups = groups(&shared)?;
        let dir = groups
            .controller("memory")
            .map(Path::to_owned)
            .unwrap_or_default();
        expect(
            path != "/" && dir.ends_with(path.trim_start_matches('/')),
            "the group as the host sees it",
            path,
        )?;
        shared.end()?.success()?;
        Ok(())
    });
}

#[test]
fn it_sees_its_limits_and_cannot_change_them() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let mut held = c
            .step()
            .args(["-m", "64m", "--rootfs"])
            .args([&rootfs])
            .hold()?;
        let v2_alone = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let file = match own_groups()?.on_v1("memory") {
            true => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            false if v2_alone => "/sys/fs/cgroup/memory.max",
            false => "/sys/fs/cgroup/unified/memory.max",
        };
        let seen: Attempt = held.ask(&["read", file])?;
        expect(
            seen.text.trim() == "67108864",
            format!("its own limit in {file}"),
            format!("{:?} {}", seen.text.trim(), seen.errno),
        )?;
        let written: Attempt = held.ask(&["write", file, "134217728"])?;
        expect(
            !written.allowed,
            "its own limit not to be writable",
            format!("{file} writable: /sys/fs/cgroup is to be mounted read-only"),
        )?;
        held.end()?.success()?;
        // A mount of the user's on the same place is not covered.
        let ran = c
            .step()
            .args(["--tmpfs", "/sys/fs/cgroup", "--rootfs"])
            .args([&rootfs])
            .args(["ls", "-A", "/sys/fs/cgroup"])
            .run()?
            .success()?;
        expect_eq("the files of a tmpfs of the user's", ran.stdout.trim(), "")?;
        Ok(())
    });
}

//! What a container may not, unless it is privileged.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use check::prelude::*;

use crate::engine::Engine;

/// Docker's fourteen.
const KEPT: u64 = 0xa804_25fb;

#[test]
fn capabilities_are_dropped_from_every_set() {
    check(|c| {
        let engine = Engine::new(c)?;
        for init in [&[][..], &["--init"]] {
            let held = engine.run(init).args([engine.image()]).hold()?;
            for (set, expected) in [
                ("CapBnd", KEPT),
                ("CapPrm", KEPT),
                ("CapEff", KEPT),
                ("CapInh", 0),
                ("CapAmb", 0),
            ] {
                let found = held.seen().capabilities.get(set).copied().unwrap_or(!0);
                expect(
                    found == expected,
                    format!("{set} to be {expected:016x}"),
                    format!("{found:016x}: what is in one set comes back into others by execve"),
                )?;
                // With --init this is the init, without it the probe.
                let first = host::status_field(held.pid()?, set).unwrap_or_default();
                expect_eq(
                    &format!("{set} of the container's first process"),
                    u64::from_str_radix(&first, 16).ok(),
                    Some(expected),
                )?;
            }
            held.end()?.success()?;
        }
        let seen = engine.run(&["-u", "1000"]).args([engine.image()]).probe()?;
        let found = |set: &str| seen.capabilities.get(set).copied();
        expect_eq("CapEff of a user", found("CapEff"), Some(0))?;
        expect_eq("CapBnd of a user", found("CapBnd"), Some(KEPT))
    });
}

#[test]
fn security_options_are_dockers() {
    check(|c| {
        let engine = Engine::new(c)?;
        for (options, expected) in [
            (&[][..], "0"),
            (&["--security-opt", "no-new-privileges"], "1"),
            (&["--security-opt", "no-new-privileges=false"], "0"),
        ] {
            let held = engine.run(options).args([engine.image()]).hold()?;
            expect_eq(
                &format!("NoNewPrivs with {options:?}"),
                host::status_field(held.pid()?, "NoNewPrivs").as_deref(),
                Some(expected),
            )?;
            held.end()?.success()?;
        }
        let options = ["--cap-drop", "ALL", "--cap-add", "SYS_TIME"];
        let seen = engine.run(&options).args([engine.image()]).probe()?;
        expect_eq(
            &format!("CapBnd with {options:?}"),
            seen.capabilities.get("CapBnd").copied(),
            Some(1 << 25),
        )?;
        let [queue, score, group] = [20_000, 600, 30_000].map(|more| more + c.number(90));
        let [queue, score, group] = [queue, score, group].map(|number| number.to_string());
        let sysctl = format!("net.core.somaxconn={queue}");
        let script = "cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj; id -G; \
                      grep ' /dev/shm ' /proc/mounts";
        let ran = engine
            .run(&["--sysctl", &sysctl, "--oom-score-adj", &score])
            .args(["--group-add", &group, "--shm-size", "8m"])
            .args([engine.image(), "sh", "-c", script])
            .run()?;
        expect(
            ran.status == 0,
            "--sysctl, --oom-score-adj, --group-add and --shm-size to be accepted",
            format!("status {}: {:?}", ran.status, ran.stderr),
        )?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        for (line, (option, expected)) in lines.iter().zip([
            ("--sysctl", queue.as_str()),
            ("--oom-score-adj", &score),
            ("--group-add", &group),
            ("--shm-size", "size=8192k"),
        ]) {
            expect(
                line.contains(expected),
                format!("{expected} with {option}"),
                format!("{line:?}"),
            )?;
        }
        let profile = c.dir().join("profile.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["sched_yield"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
        fs::write(&profile, text).context("write the profile")?;
        let option = format!("seccomp={}", profile.display());
        let mut held = engine
            .run(&["--security-opt", &option])
            .args([engine.image()])
            .hold()?;
        let made: Attempt = held.ask(&["call", "sched_yield"])?;
        expect_eq(
            "the errno of sched_yield with a profile",
            made.errno,
            "ENOSPC".into(),
        )?;
        held.end()?.success()?;
        for (options, words) in [
            (["--sysctl", "kernel.core_pattern=x"], ["host"].as_slice()),
            (["--cap-add", "SYS_TEIM"], &["SYS_TEIM"]),
            (["--security-opt", "apparmor=none-such"], &["apparmor"]),
            (["--security-opt", "label=type:x"], &["label"]),
            (["--shm-size", "0"], &["shm-size"]),
        ] {
            let ran = engine.run(&options).args([engine.image(), "true"]).run()?;
            expect(
                ran.status == 125 && words.iter().all(|word| ran.stderr.contains(word)),
                format!("{options:?} to be refused with {words:?}"),
                format!("status {}: {:?}", ran.status, ran.stderr),
            )?;
        }
        Ok(())
    });
}

#[test]
fn the_kernel_is_masked_and_read_only() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut held = engine.run(&[]).args([engine.image()]).hold()?;
        let kcore: Attempt = held.ask(&["read", "/proc/kcore"])?;
        expect(
            kcore.text.is_empty(),
            "/proc/kcore to be covered",
            "the memory of the kernel",
        )?;
        for path in [
            "/proc/sys/kernel/core_pattern",
            "/proc/irq/default_smp_affinity",
        ] {
            let written: Attempt = held.ask(&["open", path, "w"])?;
            expect_eq(
                &format!("the result of writing to {path}"),
                written.errno.as_str(),
                "EROFS",
            )?;
        }
        let sys = held.seen().mount("/sys").map(|sys| sys.options.clone());
        expect(
            sys.as_ref().is_some_and(|o| o.iter().any(|o| o == "ro")),
            "/sys to be read-only",
            format!("{sys:?}"),
        )?;
        let mounted: Attempt = held.ask(&["mount", "/tmp"])?;
        expect(!mounted.allowed, "mount(2) to be refused", "that it is not")?;
        held.end()?.success()?;
        Ok(())
    });
}

/// The nodes of devices in the host's /dev, except the console's, of which a
/// container with a terminal has its own.
fn host_devices() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/dev").context("read /dev")? {
        let entry = entry.context("read /dev")?;
        let kind = entry.file_type().context("stat in /dev")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (kind.is_char_device() || kind.is_block_device()) && name != "console" {
            names.push(name);
        }
    }
    Ok(names)
}

#[test]
fn privileged_lifts_it_all() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut held = engine
            .run(&["--privileged"])
            .args([engine.image()])
            .hold()?;
        let own = host::status_field(std::process::id() as i32, "CapEff").unwrap_or_default();
        let first = host::status_field(held.pid()?, "CapEff").unwrap_or_default();
        expect_eq("CapEff", first, own)?;
        expect_eq(
            "NoNewPrivs",
            host::status_field(held.pid()?, "NoNewPrivs").as_deref(),
            Some("0"),
        )?;
        let mounted: Attempt = held.ask(&["mount", "/tmp"])?;
        expect(mounted.allowed, "mount(2) to be allowed", &mounted.errno)?;
        let sys = held.seen().mount("/sys").map(|sys| sys.options.clone());
        expect(
            sys.as_ref().is_some_and(|o| o.iter().any(|o| o == "rw")),
            "/sys to be writable",
            format!("{sys:?}"),
        )?;
        held.end()?.success()?;
        let listed = engine
            .run(&["--privileged"])
            .args([engine.image(), "ls", "/dev"])
            .run()?
            .success()?
            .stdout;
        let theirs: Vec<&str> = listed.lines().collect();
        let missing: Vec<String> = host_devices()?
            .into_iter()
            .filter(|name| !theirs.contains(&name.as_str()))
            .collect();
        expect(
            missing.is_empty(),
            "the nodes of all devices of the host in /dev",
            format!("all but {missing:?}"),
        )?;
        Ok(())
    });
}

#[test]
fn limits_on_a_process_are_set() {
    check(|c| {
        let engine = Engine::new(c)?;
        let seen = engine
            .run(&["--ulimit", "nofile=123:456", "--ulimit", "core=0"])
            .args([engine.image()])
            .probe()?;
        let files = seen.limit("Max open files").unwrap_or_default();
        let core = seen.limit("Max core file size").unwrap_or_default();
        expect_eq(
            "the limits",
            vec![files[0], files[1], core[0]],
            vec!["123", "456", "0"],
        )?;
        engine
            .run(&["--ulimit", "files=1"])
            .args([engine.image(), "true"])
            .run()?
            .expect_status(125)?;
        Ok(())
    });
}

#[test]
fn a_limit_cannot_be_lifted_from_inside() {
    check(|c| {
        let engine = Engine::new(c)?;
        // Root in a new user namespace may mount its own control group,
        // writable, and is the owner of the files in it.
        for init in [&[][..], &["--init"]] {
            let options = [&["-m", "64m"], init].concat();
            let mut held = engine.run(&options).args([engine.image()]).hold()?;
            let made: Attempt = held.ask(&["unshare-user"])?;
            expect(
                !made.allowed && made.errno == "EPERM",
                "a user namespace to be refused in a container (EPERM)",
                format!(
                    "{:?}: with a cgroup namespace in it root inside lifts every limit",
                    made.errno
                ),
            )?;
            expect_eq(
                "Seccomp of the container's first process",
                host::status_field(held.pid()?, "Seccomp").as_deref(),
                Some("2"),
            )?;
            held.end()?.success()?;
        }
        for options in [
            &["--privileged"][..],
            &["--security-opt", "seccomp=unconfined"],
        ] {
            let mut held = engine.run(options).args([engine.image()]).hold()?;
            let made: Attempt = held.ask(&["unshare-user"])?;
            expect(
                made.allowed,
                format!("a user namespace to be allowed with {options:?}"),
                made.errno,
            )?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

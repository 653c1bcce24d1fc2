//! /proc, /sys and /dev inside, and what of them is masked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use check::prelude::*;
use check::requirement;
use nix::pty::openpty;

use crate::common::{
    ask, expect_mount, expect_read_only, expect_writable, marked, names, with_root, write,
};

#[test]
fn proc_shows_the_container_only() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let seen = with_root(c, &rootfs).probe()?;
        expect(
            seen.processes == [1],
            "/proc to show process 1 only",
            format!(
                "{} processes: it is the proc of the host's PID namespace",
                seen.processes.len()
            ),
        )?;
        let options = ["rw", "nosuid", "nodev", "noexec"];
        expect_mount(&seen, "/proc", "proc", &options)?;
        // Without a root of its own: the host's tree, and that /proc.
        let seen = c.step().probe()?;
        expect(
            seen.processes == [1],
            "/proc to show process 1 only, without --rootfs too",
            format!("{} processes", seen.processes.len()),
        )?;
        expect_eq(
            "the root without --rootfs",
            seen.root,
            names(Path::new("/"))?,
        )?;
        let points = |mounts: &[host::Mount]| -> Vec<String> {
            mounts.iter().map(|m| m.mount_point.clone()).collect()
        };
        let mut expected = points(&host::mounts("self")?);
        expected.push("/proc".to_owned());
        expected.sort();
        let mut found = points(&seen.mounts);
        found.sort();
        expect_eq("the mount points without --rootfs", found, expected)
    });
}

#[test]
fn sys_is_read_only() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        let options = ["ro", "nosuid", "nodev", "noexec"];
        expect_mount(held.seen(), "/sys", "sysfs", &options)?;
        expect_read_only(&mut held, &format!("/sys/{}", c.word("file")))?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn dev_has_what_programs_expect() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        expect_mount(held.seen(), "/dev", "tmpfs", &["nosuid", "noexec"])?;
        let nodes = [
            ("null", "1:3"),
            ("zero", "1:5"),
            ("full", "1:7"),
            ("random", "1:8"),
            ("urandom", "1:9"),
            ("tty", "5:0"),
        ];
        let mut expected = vec![("/dev".to_owned(), "directory 755".to_owned())];
        for (name, number) in nodes {
            expected.push((format!("/dev/{name}"), format!("character 666 {number}")));
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            expected.push((format!("/dev/{name}"), format!("link {target}")));
        }
        for (path, what) in &expected {
            let seen = ask(&mut held, &["stat", path])?;
            expect(
                &seen.text == what,
                format!("{path} to be: {what}"),
                format!("{}{}", seen.text, seen.errno),
            )?;
        }
        let listed = ask(&mut held, &["list", "/dev"])?;
        for name in listed.text.split(' ') {
            let known = expected
                .iter()
                .any(|(path, _)| path == &format!("/dev/{name}"))
                || ["pts", "shm", "mqueue", "console"].contains(&name);
            expect(
                known,
                "no device of the host in /dev",
                format!("/dev/{name}"),
            )?;
        }
        expect_writable(&mut held, "/dev/null")?;
        let full = ask(&mut held, &["write", "/dev/full", "x"])?;
        expect_eq(
            "the error of writing to /dev/full",
            full.errno.as_str(),
            "ENOSPC",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn terminals_are_its_own() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        // So that the host has at least one.
        let _terminal = openpty(None, None).context("openpty")?;
        let mut held = with_root(c, &rootfs).hold()?;
        let listed = ask(&mut held, &["list", "/dev/pts"])?;
        expect(
            listed.text == "ptmx",
            "/dev/pts without a terminal, in an instance of its own",
            format!("{:?} there: the terminals of the host", listed.text),
        )?;
        expect_mount(held.seen(), "/dev/pts", "devpts", &["nosuid", "noexec"])?;
        let pts = held.seen().mount("/dev/pts").cloned();
        let options = pts.map(|m| m.super_options).unwrap_or_default();
        for option in ["ptmxmode=666", "mode=620", "gid=5"] {
            expect(
                options.iter().any(|o| o == option),
                format!("devpts with {option}"),
                options.join(","),
            )?;
        }
        let terminal = ask(&mut held, &["terminal"])?;
        expect(
            terminal.text == "/dev/pts/0",
            "the first terminal that is opened through /dev/ptmx to be /dev/pts/0",
            format!("{}{}", terminal.text, terminal.errno),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn shared_memory_is_its_own() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let on_host = Path::new("/dev/shm").join(c.word("shm"));
        let there = on_host.parent().is_some_and(Path::is_dir);
        if there {
            write(&on_host, "of the host")?;
        }
        let inside = with_root(c, &rootfs).hold();
        if there {
            fs::remove_file(&on_host).context("remove a file of /dev/shm")?;
        }
        let mut held = inside?;
        let options = ["nosuid", "nodev", "noexec"];
        expect_mount(held.seen(), "/dev/shm", "tmpfs", &options)?;
        let listed = ask(&mut held, &["list", "/dev/shm"])?;
        expect_eq("what is in /dev/shm", listed.text.as_str(), "")?;
        let mode = ask(&mut held, &["stat", "/dev/shm"])?;
        expect_eq("the mode of /dev/shm", mode.text.as_str(), "directory 1777")?;
        if requirement::missing("filesystem:mqueue").is_none() {
            expect_mount(held.seen(), "/dev/mqueue", "mqueue", &options)?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_tells_about_the_host_is_masked() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        for path in [
            "/proc/acpi",
            "/proc/asound",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ] {
            // Not every kernel has all of them.
            let Ok(on_host) = fs::metadata(path) else {
                continue;
            };
            let word = if on_host.is_dir() { "list" } else { "read" };
            let seen = ask(&mut held, &[word, path])?;
            let what: String = seen.text.chars().take(40).collect();
            expect(
                seen.text.is_empty(),
                format!("{path} to be masked"),
                format!("it can be read inside: {what:?}"),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_commands_the_host_is_read_only() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        for path in [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ] {
            if fs::metadata(path).is_ok() {
                let mount = held.seen().mount(path);
                expect(
                    mount.is_some_and(|m| m.options.iter().any(|o| o == "ro")),
                    format!("{path} to be read-only"),
                    mount.map_or("no mount of its own".to_owned(), |m| m.options.join(",")),
                )?;
            }
        }
        // Harmless where it is allowed: the container's own domain name.
        expect_read_only(&mut held, "/proc/sys/kernel/domainname")?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_mask_is_nobody_elses() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let hosts = fs::metadata("/dev/null").context("stat /dev/null")?;
        let script = "for f in /proc/kcore /proc/keys /proc/timer_list; do \
                      [ ! -e $f ] || { stat -c %F $f; chmod 600 $f; }; done";
        let ran = with_root(c, &rootfs).args(["sh", "-c", script]).run()?;
        let after = fs::metadata("/dev/null").context("stat /dev/null")?;
        // Put right what a wrong solution has done to the host.
        fs::set_permissions("/dev/null", hosts.permissions()).context("chmod /dev/null")?;
        expect_eq(
            "the mode of the host's /dev/null after a chmod of a mask",
            format!("{:o}", after.permissions().mode()),
            format!("{:o}", hosts.permissions().mode()),
        )?;
        expect(
            ran.stdout.lines().all(|kind| kind.starts_with("regular")),
            "a masked file to be an empty file of the container's own",
            format!(
                "{:?}: whoever changes the mode of the host's null device changes it everywhere",
                ran.stdout
            ),
        )?;
        expect(
            ran.stderr.contains("Read-only"),
            "a mask to be read-only",
            format!("status {}, {:?}", ran.status, ran.stderr),
        )
    });
}

//! Maps of users and groups, given and found.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use check::check::open_to_all;
use check::prelude::*;

use crate::common::{NOBODY, called_by, give, map, on_host, option, somebody};

#[test]
fn without_a_map_everybody_is_nobody() {
    check(|c| {
        let uid = somebody(c);
        for step in [c.step(), called_by(c, uid, &[])?] {
            let seen = step.args(["--map-none"]).probe()?;
            expect_eq("the UIDs inside", seen.uids, [NOBODY; 3])?;
            expect_eq("the GIDs inside", seen.gids, [NOBODY; 3])?;
            expect_eq("uid_map", seen.uid_map, Vec::new())?;
            expect_eq("gid_map", seen.gid_map, Vec::new())?;
            expect_eq("CapEff after execve", seen.capabilities["CapEff"], 0)?;
        }
        let number = somebody(c).to_string();
        for args in [
            ["--map-none", "--user", "0"],
            ["--map-root", "--user", &number],
        ] {
            called_by(c, uid, &[])?
                .args(args)
                .args(["probe", "report"])
                .run()?
                .expect_error(125, &["not mapped", args[2]])?;
        }
        Ok(())
    });
}

#[test]
fn maps_are_written_as_given() {
    check(|c| {
        let (a, b, g) = (somebody(c), 100_000 + somebody(c), 200_000 + somebody(c));
        let (low, high, groups) = (option(0, a, 1000), option(5000, b, 10), option(0, g, 500));
        let held = c
            .step()
            .args(["--uid-map", &low, "--uid-map", &high, "--gid-map", &groups])
            .hold()?;
        let seen = held.seen();
        expect_eq(
            "uid_map",
            &seen.uid_map,
            &vec![map(0, a, 1000), map(5000, b, 10)],
        )?;
        expect_eq("gid_map", &seen.gid_map, &vec![map(0, g, 500)])?;
        expect_eq("the UIDs inside", seen.uids, [0; 3])?;
        expect_eq("the GIDs inside", seen.gids, [0; 3])?;
        expect_eq("the UID on the host", on_host(held.pid()?, "Uid")?, a)?;
        expect_eq("the GID on the host", on_host(held.pid()?, "Gid")?, g)?;
        held.end()?.success()?;
        let seen = c.step().args(["--uid-map", &low]).probe()?;
        expect_eq(
            "gid_map without --gid-map",
            seen.gid_map,
            vec![map(0, a, 1000)],
        )
    });
}

/// An /etc of a user's own, with these subordinate IDs.
fn etc(c: &Check, user: &str, uid: u32, subuid: &str, subgid: &str) -> Result<PathBuf> {
    let etc = c.dir().join(c.word("etc"));
    fs::create_dir(&etc).context("mkdir etc")?;
    open_to_all(&etc)?;
    for (name, content) in [
        (
            "passwd",
            format!("root:x:0:0::/:/bin/sh\n{user}:x:{uid}:{uid}::/:/bin/sh\n"),
        ),
        ("group", format!("root:x:0:\n{user}:x:{uid}:\n")),
        ("subuid", subuid.to_owned()),
        ("subgid", subgid.to_owned()),
    ] {
        fs::write(etc.join(name), content).with_context(|| format!("write etc/{name}"))?;
    }
    Ok(etc)
}

#[test]
fn ranges_come_from_subuid_and_subgid() {
    check(|c| {
        let (uid, user) = (somebody(c), c.word("user"));
        let (uids, gids) = (100_000 + somebody(c), 200_000 + somebody(c));
        let with = |subuid: &str, subgid: &str| -> Result<Step> {
            let etc = etc(c, &user, uid, subuid, subgid)?;
            called_by(c, uid, &["--etc", &etc.to_string_lossy()])
        };
        let subuid = format!("other:1:5\n{user}:{uids}:1000\n");
        let subgid = format!("{uid}:{gids}:500\n");
        let rootfs = c.rootfs()?;
        give(&rootfs, uid)?;
        fs::create_dir_all(rootfs.join("tmp")).context("mkdir tmp")?;
        Command::new("chmod")
            .arg("1777")
            .arg(rootfs.join("tmp"))
            .status()
            .context("chmod")?;
        let mut held = with(&subuid, &subgid)?
            .args(["--map-auto", "--user", "5:7", "--rootfs"])
            .args([&rootfs])
            .hold()?;
        let seen = held.seen();
        expect_eq(
            "uid_map",
            &seen.uid_map,
            &vec![map(0, uid, 1), map(1, uids, 1000)],
        )?;
        expect_eq(
            "gid_map",
            &seen.gid_map,
            &vec![map(0, uid, 1), map(1, gids, 500)],
        )?;
        expect_eq(
            "UID and GID inside",
            (seen.uids, seen.gids),
            ([5; 3], [7; 3]),
        )?;
        let written: Attempt = held.ask(&["write", "/tmp/made", "text"])?;
        expect(
            written.allowed,
            "UID 5 to write to its own /tmp",
            written.errno,
        )?;
        let made = fs::metadata(rootfs.join("tmp/made")).context("stat what was made inside")?;
        expect_eq(
            "owner and group, on the host, of a file that UID 5 and GID 7 made inside",
            (made.uid(), made.gid()),
            (uids + 4, gids + 6),
        )?;
        held.end()?.success()?;
        let (own, beyond) = (option(0, uid, 1), option(1, uids + 999, 2));
        with(&subuid, &subgid)?
            .args(["--uid-map", &own, "--uid-map", &beyond, "probe", "report"])
            .run()?
            .expect_error(125, &["/etc/subuid", &user, &(uids + 999).to_string()])?;
        with("", &subgid)?
            .args(["--map-auto", "probe", "report"])
            .run()?
            .expect_error(125, &["/etc/subuid", &user])?;
        Ok(())
    });
}

#[test]
fn a_missing_helper_is_named() {
    check(|c| {
        let uid = somebody(c);
        let (own, more) = (option(0, uid, 1), option(1, 100_000, 10));
        called_by(c, uid, &[])?
            .args(["--uid-map", &own, "--uid-map", &more, "probe", "report"])
            .env("PATH", c.programs_for_all()?)
            .run()?
            .expect_error(125, &["newuidmap", "package uidmap"])?;
        Ok(())
    });
}

#[test]
fn bad_maps_are_refused() {
    check(|c| {
        let cases: [(&[&str], &str); 7] = [
            (
                &["--uid-map", "0:100000:10", "--uid-map", "9:200000:1"],
                "overlap",
            ),
            (
                &["--uid-map", "0:100000:10", "--uid-map", "10:100009:1"],
                "overlap",
            ),
            (&["--gid-map", "5:5:1", "--gid-map", "0:0:9"], "overlap"),
            (&["--uid-map", "0:100000:0"], "empty"),
            (&["--uid-map", "1:0:4294967295"], "4294967294"),
            (&["--uid-map", "0:4294967295:1"], "4294967294"),
            (&["--userns", "host", "--map-root"], "--userns host"),
        ];
        for (args, word) in cases {
            c.step()
                .args(args)
                .args(["probe", "report"])
                .run()?
                .expect_error(125, &[word])?;
        }
        for text in ["0", "0:0", "0:0:1:1", "a:b:c", "0:-1:1", "0:0:4294967296"] {
            c.step()
                .args(["--uid-map", text, "probe", "report"])
                .run()?
                .expect_status(125)?;
        }
        Ok(())
    });
}

#[test]
fn an_exhausted_limit_is_named() {
    check(|c| {
        // The limit of a user namespace of the check's own, not the host's.
        let inner = "echo 0 > /proc/sys/user/max_user_namespaces && exec step-05 --map-root true";
        called_by(c, somebody(c), &[])?
            .args(["sh", "-c", inner])
            .run()?
            .expect_error(125, &["user.max_user_namespaces is 0"])?;
        Ok(())
    });
}

#[test]
fn a_switch_of_the_distribution_is_named() {
    check(|c| {
        let switch = "/proc/sys/kernel/unprivileged_userns_clone";
        let before = fs::read_to_string(switch).with_context(|| format!("read {switch}"))?;
        let step = called_by(c, somebody(c), &[])?.args(["probe", "report"]);
        fs::write(switch, "0").with_context(|| format!("write {switch}"))?;
        let ran = step.run();
        fs::write(switch, before).with_context(|| format!("write {switch}"))?;
        ran?.expect_error(125, &["kernel.unprivileged_userns_clone is 0"])?;
        Ok(())
    });
}

#[test]
fn accounts_are_regular_files() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let passwd = rootfs.join("etc/passwd");
        let with = |user: &str| {
            let step = c.step().args(["--rootfs"]).args([&rootfs]);
            step.args(["--user", user, "probe", "exit", "0"]).run()
        };
        let run = |why: &[&str]| -> Result<()> {
            let start = Instant::now();
            let ran = with("alice").map_err(|_| {
                failed(
                    "an /etc/passwd that is not a regular file to be refused",
                    "that it is read, or waited for, without end",
                )
            })?;
            expect(
                start.elapsed() < Duration::from_secs(10),
                "the answer within ten seconds",
                format!("{:?}", start.elapsed()),
            )?;
            ran.expect_error(125, why)?;
            // A number needs no file, whatever root inside has put there.
            with("5:6")?.success()?;
            Ok(())
        };
        let replace = |target: Option<&str>| -> Result<()> {
            match fs::remove_file(&passwd) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).context("unlink etc/passwd");
                }
                _ => {}
            }
            match target {
                None => {
                    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).context("mkfifo")
                }
                Some(target) => std::os::unix::fs::symlink(target, &passwd).context("symlink"),
            }
        };
        replace(None)?;
        run(&["/etc/passwd", "not a regular file"])?;
        // The memory of the kernel's zeroes is the first to end otherwise.
        replace(Some("/dev/tty"))?;
        run(&["/etc/passwd"])?;
        replace(Some("/proc/self/fd/0"))?;
        run(&["/etc/passwd", "ELOOP"])?;
        replace(Some("/etc"))?;
        run(&["/etc/passwd", "not a regular file"])?;
        // A link to nothing is no file: names are unknown.
        replace(Some("/no/such/file"))?;
        run(&["no user \"alice\""])
    });
}

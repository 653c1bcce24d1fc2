//! Checks of step 05: the user namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use check::check::open_to_all;
use check::prelude::*;

/// What the kernel calls who is not mapped: /proc/sys/kernel/overflowuid.
const NOBODY: u32 = 65534;

/// The UID, and the GID, of an ordinary user that no solution can know.
fn somebody(c: &Check) -> u32 {
    20_000 + c.number(20_000) as u32
}

/// The step's program in a directory that everybody may enter, with the probe
/// beside it: the checkout may be in somebody's home.
fn programs(c: &Check) -> Result<PathBuf> {
    let bin = c.dir().join("bin");
    if !bin.exists() {
        open_to_all(c.dir())?;
        fs::create_dir(&bin).context("mkdir")?;
        open_to_all(&bin)?;
        for (from, to) in [
            (c.step().command(), "step-05"),
            (c.other_program("probe").command(), "probe"),
        ] {
            fs::copy(from.get_program(), bin.join(to)).context("copy a program")?;
        }
    }
    Ok(bin)
}

/// A call of the step's program by this user. `more` are options of
/// `probe as`: groups, another /etc.
fn called_by(c: &Check, uid: u32, more: &[&str]) -> Result<Step> {
    let bin = programs(c)?;
    Ok(c.other_program("probe")
        .args(["as", "--uid", &uid.to_string()])
        .args(more)
        .args(["--"])
        .args([bin.join("step-05")])
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ))
}

/// Makes a whole tree somebody's.
fn give(tree: &Path, uid: u32) -> Result<()> {
    let status = Command::new("chown")
        .args(["-R", "-h", &format!("{uid}:{uid}")])
        .arg(tree)
        .status()
        .context("run chown -R")?;
    anyhow::ensure!(status.success(), "chown -R {uid} {tree:?}: {status}");
    Ok(())
}

/// The four UIDs, or GIDs, of a process as the host sees them, if they are one.
fn on_host(pid: i32, field: &str) -> Result<u32> {
    let ids = host::status_field(pid, field).unwrap_or_default();
    let first = ids.split(' ').next().unwrap_or_default();
    match first.parse() {
        Ok(id) if ids.split(' ').all(|other| other == first) => Ok(id),
        _ => Err(failed(
            format!("one {field} on the host"),
            format!("{ids:?}"),
        )),
    }
}

fn user_namespace(seen: &Seen) -> Result<u64> {
    seen.namespaces
        .get("user")
        .copied()
        .ok_or_else(|| failed("a user namespace in /proc/self/ns", "none"))
}

fn hosts_user_namespace() -> Result<u64> {
    Ok(host::namespaces("self")?["user"])
}

fn setgroups_of(pid: i32) -> Result<String> {
    let file = format!("/proc/{pid}/setgroups");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_owned())
}

fn map(first: u32, outside: u32, count: u32) -> [u64; 3] {
    [first, outside, count].map(u64::from)
}

fn option(first: u32, outside: u32, count: u32) -> String {
    format!("{first}:{outside}:{count}")
}

#[test]
fn an_ordinary_user_is_root_inside() {
    check(|c| {
        let uid = somebody(c);
        let held = called_by(c, uid, &[])?.hold()?;
        let seen = held.seen();
        expect_eq("the UIDs inside", seen.uids, [0; 3])?;
        expect_eq("the GIDs inside", seen.gids, [0; 3])?;
        expect_eq("uid_map", &seen.uid_map, &vec![map(0, uid, 1)])?;
        expect_eq("gid_map", &seen.gid_map, &vec![map(0, uid, 1)])?;
        expect(
            user_namespace(seen)? != hosts_user_namespace()?,
            "a user namespace of its own",
            "the host's: CLONE_NEWUSER was not asked for",
        )?;
        let sets = &seen.capabilities;
        expect(
            sets["CapEff"] != 0 && sets["CapEff"] == sets["CapBnd"],
            "every capability in the new namespace",
            format!(
                "CapEff {:#x}: UID 0 was not taken before execve",
                sets["CapEff"]
            ),
        )?;
        expect_eq("the UID on the host", on_host(held.pid()?, "Uid")?, uid)?;
        expect_eq("the GID on the host", on_host(held.pid()?, "Gid")?, uid)?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn setgroups_is_denied_where_it_must_be() {
    check(|c| {
        let uid = somebody(c);
        let (one, two) = (somebody(c), somebody(c));
        let groups = format!("{one},{two}");
        let held = called_by(c, uid, &["--groups", &groups])?.hold()?;
        expect_eq(
            "/proc/PID/setgroups of an ordinary user's namespace",
            setgroups_of(held.pid()?)?.as_str(),
            "deny",
        )?;
        held.end()?.success()?;
        let held = c.step().args(["--map-root"]).hold()?;
        expect_eq(
            "/proc/PID/setgroups of root's namespace",
            setgroups_of(held.pid()?)?.as_str(),
            "allow",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn an_ordinary_user_gets_the_other_namespaces() {
    check(|c| {
        let name = c.word("box");
        let mut held = called_by(c, somebody(c), &[])?
            .args(["--hostname", &name])
            .hold()?;
        let seen = held.seen();
        expect_eq(
            "the host name inside",
            seen.hostname.as_str(),
            name.as_str(),
        )?;
        expect_eq("the PID inside", seen.pid, 1)?;
        expect_eq("the processes in /proc", seen.processes.as_slice(), &[1])?;
        let before = host::namespaces("self")?;
        for kind in ["user", "uts", "ipc", "pid", "mnt"] {
            expect(
                seen.namespaces.get(kind) != before.get(kind),
                format!("a namespace of its own: {kind}"),
                "the host's",
            )?;
        }
        let other = c.word("other");
        expect(
            held.ask::<Attempt>(&["sethostname", &other])?.allowed,
            "root inside to rename its UTS namespace",
            "that it may not: the namespace belongs to the host's user namespace",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn an_ordinary_user_gets_a_root() {
    check(|c| {
        let uid = somebody(c);
        let rootfs = c.rootfs()?;
        give(&rootfs, uid)?;
        let mut held = called_by(c, uid, &[])?
            .args(["--rootfs".as_ref(), rootfs.as_os_str()])
            .hold()?;
        let seen = held.seen();
        expect_eq("the UIDs inside", seen.uids, [0; 3])?;
        expect_eq("the processes in /proc", seen.processes.as_slice(), &[1])?;
        for (place, fstype) in [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts")] {
            expect_eq(
                &format!("the file system on {place}"),
                seen.mount(place).map(|mount| mount.fstype.as_str()),
                Some(fstype),
            )?;
        }
        let of_the_host = c.dir().display().to_string();
        expect(
            !held.ask::<Attempt>(&["list", &of_the_host])?.allowed,
            "the host's files to be gone",
            format!("{of_the_host} in the container"),
        )?;
        let name = format!("/{}", c.word("made"));
        for path in [name.as_str(), "/dev/null"] {
            let written: Attempt = held.ask(&["write", path, "text"])?;
            expect(
                written.allowed,
                format!("root inside to write to {path}"),
                written.errno,
            )?;
        }
        let made = fs::metadata(rootfs.join(&name[1..])).context("stat what was made inside")?;
        expect_eq(
            "owner and group of a file that was made inside",
            (made.uid(), made.gid()),
            (uid, uid),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

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

#[test]
fn the_callers_groups_are_dropped() {
    check(|c| {
        let groups = format!("{},{}", somebody(c), somebody(c));
        let (uid, gid) = (somebody(c), somebody(c));
        let user = format!("{uid}:{gid}");
        for args in [
            ["--map-root", "--userns", "private"],
            ["--userns", "host", &user],
        ] {
            let mut args = args.to_vec();
            if args[2] == user {
                args.insert(2, "--user");
            }
            let held = called_by(c, 0, &["--groups", &groups])?
                .args(&args)
                .hold()?;
            let left = host::status_field(held.pid()?, "Groups").unwrap_or_default();
            let kept: Vec<&str> = left.split(' ').filter(|id| groups.contains(*id)).collect();
            expect(
                kept.iter().all(|id| id.is_empty()),
                format!("none of the caller's groups with {}", args.join(" ")),
                format!("{left}: setuid(2) and setgid(2) leave supplementary groups alone"),
            )?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn the_commands_user_comes_last() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let (name, first) = (c.word("box"), 100_000 + somebody(c));
        let (uid, gid) = (1 + c.number(900) as u32, 1 + c.number(900) as u32);
        let user = format!("{uid}:{gid}");
        let all = option(0, first, 65_536);
        give(&rootfs, first)?;
        for (map, outside) in [(Some(&all), (first + uid, first + gid)), (None, (uid, gid))] {
            let mut step = c.step().args(["--user", &user, "--hostname", &name]);
            if let Some(map) = map {
                step = step.args(["--uid-map", map]);
            }
            let mut held = step
                .args(["--rootfs".as_ref(), rootfs.as_os_str()])
                .hold()?;
            let seen = held.seen();
            expect_eq("the UIDs inside", seen.uids, [uid; 3])?;
            expect_eq("the GIDs inside", seen.gids, [gid; 3])?;
            expect_eq(
                "the host name inside",
                seen.hostname.as_str(),
                name.as_str(),
            )?;
            for set in ["CapPrm", "CapEff", "CapAmb"] {
                expect_eq(set, seen.capabilities[set], 0)?;
            }
            let pid = held.pid()?;
            expect_eq(
                "UID and GID on the host",
                (on_host(pid, "Uid")?, on_host(pid, "Gid")?),
                outside,
            )?;
            let again: Attempt = held.ask(&["sethostname", "again"])?;
            expect_eq("the errno of sethostname(2)", again.errno.as_str(), "EPERM")?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn users_are_looked_up_inside() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let (user, group) = (c.word("user"), c.word("group"));
        let [uid, primary, supplementary] = [0; 3].map(|_| somebody(c));
        let etc = rootfs.join("etc");
        fs::create_dir_all(&etc).context("mkdir etc")?;
        fs::write(
            etc.join("passwd"),
            format!("root:x:0:0::/:/bin/sh\n{user}:x:{uid}:{primary}::/:/bin/sh\n"),
        )
        .context("write etc/passwd")?;
        fs::write(
            etc.join("group"),
            format!("root:x:0:\n{group}:x:{supplementary}:root,{user}\n"),
        )
        .context("write etc/group")?;
        let inside = |spec: &str| {
            c.step()
                .args(["--rootfs".as_ref(), rootfs.as_os_str()])
                .args(["--user", spec])
        };
        for spec in [user.clone(), uid.to_string()] {
            let seen = inside(&spec).probe()?;
            expect_eq(
                "UID and GID of the named user",
                (seen.uids, seen.gids),
                ([uid; 3], [primary; 3]),
            )?;
            expect(
                seen.groups.contains(&supplementary),
                format!("the group {supplementary} of /etc/group"),
                format!("{:?}", seen.groups),
            )?;
        }
        let seen = inside(&format!("{user}:{group}")).probe()?;
        expect_eq(
            "UID and GID",
            (seen.uids, seen.gids),
            ([uid; 3], [supplementary; 3]),
        )?;
        let nobody = c.word("nobody");
        inside(&nobody)
            .args(["probe", "report"])
            .run()?
            .expect_error(125, &[&nobody, "/etc/passwd"])?;
        Ok(())
    });
}

#[test]
fn root_stays_where_it_is_unless_asked() {
    check(|c| {
        let own = hosts_user_namespace()?;
        expect(
            user_namespace(&c.step().probe()?)? == own,
            "root without options to stay in the user namespace that it is in",
            "it in a new one: root does not need one",
        )?;
        let seen = c.step().args(["--userns", "private"]).probe()?;
        expect(
            user_namespace(&seen)? != own,
            "a user namespace of its own with --userns private",
            "the host's",
        )?;
        expect_eq("its uid_map", seen.uid_map, vec![map(0, 0, 1)])?;
        called_by(c, somebody(c), &[])?
            .args(["--userns", "host", "probe", "report"])
            .run()?
            .expect_error(125, &["EPERM", "--userns host"])?;
        Ok(())
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
            "owner and group, on the host, of what UID 5 and GID 7 made inside",
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
            .env("PATH", programs(c)?)
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
fn a_container_can_be_joined() {
    check(|c| {
        let (uid, name) = (somebody(c), c.word("box"));
        let held = called_by(c, uid, &[])?.args(["--hostname", &name]).hold()?;
        let of = format!("container:{}", held.pid()?);
        let inside = user_namespace(held.seen())?;
        // All of it, and, under a new host name, the users alone.
        let other = c.word("other");
        for (args, hostname) in [
            (["--uts", &of, "--pid", &of], &name),
            (["--hostname", &other, "--pid", "private"], &other),
        ] {
            let seen = called_by(c, uid, &[])?
                .args(["--userns", &of])
                .args(args)
                .probe()?;
            expect_eq("the user namespace", user_namespace(&seen)?, inside)?;
            expect_eq("the UIDs inside", seen.uids, [0; 3])?;
            expect_eq("the host name", &seen.hostname, hostname)?;
        }
        called_by(c, uid + 1, &[])?
            .args(["--userns", &of, "probe", "report"])
            .run()?
            .expect_error(125, &["EPERM", &held.pid()?.to_string()])?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn root_inside_is_nobody_outside() {
    check(|c| {
        open_to_all(c.dir())?;
        let (uid, first) = (somebody(c), 100_000 + somebody(c));
        let secret = c.dir().join("secret");
        fs::write(&secret, "the host's").context("write a file")?;
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .context("chmod")?;
        let secret = secret.display().to_string();
        let whole = option(0, first, 65_536);
        for (step, owner) in [
            (called_by(c, uid, &[])?, uid),
            (c.step().args(["--uid-map", &whole]), first),
        ] {
            let own = c.dir().join(c.word("own"));
            fs::create_dir(&own).context("mkdir")?;
            give(&own, owner)?;
            let own = own.display().to_string();
            let mut held = step.hold()?;
            for (question, errno) in [
                (vec!["read", &secret], "EACCES"),
                (vec!["write", &secret, "changed"], "EACCES"),
                (vec!["mknod", &format!("{own}/disk")], "EPERM"),
            ] {
                let tried: Attempt = held.ask(&question)?;
                expect(
                    tried.errno == errno,
                    format!(
                        "`{}` by root inside to be refused with {errno}",
                        question[0]
                    ),
                    match tried.errno.as_str() {
                        "" => "it allowed: root inside is root outside",
                        other => other,
                    },
                )?;
            }
            let mounted: Attempt = held.ask(&["mount", &own])?;
            expect(
                mounted.allowed,
                "root inside to mount a tmpfs in its own mount namespace",
                mounted.errno,
            )?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

/// What the table of `caps` says about the first attempt that holds `word`.
fn verdict(table: &str, word: &str) -> Result<&'static str> {
    let line = table
        .lines()
        .find(|line| line.contains(word) && line.contains("may"));
    match line {
        Some(line) if line.contains("may not") => Ok("may not"),
        Some(_) => Ok("may"),
        None => Err(failed(
            format!("a line about the {word} that says “may” or “may not”"),
            format!("{table:?}"),
        )),
    }
}

#[test]
fn caps_tells_what_root_may_do() {
    check(|c| {
        let before = fs::metadata("/etc/passwd").context("stat /etc/passwd")?;
        let inside = called_by(c, somebody(c), &[])?
            .args(["caps"])
            .run()?
            .success()?
            .stdout;
        for set in [
            "inheritable",
            "permitted",
            "effective",
            "bounding",
            "ambient",
        ] {
            expect(
                inside.contains(set),
                format!("the {set} set"),
                format!("{inside:?}"),
            )?;
        }
        let here = c.step().args(["caps", "--here"]).run()?.success()?.stdout;
        for (word, in_there, out_here) in [
            ("host name", "may", "may"),
            ("tmpfs", "may", "may"),
            ("clock", "may not", "may"),
            ("disk", "may not", "may"),
            ("block device", "may not", "may"),
            ("file of the host", "may not", "may"),
        ] {
            expect_eq(
                &format!("“{word}” for root inside"),
                verdict(&inside, word)?,
                in_there,
            )?;
            expect_eq(
                &format!("“{word}” for the real root"),
                verdict(&here, word)?,
                out_here,
            )?;
        }
        let after = fs::metadata("/etc/passwd").context("stat /etc/passwd")?;
        expect_eq(
            "size and time of /etc/passwd",
            (after.size(), after.mtime_nsec(), after.ctime_nsec()),
            (before.size(), before.mtime_nsec(), before.ctime_nsec()),
        )
    });
}

#[test]
fn it_dies_with_its_launcher() {
    check(|c| {
        let (first, uid) = (100_000 + somebody(c), somebody(c).to_string());
        let whole = option(0, first, 65_536);
        let cases = [
            vec!["--pid", "host", "--user", &uid],
            vec!["--pid", "host", "--uid-map", &whole],
            vec!["--uid-map", &whole, "--user", "7"],
        ];
        for args in cases {
            let held = c.step().args(&args).hold()?;
            let pid = held.pid()?;
            held.signal(Signal::SIGKILL)?;
            // The probe would end by itself at the end of its input, which the
            // check holds open.
            let end = Instant::now() + Duration::from_secs(5);
            let gone = || host::process(pid).is_none_or(|process| process.state == 'Z');
            while !gone() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            expect(
                gone(),
                format!(
                    "the container to die with its launcher ({})",
                    args.join(" ")
                ),
                "it alive: a change of credentials clears PR_SET_PDEATHSIG",
            )?;
            held.wait()?;
        }
        Ok(())
    });
}

#[test]
fn nobody_becomes_root_by_a_number() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let (uid, gid, more) = (somebody(c), somebody(c), somebody(c));
        let etc = rootfs.join("etc");
        fs::create_dir_all(&etc).context("mkdir etc")?;
        let passwd = format!(
            "root:x:0:0::/:/bin/sh\n{uid}:x:0:0::/:/bin/sh\nmax:x:4294967295:{gid}::/:/bin/sh\n\
             grp:x:{uid}:4294967295::/:/bin/sh\nalice:x:{more}:{gid}::/:/bin/sh\n"
        );
        fs::write(etc.join("passwd"), passwd).context("write etc/passwd")?;
        let group = format!("root:x:0:\n{gid}:x:0:\nmore:x:{uid}:alice\nmax:x:4294967295:\n");
        fs::write(etc.join("group"), group).context("write etc/group")?;
        let inside = |spec: &str| {
            c.step()
                .args(["--rootfs".as_ref(), rootfs.as_os_str()])
                .args(["--user", spec])
        };
        // “No change”, as setresuid(2) calls -1, and what is beyond.
        for spec in [
            "4294967295",
            "0:4294967295",
            "4294967296",
            "-1",
            "max",
            "max:0",
            "root:max",
        ] {
            let ran = inside(spec).args(["probe", "report"]).run()?;
            expect(
                ran.status == 125,
                format!("--user {spec} to be refused (125)"),
                format!(
                    "status {:?}: -1 is “no change” to setresuid(2), and root stays root",
                    ran.status
                ),
            )?;
        }
        for (spec, uids, gids, groups) in [
            (format!("{uid}"), uid, u32::MAX, None),
            (format!("{more}:{gid}"), more, gid, Some(vec![gid])),
            (format!("00{more}:0{gid}"), more, gid, Some(vec![gid])),
            ("alice".into(), more, gid, Some(vec![gid, uid])),
            (format!("{more}:"), more, gid, Some(vec![gid, uid])),
            (format!(":{gid}"), 0, gid, Some(vec![gid])),
            (":".into(), 0, 0, Some(vec![0])),
            (String::new(), 0, 0, Some(vec![0])),
        ] {
            if gids == u32::MAX {
                // The line of that number comes after the one of that name.
                let ran = inside(&spec).args(["probe", "report"]).run()?;
                expect(
                    ran.status == 125,
                    format!("the group 4294967295 of UID {spec} to be refused"),
                    format!("status {:?}: a number was taken for a name", ran.status),
                )?;
                continue;
            }
            let mut seen = inside(&spec).probe()?;
            seen.groups.sort_unstable();
            let mut groups = groups.unwrap_or_default();
            groups.sort_unstable();
            expect_eq(
                &format!("the UIDs of --user {spec:?}"),
                seen.uids,
                [uids; 3],
            )?;
            expect_eq(
                &format!("the GIDs of --user {spec:?}"),
                seen.gids,
                [gids; 3],
            )?;
            expect(
                seen.groups == groups,
                format!("the groups {groups:?} for --user {spec:?}, the primary one among them"),
                format!("{:?}", seen.groups),
            )?;
        }
        Ok(())
    });
}

#[test]
fn groups_that_stay_are_said() {
    check(|c| {
        let uid = somebody(c);
        let groups = format!("{},{}", somebody(c), somebody(c));
        let ran = called_by(c, uid, &["--groups", &groups])?
            .args(["true"])
            .run()?
            .success()?;
        expect(
            ran.stderr.contains("warning") && ran.stderr.contains("2 supplementary groups stay"),
            "a warning, without -v, that the caller's groups stay",
            format!(
                "{:?}: a protection that is not available must not be missing in silence",
                ran.stderr
            ),
        )?;
        let ran = called_by(c, uid, &[])?.args(["true"]).run()?.success()?;
        expect(
            ran.stderr.is_empty(),
            "no warning for a caller without such groups",
            ran.stderr,
        )
    });
}

#[test]
fn accounts_are_regular_files() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let passwd = rootfs.join("etc/passwd");
        let run = |why: &[&str]| -> Result<()> {
            let start = Instant::now();
            let ran = c
                .step()
                .args(["--rootfs"])
                .args([&rootfs])
                .args(["--user", "alice", "probe", "exit", "0"])
                .run()
                .map_err(|_| {
                    failed(
                        "an /etc/passwd that is no regular file to be refused",
                        "that it is read, or waited for, without end",
                    )
                })?;
            expect(
                start.elapsed() < Duration::from_secs(10),
                "the answer within ten seconds",
                format!("{:?}", start.elapsed()),
            )?;
            ran.expect_error(125, why)?;
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
        run(&["/etc/passwd", "no regular file"])?;
        // The memory of the kernel's zeroes is the first to end otherwise.
        replace(Some("/dev/tty"))?;
        run(&["/etc/passwd"])?;
        replace(Some("/proc/self/fd/0"))?;
        run(&["/etc/passwd", "ELOOP"])?;
        replace(Some("/etc"))?;
        run(&["/etc/passwd", "no regular file"])?;
        // A link to nothing is no file: names are unknown.
        replace(Some("/no/such/file"))?;
        run(&["no user \"alice\""])
    });
}

#[test]
fn what_is_bound_of_the_host_cannot_be_changed() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let hosts = fs::metadata("/dev/full").context("stat /dev/full")?;
        // Root inside is the host's root: nothing else keeps it from the node.
        let script = "chmod 600 /dev/full; : >/dev/null && echo written";
        let ran = c
            .step()
            .args(["--uid-map", "0:0:65536", "--rootfs"])
            .args([&rootfs])
            .args(["sh", "-c", script])
            .run()?;
        let after = fs::metadata("/dev/full").context("stat /dev/full")?;
        fs::set_permissions("/dev/full", hosts.permissions()).context("chmod /dev/full")?;
        expect(
            after.mode() == hosts.mode() && ran.stderr.contains("Read-only"),
            "the host's device nodes to be bound read-only",
            format!(
                "mode {:o} of the host's /dev/full after a chmod inside: the node is the host's",
                after.mode() & 0o7777
            ),
        )?;
        expect_eq(
            "what is written to the device",
            ran.stdout.trim(),
            "written",
        )?;
        expect(
            ran.stderr.contains("warning: mount: /sys is the host's"),
            "the container to be told that /sys is the host's",
            format!("{:?}", ran.stderr),
        )
    });
}

#[test]
fn the_hosts_queues_take_no_others_place() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let other = c.step().args(["--userns", "host"]).hold()?;
        let of = format!("container:{}", other.pid()?);
        let start = |ipc: &str| {
            c.step()
                .args([
                    "--userns",
                    "private",
                    "--map-root",
                    "--ipc",
                    ipc,
                    "--rootfs",
                ])
                .args([&rootfs])
                .args(["true"])
                .run()
        };
        let ran = start(&of)?;
        expect(
            ran.status == 125 && ran.stderr.contains("/dev/mqueue"),
            "status 125 and a word on /dev/mqueue, whose queues would be the host's",
            format!("status {}: {:?}", ran.status, ran.stderr),
        )?;
        other.end()?.success()?;
        start("host")?.success()?;
        start("private")?.success()?;
        Ok(())
    });
}

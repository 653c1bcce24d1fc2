//! Users, groups and capabilities of the command.

use std::fs;
use std::os::unix::fs::MetadataExt;

use check::check::open_to_all;
use check::prelude::*;

use crate::common::{called_by, give, on_host, option, somebody};

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
        let (uid, gid) = (somebody(c), somebody(c));
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

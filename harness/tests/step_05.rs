//! Checks of step 05: the user namespace.

#[path = "step_05/common.rs"]
mod common;
#[path = "step_05/credentials.rs"]
mod credentials;
#[path = "step_05/maps.rs"]
mod maps;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use check::prelude::*;
use common::{
    called_by, give, hosts_user_namespace, map, on_host, option, setgroups_of, somebody,
    user_namespace,
};

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
            "a warning that /sys is the host's",
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
            "status 125, and a message about /dev/mqueue: its queues would be the host's",
            format!("status {}: {:?}", ran.status, ran.stderr),
        )?;
        other.end()?.success()?;
        start("host")?.success()?;
        start("private")?.success()?;
        Ok(())
    });
}

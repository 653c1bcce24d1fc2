//! What the host and the container see of one another's mounts.

use std::path::Path;

use check::prelude::*;

use crate::common::{ask, make_dir, marked, shared_host, with_root, write};

#[test]
fn the_host_sees_no_mount_of_the_container() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("mnt"))?;
        let tree = shared_host(c)?;
        let before = tree.mounts()?;
        for (step, target, what) in [
            (c.step(), dir.as_path(), "a container without --rootfs"),
            (
                with_root(c, &rootfs),
                Path::new("/mnt"),
                "a container with --rootfs",
            ),
        ] {
            let started = step.hold();
            tree.expect_unchanged(&before, what)?;
            let mut held = started?;
            let target = target.display().to_string();
            let mounted = ask(&mut held, &["mount", &target])?;
            expect(
                mounted.allowed,
                format!("{what} to mount a tmpfs inside"),
                mounted.errno,
            )?;
            tree.expect_unchanged(&before, what)?;
            held.end()?.success()?;
        }
        tree.expect_unchanged(&before, "a container that has ended")
    });
}

#[test]
fn a_slave_sees_what_the_host_mounts() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("mnt"))?;
        let mark = c.word("mark");
        let tree = shared_host(c)?;
        let before = tree.mounts()?;
        for (step, on_host, inside) in [
            (c.step(), dir.clone(), dir.as_path()),
            (with_root(c, &rootfs), rootfs.join("mnt"), Path::new("/mnt")),
        ] {
            let mut held = step.args(["--propagation", "slave"]).hold()?;
            tree.expect_unchanged(&before, "a slave")?;
            tree.mount(&on_host)?;
            write(&on_host.join(&mark), "")?;
            let listed = ask(&mut held, &["list", &inside.display().to_string()])?;
            tree.take_new(&before)?;
            expect(
                listed.text == mark,
                "a slave to see what the host mounts later",
                match listed.text.as_str() {
                    "" => "nothing there: a private mount receives nothing".to_owned(),
                    text => format!("{text:?}"),
                },
            )?;
            let mounted = ask(&mut held, &["mount", &inside.display().to_string()])?;
            expect(mounted.allowed, "a mount inside", mounted.errno)?;
            tree.expect_unchanged(&before, "a slave")?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn shared_mounts_go_both_ways() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let tree = shared_host(c)?;
        let before = tree.mounts()?;
        let held = c.step().args(["--propagation", "shared"]).hold();
        // By itself the launcher mounts nothing there: only the command may. Looked
        // at first, because nothing else is as it was once /proc is covered.
        tree.expect_unchanged(&before, "a launcher with --propagation shared")?;
        let mut held = held?;
        let mounted = ask(&mut held, &["mount", "/proc", "proc"])?;
        expect(mounted.allowed, "a mount of proc inside", mounted.errno)?;
        let new = tree.take_new(&before)?;
        expect(
            new.iter()
                .any(|m| m.mount_point == "/proc" && m.fstype == "proc"),
            "a proc mounted in a shared tree to cover the host's /proc as well",
            "no new mount on the host: the mounts are not shared",
        )?;
        held.end()?.success()?;
        // A root of its own has no peer on the host.
        let mut held = with_root(c, &rootfs)
            .args(["--propagation", "shared"])
            .hold()?;
        let mounted = ask(&mut held, &["mount", "/mnt"])?;
        expect(mounted.allowed, "a mount inside", mounted.errno)?;
        tree.expect_unchanged(&before, "a container with a root of its own")?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn mountinfo_shows_the_propagation() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let _tree = shared_host(c)?;
        for (kind, field) in [
            ("private", None),
            ("slave", Some("master:")),
            ("shared", Some("shared:")),
            ("unbindable", Some("unbindable")),
        ] {
            let seen = with_root(c, &rootfs)
                .args(["--propagation", kind])
                .probe()?;
            let fields = seen
                .mount("/")
                .map(|m| m.propagation.clone())
                .unwrap_or_default();
            let as_asked = match field {
                None => fields.is_empty(),
                Some(field) => fields.len() == 1 && fields[0].starts_with(field),
            };
            expect(
                as_asked,
                format!("the root to be {kind} in mountinfo"),
                match fields.is_empty() {
                    true => "no such field: a private mount has none".to_owned(),
                    false => fields.join(" "),
                },
            )?;
        }
        Ok(())
    });
}

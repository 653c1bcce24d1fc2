//! Volumes: binds, tmpfs, and where they are mounted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use check::prelude::*;

use crate::common::{
    ask, expect_mount, expect_read_only, expect_writable, link, make_dir, marked, names, volume,
    with_root, write,
};

#[test]
fn a_bind_shows_the_hosts_files() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let (text, from_inside) = (c.word("text"), c.word("new"));
        let dir = make_dir(c.dir().join("data"))?;
        let file = c.dir().join("file");
        write(&dir.join("file"), &text)?;
        write(&file, &text)?;
        let mut held = with_root(c, &rootfs)
            .args(["--bind", &volume(&dir, "/mnt")])
            .args(["--bind", &volume(&file, "/etc/hostname")])
            .hold()?;
        for path in ["/mnt/file", "/etc/hostname"] {
            let read = ask(&mut held, &["read", path])?;
            expect_eq(
                &format!("what {path} says inside"),
                read.text.as_str(),
                &text,
            )?;
        }
        let path = format!("/mnt/{from_inside}");
        expect_writable(&mut held, &path)?;
        expect(
            dir.join(&from_inside).exists(),
            "what is written in the bind inside to be there on the host",
            names(&dir)?.join(" "),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_read_only_bind_refuses_writes() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("data"))?;
        let below = make_dir(dir.join("below"))?;
        let file = c.dir().join("file");
        write(&file, "")?;
        let tree = Tree::private()?;
        tree.mount(&below)?;
        let mut held = with_root(c, &rootfs)
            .args(["--bind", &format!("{}:ro", volume(&dir, "/mnt"))])
            .args(["--bind", &format!("{}:ro", volume(&file, "/etc/hostname"))])
            .hold()?;
        for path in ["/mnt/new", "/etc/hostname", "/mnt/below/new"] {
            expect_read_only(&mut held, path)?;
        }
        held.end()?.success()?;
        // The mount inside was to be read-only, not the host's file system.
        write(&dir.join("on the host"), "")?;
        write(&below.join("on the host"), "")
    });
}

#[test]
fn missing_targets_are_made_in_order() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let text = c.word("text");
        let dir = make_dir(c.dir().join("data"))?;
        write(&dir.join("file"), &text)?;
        // The deeper one first, as a user may well write it.
        let mut held = with_root(c, &rootfs)
            .args(["--bind", &volume(&dir, "/vol/one/two")])
            .args(["--bind", &volume(&dir.join("file"), "/vol/new-file")])
            .args(["--tmpfs", "/vol"])
            .hold()?;
        expect_mount(held.seen(), "/vol", "tmpfs", &[])?;
        for path in ["/vol/one/two/file", "/vol/new-file"] {
            let read = ask(&mut held, &["read", path])?;
            expect(
                read.text == text,
                format!("{path} inside to show the host's file"),
                format!("{}{}", read.text, read.errno),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_link_cannot_lead_a_mount_out() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("data"))?;
        write(&dir.join("file"), "")?;
        // A link to a place that exists inside ends there, not on the host.
        let same = make_dir(c.dir().join("same"))?;
        let inside = rootfs.join(same.strip_prefix("/").context("an absolute path")?);
        make_dir(inside)?;
        link(&same, &rootfs.join("same"))?;
        let mut held = with_root(c, &rootfs)
            .args(["--bind", &volume(&dir, "/same")])
            .hold()?;
        let listed = ask(&mut held, &["list", &same.display().to_string()])?;
        expect(
            listed.text == "file",
            "a mount on a link to land where the link leads inside",
            match listed.text.as_str() {
                "" => "nothing there: the link was followed with the host's root".to_owned(),
                text => format!("{text:?} there"),
            },
        )?;
        held.end()?.success()?;
        // A link to a place of the host's leads nowhere.
        let outside = make_dir(c.dir().join("outside"))?;
        write(&outside.join("kept"), "")?;
        let up = "../".repeat(32);
        for (name, target) in [
            ("absolute", outside.display().to_string()),
            ("relative", format!("{up}{}", outside.display())),
            ("missing", format!("{}/new", outside.display())),
            ("magic", format!("/proc/self/root{}", outside.display())),
        ] {
            link(target, &rootfs.join(name))?;
            for inside in [format!("/{name}"), format!("/{name}/new")] {
                let ran = with_root(c, &rootfs)
                    .args(["--bind", &volume(&dir, &inside)])
                    .args(["probe", "list", &inside])
                    .run()?;
                let left = names(&outside)?;
                expect(
                    left == ["kept"],
                    format!("a link in the rootfs ({name}) not to lead a mount out to the host"),
                    format!("made on the host by --bind …:{inside}: {}", left.join(" ")),
                )?;
                if ran.status != 0 {
                    ran.expect_error(125, &[&inside])?;
                    continue;
                }
                let listed: Attempt = ran.json()?;
                expect(
                    listed.text == "file",
                    format!("--bind …:{inside} to land inside the root or to be refused"),
                    format!(
                        "neither: {inside} shows {:?} {}: the target was resolved on the host",
                        listed.text, listed.errno
                    ),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_tmpfs_has_its_options() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        write(&rootfs.join("run/of-the-rootfs"), "")?;
        let mut held = with_root(c, &rootfs)
            .args(["--tmpfs", "/run:size=1m,mode=700"])
            .args(["--tmpfs", "/mnt:exec"])
            .hold()?;
        let inert = ["nosuid", "nodev", "noexec"];
        expect_mount(held.seen(), "/run", "tmpfs", &inert)?;
        let run = held.seen().mount("/run").cloned();
        let options = run.map(|m| m.super_options).unwrap_or_default();
        expect(
            options.iter().any(|o| o == "size=1024k"),
            "a tmpfs of size=1m",
            options.join(","),
        )?;
        expect_mount(held.seen(), "/mnt", "tmpfs", &["nosuid", "nodev"])?;
        let mnt = held.seen().mount("/mnt").cloned();
        let options = mnt.map(|m| m.options).unwrap_or_default();
        expect(
            !options.iter().any(|o| o == "noexec"),
            "a tmpfs with exec not to be noexec",
            options.join(","),
        )?;
        let mode = ask(&mut held, &["stat", "/run"])?;
        expect_eq("the mode of /run", mode.text.as_str(), "directory 700")?;
        let listed = ask(&mut held, &["list", "/run"])?;
        expect_eq("what is in the new tmpfs", listed.text.as_str(), "")?;
        expect_writable(&mut held, "/run/new")?;
        held.end()?.success()?;
        expect_eq(
            "what is left in the rootfs",
            names(&rootfs.join("run"))?,
            vec!["of-the-rootfs".to_owned()],
        )
    });
}

#[test]
fn bad_volumes_are_refused() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("data"))?;
        let missing = c.dir().join(c.word("missing"));
        let name = missing.display().to_string();
        for (option, value, word) in [
            ("--bind", volume(&missing, "/mnt"), name.as_str()),
            ("--bind", volume(&dir, "relative"), "relative"),
            ("--bind", volume(&dir, ""), "DST"),
            ("--bind", dir.display().to_string(), "SRC:DST"),
            ("--bind", format!("{}:rx", volume(&dir, "/mnt")), "ro"),
            ("--bind", volume(&dir, "/etc/passwd"), "/etc/passwd"),
            ("--bind", volume(Path::new("/proc/version"), "/etc"), "/etc"),
            ("--tmpfs", "relative".to_owned(), "relative"),
            (
                "--tmpfs",
                "/mnt:no-such-option=1".to_owned(),
                "no-such-option",
            ),
        ] {
            with_root(c, &rootfs)
                .args([option, &value, "probe", "report"])
                .run()?
                .expect_error(125, &[option, word])?;
        }
        expect(
            !missing.exists(),
            "the missing source of a bind not to be made",
            "a directory on the host",
        )
    });
}

#[test]
fn what_a_link_leads_to_is_made_inside() {
    check(|c| {
        let (rootfs, mark) = marked(c)?;
        let file = c.dir().join("zone");
        write(&file, &mark)?;
        let up = "../".repeat(32);
        link("/usr/share/zoneinfo/Here", &rootfs.join("etc/localtime"))?;
        link(format!("{up}quay/run"), &rootfs.join("run2"))?;
        let mut held = with_root(c, &rootfs)
            .args(["--bind", &volume(&file, "/etc/localtime")])
            .args(["--tmpfs", "/run2/x"])
            .hold()?;
        let read = ask(&mut held, &["read", "/usr/share/zoneinfo/Here"])?;
        expect_eq(
            "a file bound on a link to nothing",
            read.text.as_str(),
            mark.as_str(),
        )?;
        let listed = ask(&mut held, &["stat", "/quay/run/x"])?;
        expect(
            listed.text.starts_with("directory"),
            "a tmpfs below a link to nothing, where the link leads inside the root",
            format!("{} {}", listed.text, listed.errno),
        )?;
        held.end()?.success()?;
        // And nothing in the place of a directory, or of a file.
        write(&rootfs.join("plain"), "")?;
        for target in ["/plain/x", "/plain", "/proc/1", "/proc/self/fd/0"] {
            with_root(c, &rootfs)
                .args(["--tmpfs", target, "probe", "exit", "0"])
                .run()?
                .expect_error(125, &[target])?;
        }
        Ok(())
    });
}

#[test]
fn a_tmpfs_is_as_the_directory_below_it() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(rootfs.join("spool"))?;
        let drawn = || 10_000 + c.number(40_000) as u32;
        let (uid, gid) = (drawn(), drawn());
        std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).context("chown")?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2750)).context("chmod")?;
        let look = |options: &str| -> Result<String> {
            let ran = with_root(c, &rootfs)
                .args(["--tmpfs", options])
                .args(["stat", "-c", "%a %u %g", "/spool"])
                .run()?
                .success()?;
            Ok(ran.stdout.trim().to_owned())
        };
        expect_eq(
            "mode, user and group of a tmpfs over a directory",
            look("/spool")?,
            format!("2750 {uid} {gid}"),
        )?;
        expect_eq(
            "the same with mode=711",
            look("/spool:mode=711")?,
            format!("711 {uid} {gid}"),
        )
    });
}

//! Checks of step 04: the mount namespace and a root of the container's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use check::prelude::*;
use check::requirement;
use nix::pty::openpty;

/// The names in a directory, sorted.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn make_dir(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("mkdir {}", path.display()))?;
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn link(target: impl AsRef<Path>, path: &Path) -> Result<()> {
    symlink(target, path).with_context(|| format!("symlink {}", path.display()))
}

/// A root file system with a file in its root whose name nobody can know.
fn marked(c: &Check) -> Result<(PathBuf, String)> {
    let rootfs = c.rootfs()?;
    let mark = c.word("mark");
    write(&rootfs.join(&mark), "")?;
    Ok((rootfs, mark))
}

/// A host as systemd leaves it, whatever this one is: every mount is shared,
/// and the check's directory is not on the root's.
fn shared_host(c: &Check) -> Result<Tree> {
    let tree = Tree::shared()?;
    tree.bind(c.dir())?;
    Ok(tree)
}

/// The step with that root.
fn with_root(c: &Check, rootfs: &Path) -> Step {
    c.step().args(["--rootfs"]).args([rootfs])
}

/// `SRC:DST`
fn volume(source: &Path, target: &str) -> String {
    format!("{}:{target}", source.display())
}

fn ask(held: &mut Held, words: &[&str]) -> Result<Attempt> {
    held.ask(words)
}

/// The mount at `path` inside is of this type and has these options.
fn expect_mount(seen: &Seen, path: &str, fstype: &str, options: &[&str]) -> Result<()> {
    let mount = seen
        .mount(path)
        .ok_or_else(|| failed(format!("a mount on {path} inside"), "none"))?;
    expect_eq(
        &format!("the file system on {path}"),
        mount.fstype.as_str(),
        fstype,
    )?;
    for option in options {
        expect(
            mount.options.iter().any(|o| o == option),
            format!("{path} to be mounted {option}"),
            mount.options.join(","),
        )?;
    }
    Ok(())
}

/// Writing there is refused because the mount is read-only.
fn expect_read_only(held: &mut Held, path: &str) -> Result<()> {
    let tried = ask(held, &["write", path, "x"])?;
    expect(
        tried.errno == "EROFS",
        format!("writing to {path} to be refused with EROFS"),
        if tried.allowed {
            "it allowed".to_owned()
        } else {
            tried.errno
        },
    )
}

fn expect_writable(held: &mut Held, path: &str) -> Result<()> {
    let tried = ask(held, &["write", path, "x"])?;
    expect(tried.allowed, format!("{path} to be writable"), tried.errno)
}

#[test]
fn the_root_is_the_rootfs() {
    check(|c| {
        let _tree = shared_host(c)?;
        let (rootfs, mark) = marked(c)?;
        let before = names(&rootfs)?;
        let host = host::namespaces("thread-self")?;
        let seen = with_root(c, &rootfs).probe()?;
        expect(
            seen.namespaces.get("mnt") != host.get("mnt"),
            "a mount namespace of its own",
            "the host's: CLONE_NEWNS was not asked for",
        )?;
        expect(
            seen.root.contains(&mark),
            "the root inside to be the one of --rootfs",
            seen.root.join(" "),
        )?;
        expect_eq("the entries of the root", seen.root, before)?;
        expect_eq("the working directory", seen.cwd.as_str(), "/")
    });
}

#[test]
fn nothing_of_the_hosts_tree_is_left() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let held = with_root(c, &rootfs).hold()?;
        // As the host sees it: the probe could have been shown a false /proc.
        let mounts = host::mounts(&held.pid()?.to_string())?;
        let roots = mounts.iter().filter(|m| m.mount_point == "/").count();
        expect(
            roots == 1,
            "one mount on / inside",
            format!("{roots}: the old root still lies on top of the new one"),
        )?;
        let ours = ["/proc", "/sys", "/dev"];
        for mount in mounts.iter().filter(|m| m.mount_point != "/") {
            let known = ours.iter().any(|dir| {
                let rest = mount.mount_point.strip_prefix(dir);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            expect(
                known,
                "no mount of the host to be left inside",
                format!("{}: the old root was not detached", mount.describe()),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn an_escape_ends_in_the_containers_root() {
    check(|c| {
        let (rootfs, mark) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        let root = ask(&mut held, &["escape"])?;
        expect(
            root.allowed && root.text.contains(&mark),
            "the escape from a chroot to end in the container's own root",
            format!(
                "the host's: {} {}; the old root can still be reached from inside",
                root.text, root.errno
            ),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_chroot_can_be_left() {
    check(|c| {
        let (rootfs, mark) = marked(c)?;
        let tree = shared_host(c)?;
        let before = tree.mounts()?;
        let mut held = with_root(c, &rootfs).args(["--chroot"]).hold()?;
        expect(
            held.seen().root.contains(&mark),
            "the root inside to be the one of --rootfs",
            held.seen().root.join(" "),
        )?;
        let root = ask(&mut held, &["escape"])?;
        expect(
            root.allowed && !root.text.contains(&mark),
            "the escape from --chroot to reach the host's root",
            format!("it stopped: {} {}", root.text, root.errno),
        )?;
        expect_eq(
            "what the escaped process sees",
            root.text,
            names(Path::new("/"))?.join(" "),
        )?;
        tree.expect_unchanged(&before, "a container with --chroot")?;
        held.end()?.success()?;
        Ok(())
    });
}

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
        expect_mount(held.seen(), "/dev", "tmpfs", &["nosuid"])?;
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
                "no device of the host's in /dev",
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
fn a_read_only_root_refuses_writes() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("data"))?;
        let mut held = with_root(c, &rootfs)
            .args(["--read-only", "--tmpfs", "/run"])
            .args(["--bind", &volume(&dir, "/new/target")])
            .hold()?;
        for path in ["/new-file", "/etc/passwd", "/new/file"] {
            expect_read_only(&mut held, path)?;
        }
        let shm = format!("/dev/shm/{}", c.word("file"));
        for path in ["/run/file", "/new/target/file", &shm] {
            expect_writable(&mut held, path)?;
        }
        expect_mount(held.seen(), "/proc", "proc", &["rw"])?;
        held.end()?.success()?;
        // The mount inside was to be read-only, not the host's file system.
        write(&rootfs.join("on the host"), "")
    });
}

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
        let mut held = c.step().args(["--propagation", "shared"]).hold()?;
        // By itself the launcher mounts nothing there: only the command may.
        tree.expect_unchanged(&before, "a launcher with --propagation shared")?;
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
                    true => "no such field, as of a private mount".to_owned(),
                    false => fields.join(" "),
                },
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_bad_rootfs_is_refused() {
    check(|c| {
        let missing = c.dir().join(c.word("missing"));
        let file = c.dir().join(c.word("file"));
        write(&file, "")?;
        for rootfs in [&missing, &file] {
            let name = rootfs.display().to_string();
            with_root(c, rootfs)
                .args(["probe", "report"])
                .run()?
                .expect_error(125, &["--rootfs", &name])?;
        }
        expect(
            !missing.exists(),
            "a missing rootfs not to be made",
            "a directory",
        )
    });
}

#[test]
fn a_command_is_looked_for_inside() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        // It exists on the host, and not inside.
        let on_host = c.dir().join(c.word("command"));
        fs::copy("/proc/self/exe", &on_host).context("copy a program")?;
        with_root(c, &rootfs)
            .args([&on_host])
            .run()?
            .expect_error(127, &["ENOENT", "no such command"])?;
        with_root(c, &rootfs)
            .args(["/etc/passwd"])
            .run()?
            .expect_error(126, &["/etc/passwd", "EACCES"])?;
        // Its loader is missing inside, whatever the host has.
        let loader = format!("/lib/{}", c.word("ld.so"));
        let program = rootfs.join("bin/dynamic");
        write_dynamic(&program, &loader)?;
        with_root(c, &rootfs)
            .args(["dynamic"])
            .run()?
            .expect_error(127, &["interpreter", &loader])?;
        Ok(())
    });
}

/// Writes the smallest program that needs a dynamic loader: an ELF header and
/// one program header of type PT_INTERP (elf(5)).
fn write_dynamic(path: &Path, loader: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let own = fs::read("/proc/self/exe").context("read /proc/self/exe")?;
    let mut elf = own.get(..64).context("no ELF header")?.to_vec();
    elf[16..18].copy_from_slice(&2u16.to_ne_bytes()); // e_type: ET_EXEC
    elf[32..40].copy_from_slice(&64u64.to_ne_bytes()); // e_phoff
    elf[40..48].fill(0); // e_shoff
    elf[56..58].copy_from_slice(&1u16.to_ne_bytes()); // e_phnum
    elf[58..64].fill(0); // no section headers
    elf.extend(3u32.to_ne_bytes()); // p_type: PT_INTERP
    elf.extend(4u32.to_ne_bytes()); // p_flags: PF_R
    let size = loader.len() as u64 + 1;
    for field in [120, 120, 120, size, size, 1u64] {
        elf.extend(field.to_ne_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    elf.extend(loader.as_bytes());
    elf.push(0);
    fs::write(path, elf).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", path.display()))
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
fn an_ordinary_user_is_told_what_to_do() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        with_root(c, &rootfs)
            .args(["probe", "report"])
            .user(1000)
            .run()?
            .expect_error(125, &["EPERM", "root"])?;
        Ok(())
    });
}

#[test]
fn debian_runs() {
    check(|c| {
        let debian = c.debian()?;
        let version = fs::read_to_string(debian.join("etc/debian_version"))
            .context("read etc/debian_version")?;
        // Read-only, because it is shared with other checks.
        let script = "cat /etc/debian_version && dpkg --print-architecture && ls -l /proc/self/exe \
                      && echo written > /tmp/file && cat /tmp/file";
        let ran = with_root(c, &debian)
            .args(["--read-only", "--tmpfs", "/tmp", "bash", "-euc", script])
            .run()?
            .success()?;
        expect(
            ran.stdout.starts_with(&version) && ran.stdout.ends_with("written\n"),
            "bash, dpkg and ls of Debian to run",
            format!("{:?}", ran.stdout),
        )
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
                "{:?}: whoever changes the host's null device changes it everywhere",
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

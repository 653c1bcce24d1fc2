//! Checks of step 08: layers, and a container's view of them.

#[path = "step_08/archives.rs"]
mod archives;
#[allow(dead_code)]
mod layers;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use check::fsops::{Op, Operated};
use check::prelude::*;
use layers::{DRIVERS, Store, experiment, stacks};

/// What every driver does alike: a table of one row a driver.
fn contract(c: &Check, driver: &'static str) -> Result<()> {
    let store = Store::new(c, driver)?;
    let rootfs = layers::rootfs(c)?;
    store.image("base", &rootfs)?;
    let before = fs::read(store.tar("base")?)?;

    let changes = "set -e; echo new > /data/new; echo above >> /data/keep; rm /data/gone; \
                   rm -r /data/open; mkdir /data/open; echo n > /data/open/n; \
                   mv /data/dir/x /data/dir/z; ln /data/new /data/other";
    store
        .container(&["--layer", "base", "--name", "one", "--keep"])
        .args(["sh", "-c", changes])
        .run()?
        .success()?;

    let look = "cat /data/keep; ls /data /data/open /data/dir";
    let again = store
        .container(&["--name", "one", "--keep"])
        .args(["sh", "-c", look])
        .run()?
        .success()?;
    expect_eq(
        "what the container that was kept sees",
        again
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "below above /data: dir keep new open other /data/dir: sub z /data/open: n".into(),
    )?;
    let fresh = store
        .container(&["--layer", "base"])
        .args(["sh", "-c", look])
        .run()?
        .success()?;
    expect_eq(
        "what another container of the image sees",
        fresh
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "below /data: dir gone keep open /data/dir: sub x /data/open: old".into(),
    )?;
    let after = fs::read(store.tar("base")?)?;
    expect(
        before == after,
        "the image to be what it was",
        "another: a container has written to a layer below its own",
    )?;

    let diff = store
        .tool(["layer", "diff", "one"])
        .run()?
        .success()?
        .stdout;
    let lines: Vec<&str> = diff.lines().collect();
    for wanted in [
        "+ /data/new",
        "+ /data/other",
        "+ /data/keep",
        "- /data/gone",
        "- /data/dir/x",
        "+ /data/dir/z",
        "+ /data/open/n",
    ] {
        expect(
            lines.contains(&wanted),
            format!("{wanted:?} in the diff of the container"),
            format!("{lines:?}"),
        )?;
    }
    expect(
        lines.contains(&"o /data/open/*") || lines.contains(&"- /data/open/old"),
        "the diff to say that /data/open has been emptied",
        format!("{lines:?}"),
    )?;
    expect(
        !lines
            .iter()
            .any(|line| line.contains("/data/dir/sub") || line.contains("/proc")),
        "nothing in the diff that the container has not changed",
        format!("{lines:?}"),
    )?;

    store
        .tool(["layer", "rm", "base"])
        .run()?
        .expect_error(125, &["base", "below"])?;
    store.tool(["layer", "rm", "one"]).run()?.success()?;
    expect_eq(
        "the layers that are left",
        store.layers()?,
        vec!["base".to_owned()],
    )?;
    store.tool(["layer", "rm", "base"]).run()?.success()?;
    expect_eq("the layers at the end", store.layers()?, Vec::new())
}

#[test]
fn overlay2_keeps_the_contract() {
    check(|c| contract(c, "overlay2"));
}

#[test]
fn aufs_keeps_the_contract() {
    check(|c| contract(c, "aufs"));
}

#[test]
fn btrfs_keeps_the_contract() {
    check(|c| contract(c, "btrfs"));
}

#[test]
fn devicemapper_keeps_the_contract() {
    check(|c| contract(c, "devicemapper"));
}

#[test]
fn vfs_keeps_the_contract() {
    check(|c| contract(c, "vfs"));
}

#[test]
fn overlay2_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "overlay2"));
}

#[test]
fn aufs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "aufs"));
}

#[test]
fn btrfs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "btrfs"));
}

#[test]
fn devicemapper_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "devicemapper"));
}

#[test]
fn vfs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "vfs"));
}

#[test]
fn a_diff_is_the_same_tree_with_every_driver() {
    check(|c| {
        let stores = Store::all(c)?;
        layers::image_of_trees(c, &stores)?;
        for (n, from) in stores.iter().enumerate() {
            let changed = layers::changed(c, from)?;
            // With the one before: so each driver writes one and reads one.
            let to = &stores[(n + stores.len() - 1) % stores.len()];
            layers::applied(to, from.driver, &changed)?;
        }
        Ok(())
    });
}

#[test]
fn files_of_the_runtime_are_no_changes() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let name = c.word("box");
            let read =
                "cat /etc/hostname; grep -c box /etc/hosts; echo nameserver >> /etc/resolv.conf";
            let ran = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["--hostname", &name, "sh", "-c", read])
                .run()?
                .success()?;
            expect_eq(
                &format!("the names that a container of {} finds", store.driver),
                ran.stdout,
                format!("{name}\n1\n"),
            )?;
            let diff = store.tool(["layer", "diff", "one"]).run()?.success()?;
            // Its root is shown by the drivers that keep changes only.
            expect(
                diff.stdout.lines().all(|line| line == "+ /"),
                "no change of a container that has changed nothing of its own",
                diff.stdout.trim(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn twenty_containers_leave_the_image_alone() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let before = fs::read(store.tar("base")?)?;
            let mut held = Vec::new();
            // Twenty of the first; fewer where each is a copy or a device of its
            // own, because an emulated machine has to do this in time.
            let containers = if store.driver == "overlay2" { 20 } else { 3 };
            // All at once.
            for _ in 0..containers {
                held.push(store.container(&["--layer", "base"]).start_holding()?);
            }
            for container in &mut held {
                container.wait_until_held()?;
            }
            for (n, container) in held.iter_mut().enumerate() {
                let mine = format!("written by container {n}\n");
                for path in ["/data/keep", "/bin/mine"] {
                    let wrote: Attempt = container.ask(&["write", path, &mine])?;
                    expect(wrote.allowed, "a container to write its files", wrote.text)?;
                }
            }
            for (n, container) in held.iter_mut().enumerate() {
                let read: Attempt = container.ask(&["read", "/data/keep"])?;
                expect_eq(
                    &format!("the file of container {n} with {}", store.driver),
                    read.text,
                    format!("written by container {n}\n"),
                )?;
            }
            for container in &mut held {
                container.let_go();
            }
            for container in held {
                container.wait()?.success()?;
            }
            expect(
                before == fs::read(store.tar("base")?)?,
                format!("the image of {} to be what it was", store.driver),
                "another: a container has written to a layer below its own",
            )?;
            expect_eq(
                "the layers that are left",
                store.layers()?,
                vec!["base".to_owned()],
            )?;
            // The next driver needs the space.
            fs::remove_dir_all(&store.root).context("remove the store")?;
        }
        Ok(())
    });
}

/// Gone, or dead and not yet reaped by this check, which has adopted it.
fn ended(pid: i32) -> bool {
    host::process(pid).is_none_or(|process| process.state == 'Z')
}

#[test]
fn a_killed_launcher_leaves_nothing() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let held = store
                .container(&["--layer", "base", "--name", "one"])
                .hold()?;
            let child = layers::first_process(&held)?;
            held.signal(Signal::SIGKILL)?;
            held.wait()?.expect_status(137)?;
            expect(
                wait_for(|| ended(child).then_some(())).is_some(),
                "the container to end with its launcher",
                "it running on",
            )?;
            let state = store.root.canonicalize().context("the state directory")?;
            let mounted = wait_for(|| {
                let mounts = host::mounts("self").ok()?;
                let ours = mounts
                    .iter()
                    .any(|mount| Path::new(&mount.mount_point).starts_with(&state));
                (!ours).then_some(())
            });
            expect(
                mounted.is_some(),
                format!("nothing of {} mounted on the host", store.driver),
                "the container's view: mount it in the container's mount namespace",
            )?;
            // The next run takes away what is left.
            store
                .container(&["--layer", "base"])
                .args(["true"])
                .run()?
                .success()?;
            expect_eq(
                &format!("the layers of {} after the next run", store.driver),
                store.layers()?,
                vec!["base".to_owned()],
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_killed_import_leaves_no_layer() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            kill_half_way(&store)?;
            expect(
                !store.layers()?.contains(&"half".to_owned()),
                format!("no layer of {} of an import that was killed", store.driver),
                "one",
            )?;
            // Nothing is in the way of the next try, and of one that may be
            // killed anywhere, or be faster.
            store.image("half", &rootfs)?;
            store.tool(["layer", "rm", "half"]).run()?.success()?;
            let mut importing = store
                .tool(["layer", "create", "half"])
                .args([OsStr::new("--from"), &rootfs.as_ref()])
                .command()
                .spawn()
                .context("start layer create")?;
            std::thread::sleep(Duration::from_millis(c.number(50)));
            importing.kill().context("kill it")?;
            importing.wait().context("wait for it")?;
            if !store.layers()?.contains(&"half".to_owned()) {
                store.image("half", &rootfs)?;
            }
            store
                .container(&["--layer", "half"])
                .args(["cat", "/data/keep"])
                .run()?
                .success()?;
        }
        Ok(())
    });
}

/// Kills an import that has read half of its archive and waits for the rest.
fn kill_half_way(store: &Store<'_>) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "whole", &b"file"[..])?;
    let mut archive = archive.get_ref().clone();
    header.set_path("half")?;
    header.set_size(1 << 20);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(&[b'x'; 4096]);

    let mut importing = store
        .tool(["layer", "create", "half", "--tar", "-"])
        .command()
        .stdin(Stdio::piped())
        .spawn()
        .context("start layer create")?;
    let mut input = importing.stdin.take().context("no standard input")?;
    input.write_all(&archive).context("write the archive")?;
    let waits = wait_for(|| {
        let read = rustix::io::ioctl_fionread(&input).is_ok_and(|left| left == 0);
        let sleeps = host::process(importing.id() as i32).is_some_and(|p| p.state == 'S');
        (read && sleeps).then_some(())
    });
    importing.kill().context("kill it")?;
    importing.wait().context("wait for it")?;
    expect(waits.is_some(), "the import to read its archive", "it not")
}

#[test]
fn a_killed_aufs_server_takes_no_layer_along() {
    check(|c| {
        let store = Store::new(c, "aufs")?;
        if fs::read_to_string("/proc/filesystems")?.contains("\taufs") {
            return Err(unsupported(
                "the kernel has AUFS itself: there is no server to kill",
            ));
        }
        store.image("base", &layers::rootfs(c)?)?;
        let mut held = store
            .container(&["--layer", "base", "--name", "one", "--keep"])
            .hold()?;
        let wrote: Attempt = held.ask(&["write", "/data/keep", "above\n"])?;
        expect(wrote.allowed, "the container to write", wrote.text)?;
        let child = layers::first_process(&held)?;
        for process in host::children(held.launcher())? {
            if process.pid != child {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), Signal::SIGKILL)?;
            }
        }
        let read: Attempt = held.ask(&["read", "/data/keep"])?;
        expect(
            !read.allowed,
            "an error where the server is gone",
            read.text,
        )?;
        held.end()?;
        let again = store
            .container(&["--name", "one", "--keep"])
            .args(["cat", "/data/keep"])
            .run()?
            .success()?;
        expect_eq(
            "what the container had written",
            again.stdout,
            "above\n".into(),
        )
    });
}

#[test]
fn a_full_disk_loses_nothing() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        let size = layers::bytes_of(&rootfs)? * 3 / 2 + (1 << 20);
        for driver in ["overlay2", "aufs"] {
            let disk = Disk::new(c, size, 512)?;
            let done = full_disk(c, driver, disk.path(), &rootfs);
            disk.remove()?;
            match done {
                Err(error) if error.is::<check::outcome::Unsupported>() => {}
                done => done?,
            }
        }
        Ok(())
    });
}

fn full_disk(c: &Check, driver: &'static str, disk: &Path, rootfs: &Path) -> Result<()> {
    let store = Store::at(c, driver, disk.join("state"))?;
    store.image("base", rootfs)?;
    // The directory above is there already: only the copy itself wants room. A
    // server closes after the caller has, and only then is room again.
    let script = "echo > /data/first; dd if=/dev/zero of=/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/more bs=1k 2>/dev/null; \
                  echo above 2>/dev/null >> /data/keep && echo appended; cat /data/keep; \
                  rm /fill /more; for n in 1 2 3 4 5 6 7 8 9; do \
                  echo above 2>/dev/null >> /data/keep && break; sleep 0.2; done; cat /data/keep";
    let ran = store
        .container(&["--layer", "base"])
        .args(["sh", "-c", script])
        .run()?
        .success()?;
    expect_eq(
        &format!("what {driver} shows of a file that could not be copied up, and then could"),
        ran.stdout,
        "below\nbelow\nabove\n".into(),
    )?;
    store
        .tool(["layer", "create", "second"])
        .args([OsStr::new("--from"), rootfs.as_ref()])
        .run()?
        .expect_error(125, &["more than there is room for"])?;
    expect_eq(
        "the layers that are left",
        store.layers()?,
        vec!["base".to_owned()],
    )
}

#[test]
fn a_stack_may_have_128_layers_and_no_more() {
    check(|c| {
        let store = Store::new(c, "overlay2")?;
        store.image("l0", &layers::rootfs(c)?)?;
        let mut top = "l0".to_owned();
        // Below a container are these and its -init layer.
        for n in 1..127 {
            let id = format!("l{n}");
            store
                .tool(["layer", "create", &id, "--parent", &top])
                .run()?
                .success()?;
            top = id;
        }
        let ran = store
            .container(&["--layer", &top])
            .args(["sh", "-c", "echo above >> /data/keep; cat /data/keep"])
            .run()?
            .success()?;
        expect_eq(
            "a file below 127 layers",
            ran.stdout,
            "below\nabove\n".into(),
        )?;
        for n in 127..129 {
            let id = format!("l{n}");
            store
                .tool(["layer", "create", &id, "--parent", &top])
                .run()?
                .success()?;
            top = id;
        }
        store
            .tool(["layer", "create", "one-more", "--parent", &top])
            .run()?
            .expect_error(125, &["one-more", "128"])?;
        store
            .container(&["--layer", &top])
            .args(["true"])
            .run()?
            .expect_error(125, &["128"])?;
        Ok(())
    });
}

#[test]
fn odd_names_are_names() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for Store { driver, .. } in Store::all(c)? {
            let root = c.dir().join(format!("{driver},with:odd\\ch ar"));
            let store = Store::at(c, driver, root.clone())
                .map_err(|error| failed(format!("{driver} to work in {root:?}"), error))?;
            store.image("base", &rootfs)?;
            let mut held = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .hold()?;
            let names = [
                "a,b", "a:b", "a\\b", "a\nb", "a b", "ä", ".wh", "wh.x", "%s",
            ];
            let ops: Vec<Op> = names
                .iter()
                .map(|name| Op::Create {
                    path: (*name).into(),
                    text: (*name).into(),
                })
                .collect();
            let json = serde_json::to_string(&ops)?;
            let done: Operated = held.ask(&["operate", "/data/dir/sub", &json])?;
            expect(
                done.said.iter().all(|said| said == "ok"),
                format!("{driver} to take the names {names:?}"),
                format!("{:?}", done.said),
            )?;
            held.end()?.success()?;
            let tar = store.tar("one")?;
            store
                .tool(["layer", "create", "two", "--parent", "base"])
                .args([OsStr::new("--tar"), &tar.as_ref()])
                .run()?
                .success()?;
            let mut held = store.container(&["--layer", "two"]).hold()?;
            let found: Operated = held.ask(&["operate", "/data/dir/sub"])?;
            held.end()?.success()?;
            expect_eq(
                &format!("the names that {driver} has kept"),
                found.tree.keys().cloned().collect::<Vec<_>>(),
                done.tree.keys().cloned().collect::<Vec<_>>(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_name_of_a_whiteout_is_refused_somewhere() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let wrote = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", "echo x > /data/.wh.keep"])
                .run()?;
            let ran = store
                .container(&["--name", "one", "--keep"])
                .args(["cat", "/data/keep"])
                .run()?
                .success()?;
            expect_eq("the file of that name", ran.stdout, "below\n".into())?;
            if wrote.status == 0 {
                store
                    .tool(["layer", "diff", "one", "--tar"])
                    .command()
                    .output()
                    .map_err(anyhow::Error::from)
                    .and_then(|output| {
                        let said = String::from_utf8_lossy(&output.stderr).into_owned();
                        expect(
                            output.status.code() == Some(125) && said.contains(".wh."),
                            "the diff to refuse a name that an archive would take for a whiteout",
                            format!("status {:?}, {said:?}", output.status.code()),
                        )
                    })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_hostile_archive_stays_inside() {
    check(|c| {
        for store in Store::all(c)? {
            let outside = c.dir().join(c.word("outside"));
            fs::create_dir(&outside)?;
            fs::write(outside.join("victim"), "untouched")?;
            let target = outside.to_string_lossy().into_owned();
            for (n, (entries, refused)) in hostile(&target).into_iter().enumerate() {
                let path = c.dir().join(format!("{}-{n}.tar", store.driver));
                fs::write(&path, archive(&entries)?)?;
                let id = format!("evil{n}");
                let ran = store
                    .tool(["layer", "create", &id])
                    .args([OsStr::new("--tar"), &path.as_ref()])
                    .run()?;
                let there: Vec<_> = fs::read_dir(&outside)?
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<std::io::Result<_>>()?;
                expect(
                    there == ["victim"]
                        && fs::read_to_string(outside.join("victim"))? == "untouched",
                    format!("nothing outside the layer to be touched by {entries:?}"),
                    format!("{there:?}"),
                )?;
                expect(
                    !refused || ran.status == 125,
                    format!("{entries:?} to be refused"),
                    format!("exit status {}", ran.status),
                )?;
                if ran.status != 0 {
                    expect(
                        !store.layers()?.contains(&id),
                        "no layer of an archive that was refused",
                        id,
                    )?;
                }
            }
        }
        Ok(())
    });
}

/// Kind, name, target of a link.
type Entry = (tar::EntryType, String, String);

/// Archives, and whether they must be refused.
fn hostile(outside: &str) -> Vec<(Vec<Entry>, bool)> {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let entry = |kind, name: &str, target: &str| (kind, name.to_owned(), target.to_owned());
    let up = "../".repeat(8);
    vec![
        (
            vec![entry(Regular, &format!("{up}{outside}/new"), "")],
            true,
        ),
        (vec![entry(Regular, &format!("{outside}/new"), "")], false),
        (
            vec![
                entry(Symlink, "evil", outside),
                entry(Regular, "evil/new", ""),
            ],
            false,
        ),
        (
            vec![
                entry(Symlink, "evil", &format!("{up}{outside}")),
                entry(Regular, "evil/victim", ""),
            ],
            false,
        ),
        (
            vec![entry(Link, "linked", &format!("{outside}/victim"))],
            true,
        ),
        (
            vec![
                entry(Symlink, "evil", outside),
                entry(Regular, "evil/.wh.victim", ""),
            ],
            false,
        ),
        (vec![entry(Regular, ".wh...", "")], true),
        (vec![entry(Regular, ".wh.", "")], true),
        (vec![entry(Char, "forged", "")], true),
    ]
}

fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, target) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        if *kind == tar::EntryType::Char {
            header.set_device_major(0)?;
            header.set_device_minor(0)?;
        }
        // Written past the library, which would not write such names.
        let bytes = name.as_bytes();
        let field = &mut header.as_mut_bytes()[..100];
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
        header.set_link_name_literal(target)?;
        header.set_cksum();
        builder.append(&header, std::io::empty())?;
    }
    Ok(builder.into_inner()?)
}

#[test]
fn a_layer_is_about_the_whole_tree_below() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            stacks::layer(&store, "below", "base", |case| case.below)?.success()?;
            stacks::layer(&store, "above", "below", |case| case.above)?.success()?;
            let mut held = store.container(&["--layer", "above"]).hold()?;
            let trees = layers::operate(&mut held, &vec![Vec::new(); stacks::CASES.len()])?;
            held.end()?.success()?;
            for (case, tree) in stacks::CASES.iter().zip(&trees) {
                expect_eq(
                    &format!("{}: the tree with {}", case.what, store.driver),
                    stacks::shown(tree),
                    case.there.iter().map(|line| (*line).into()).collect(),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_layer_that_does_not_fit_is_refused_by_every_driver() {
    check(|c| {
        let below = stacks::tar_of_cases(stacks::REFUSED.map(|(below, _)| below))?;
        for store in Store::all(c)? {
            stacks::create(&store, "lower", None, &below)?.success()?;
            for (n, (below, above)) in stacks::REFUSED.iter().enumerate() {
                let upper = format!("upper{n}");
                let tar = stacks::tar(&format!("{n}/"), above)?;
                let ran = stacks::create(&store, &upper, Some("lower"), &tar)?;
                expect(
                    ran.status == 125 && !store.layers()?.contains(&upper),
                    format!("{} to refuse {above:?} on {below:?}", store.driver),
                    format!("exit status {}", ran.status),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn where_says_which_layer_and_why() {
    check(|c| {
        for driver in ["overlay2", "aufs", "vfs"] {
            let store = match Store::new(c, driver) {
                Err(error) if error.is::<check::outcome::Unsupported>() => continue,
                store => store?,
            };
            store.image("base", &layers::rootfs(c)?)?;
            let script = "rm /data/gone; rm -r /data/open; mkdir /data/open; echo x > /data/new";
            store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", script])
                .run()?
                .success()?;
            for (file, verdict) in [
                ("/data/new", "from layer 3 (one)"),
                ("/data/keep", "from layer 1 (base)"),
                ("/data/gone", "deleted in layer 3 (one)"),
                ("/data/nowhere", "in no layer"),
            ] {
                let said = store
                    .tool(["where", file, "--layer", "one"])
                    .run()?
                    .success()?
                    .stdout;
                expect(
                    said.lines()
                        .last()
                        .is_some_and(|line| line.ends_with(verdict)),
                    format!("`where {file}` with {driver} to say {verdict:?}"),
                    said.trim(),
                )?;
            }
            if driver != "vfs" {
                let said = store
                    .tool(["where", "/data/open/old"])
                    .run()?
                    .success()?
                    .stdout;
                expect(
                    said.contains("opaque") && said.ends_with("in no layer\n"),
                    "`where` to name the opaque directory that hides a file",
                    said.trim(),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_layout_is_that_of_the_documents() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        let overlay = Store::new(c, "overlay2")?;
        overlay.image("base", &rootfs)?;
        let held = overlay
            .container(&["--layer", "base", "--name", "one"])
            .hold()?;
        let at = overlay.root.join("overlay2");
        for path in [
            "one/diff",
            "one/work",
            "one/merged",
            "one-init/diff",
            "base/diff",
        ] {
            expect(
                at.join(path).is_dir(),
                format!("the directory {path}"),
                "none",
            )?;
        }
        let read = |path: &str| fs::read_to_string(at.join(path)).context(path.to_owned());
        let base = read("base/link")?;
        let init = read("one-init/link")?;
        expect_eq(
            "one/lower",
            read("one/lower")?,
            format!("l/{init}:l/{base}"),
        )?;
        expect_eq(
            "the short name of base",
            fs::read_link(at.join("l").join(&base))?,
            "../base/diff".into(),
        )?;
        expect(
            base.len() <= 26,
            "a short name of at most 26 letters",
            &base,
        )?;
        held.end()?.success()?;

        let aufs = match Store::new(c, "aufs") {
            Err(error) if error.is::<check::outcome::Unsupported>() => return Ok(()),
            store => store?,
        };
        aufs.image("base", &rootfs)?;
        let held = aufs
            .container(&["--layer", "base", "--name", "one"])
            .hold()?;
        let at = aufs.root.join("aufs");
        for path in ["diff/one", "diff/one-init", "diff/base", "mnt/one"] {
            expect(
                at.join(path).is_dir(),
                format!("the directory {path}"),
                "none",
            )?;
        }
        expect_eq(
            "layers/one",
            fs::read_to_string(at.join("layers/one"))?,
            "one-init\nbase\n".into(),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn overlay_marks_are_the_kernels() {
    check(|c| {
        let store = Store::new(c, "overlay2")?;
        store.image("base", &layers::rootfs(c)?)?;
        let script = "rm /data/gone; rm -r /data/open; mkdir /data/open";
        store
            .container(&["--layer", "base", "--name", "one", "--keep"])
            .args(["sh", "-c", script])
            .run()?
            .success()?;
        // The same marks must come of an archive.
        let tar = store.tar("one")?;
        store
            .tool(["layer", "create", "two", "--parent", "base"])
            .args([OsStr::new("--tar"), &tar.as_ref()])
            .run()?
            .success()?;
        for id in ["one", "two"] {
            let diff = store.root.join("overlay2").join(id).join("diff/data");
            let gone = fs::symlink_metadata(diff.join("gone")).context("the whiteout")?;
            let kind = std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type());
            expect(
                kind && gone.rdev() == 0,
                format!("the whiteout in {id} to be the device 0:0"),
                format!("mode {:o}, device {}", gone.mode(), gone.rdev()),
            )?;
            let mut value = [0; 8];
            let name = "trusted.overlay.opaque";
            let length = rustix::fs::lgetxattr(diff.join("open"), name, &mut value[..]).ok();
            expect(
                length == Some(1) && value[0] == b'y',
                format!("{name} to be y in {id}"),
                format!("{length:?}"),
            )?;
        }
        Ok(())
    });
}

#[test]
fn the_documents_aufs_experiment_holds() {
    check(|c| {
        Store::new(c, "aufs")?;
        let work = experiment::directories(c)?;
        experiment::type_in(c, &work, &experiment::FIVE_DIRECTORIES)
    });
}

#[test]
fn the_rights_of_aufs_branches_are_kept() {
    check(|c| {
        Store::new(c, "aufs")?;
        let work = experiment::directories(c)?;
        experiment::type_in(c, &work, &experiment::RIGHTS_AND_POLICIES)
    });
}

#[test]
fn a_name_too_long_for_aufs_is_called_so() {
    check(|c| {
        Store::new(c, "aufs")?;
        let at = |name: &str| c.dir().join(name);
        for directory in ["top", "low", "mnt"] {
            fs::create_dir(at(directory)).context("mkdir")?;
        }
        for name in ["plain", "other"] {
            fs::write(at("low").join(name), "").context("write")?;
        }
        // Longer than the union lets anybody make, and there all the same.
        let below = "b".repeat(253);
        fs::write(at("low").join(&below), "below").context("write")?;
        let branches = format!("br={}=rw:{}=ro", at("top").display(), at("low").display());
        c.step()
            .args(["mount", "-t", "aufs", "-o", &branches, "none"])
            .args([at("mnt")])
            .run()?
            .success()?;
        let looked = every_call(&at("mnt")).and_then(|()| {
            let read = fs::read_to_string(at("mnt").join(&below)).context("read a long name")?;
            expect_eq("a long name of a branch below", &*read, "below")
        });
        c.step()
            .args(["umount"])
            .args([at("mnt")])
            .run()?
            .success()?;
        looked
    });
}

/// Every call that takes a name, with names of all lengths around the limit.
fn every_call(mnt: &Path) -> Result<()> {
    use std::io::Error;
    use std::os::unix::fs::symlink;
    type Call = fn(&Path, &Path) -> std::io::Result<()>;
    let plain: [(&str, Call); 10] = [
        ("stat", |name, _| fs::symlink_metadata(name).map(drop)),
        ("open", |name, _| fs::File::open(name).map(drop)),
        ("chmod", |name, _| {
            fs::set_permissions(name, fs::Permissions::from_mode(0o600))
        }),
        ("chown", |name, _| chown(name, Some(0), None)),
        ("unlink", |name, _| fs::remove_file(name)),
        ("rmdir", |name, _| fs::remove_dir(name)),
        ("readlink", |name, _| fs::read_link(name).map(drop)),
        ("rename from", |name, other| fs::rename(name, other)),
        ("link from", |name, other| {
            fs::hard_link(name, other.with_file_name("new"))
        }),
        ("chdir", |name, _| fs::read_dir(name).map(drop)),
    ];
    let making: [(&str, Call); 6] = [
        ("creat", |name, _| fs::write(name, "")),
        ("mkdir", |name, _| fs::create_dir(name)),
        ("symlink", |name, _| symlink("x", name)),
        ("link", |name, other| fs::hard_link(other, name)),
        ("rename", |name, other| fs::rename(other, name)),
        ("mkfifo", |name, _| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, name, mode).map_err(Error::from)
        }),
    ];
    let whiteout = |length: usize| format!(".wh.{}", "w".repeat(length - 4));
    for (name, errno) in [
        ("x".repeat(251), nix::libc::ENOENT),
        ("x".repeat(252), nix::libc::ENAMETOOLONG),
        ("x".repeat(255), nix::libc::ENAMETOOLONG),
        ("x".repeat(256), nix::libc::ENAMETOOLONG),
        (whiteout(8), nix::libc::EPERM),
        (whiteout(251), nix::libc::EPERM),
        (whiteout(252), nix::libc::ENAMETOOLONG),
    ] {
        let is_missing = errno == nix::libc::ENOENT;
        let making = making.iter().filter(|_| !is_missing);
        for (call, act) in plain.iter().chain(making) {
            let said = act(&mnt.join(&name), &mnt.join("other"));
            expect(
                said.as_ref().err().and_then(Error::raw_os_error) == Some(errno),
                format!(
                    "{call} of a name of {} bytes, {:?}…, to be {}",
                    name.len(),
                    &name[..5],
                    Error::from_raw_os_error(errno)
                ),
                format!("{said:?}"),
            )?;
        }
    }
    let longest = mnt.join("x".repeat(251));
    fs::write(&longest, "").context("make the longest name")?;
    fs::remove_file(&longest).context("remove the longest name")
}

#[test]
fn an_ordinary_user_has_layers_too() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        // An ordinary user can copy only what an ordinary user may read.
        fs::set_permissions(rootfs.join("root"), fs::Permissions::from_mode(0o755))?;
        for driver in ["overlay2", "vfs"] {
            let root = c.dir().join(c.word("rootless"));
            fs::create_dir(&root)?;
            chown(&root, Some(1000), Some(1000))?;
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
            let root = root.to_string_lossy().into_owned();
            let store = ["--driver", driver, "--root", &root];
            let listed = c
                .step()
                .user(1000)
                .args(["drivers"])
                .args(store)
                .run()?
                .success()?;
            expect(
                !listed.stdout.contains("unsupported: "),
                format!("{driver} to work without root"),
                listed.stdout.trim(),
            )?;
            let call = |args: &[&str]| c.step().user(1000).args(args).args(store);
            let from = rootfs.to_string_lossy().into_owned();
            call(&["layer", "create", "base", "--from", &from])
                .run()?
                .success()?;
            let script = "id -u; rm /data/gone; rm -r /data/open; mkdir /data/open; cat /data/keep";
            let ran = call(&["union", "run", "--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", script])
                .run()?
                .success()?;
            expect_eq("what root inside saw", ran.stdout, "0\nbelow\n".into())?;
            let look = "ls /data /data/open | tr '\\n' ' '";
            let again = call(&["union", "run", "--name", "one"])
                .args(["sh", "-c", look])
                .run()?
                .success()?;
            expect_eq(
                "what the container sees when it goes on",
                again.stdout.trim().to_owned(),
                "/data: dir keep open  /data/open:".into(),
            )?;
            let left = call(&["layer", "ls"]).run()?.success()?.stdout;
            expect_eq("the layers that are left", left.lines().count(), 2)?;
            call(&["layer", "rm", "base"]).run()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn compare_measures_every_driver() {
    check(|c| {
        let root = c.dir().join("state");
        let table = c
            .step()
            .args(["compare", "--size", "4", "--containers", "2", "--root"])
            .args([&root])
            .run()?
            .success()?
            .stdout;
        for driver in DRIVERS {
            let line = table
                .lines()
                .find(|line| line.starts_with(driver))
                .ok_or_else(|| failed(format!("a line for {driver}"), &table))?;
            expect(
                line.contains("unsupported: ") || line.contains(" ms "),
                format!("figures or a reason for {driver}"),
                line,
            )?;
        }
        // The figures are those of the mechanism: a copied file, or a block.
        let copied = |driver: &str| -> Option<f64> {
            let line = table.lines().find(|line| line.starts_with(driver))?;
            line.split_whitespace().nth(5)?.parse().ok()
        };
        if let Some(bytes) = copied("overlay2") {
            expect(
                bytes >= 3.9,
                "overlay2 to copy the whole file",
                format!("{bytes} MB"),
            )?;
        }
        if let Some(bytes) = copied("btrfs") {
            expect(
                bytes < 2.0,
                "btrfs to copy what is written only",
                format!("{bytes} MB"),
            )?;
        }
        Ok(())
    });
}

#[test]
fn bad_input_is_refused_in_one_line() {
    check(|c| {
        let root = c.dir().join("state");
        let root = root.to_string_lossy().into_owned();
        let long = "x".repeat(129);
        let cases: [(&[&str], &[&str]); 7] = [
            (&["union", "run", "true"], &["--layer", "--rootfs"]),
            (
                &["union", "run", "--layer", "none", "true"],
                &["no layer none"],
            ),
            (
                &["union", "run", "--layer", "a", "--rootfs", "/x", "true"],
                &["--layer", "--rootfs"],
            ),
            (
                &["union", "run", "--rootfs", "/nowhere", "true"],
                &["/nowhere"],
            ),
            (
                &["layer", "create", "x", "--parent", "none"],
                &["no layer none"],
            ),
            (&["layer", "rm", "none"], &["no layer none"]),
            (&["where", "/x", "--layer", "none"], &["no layer none"]),
        ];
        for (args, words) in cases {
            let at = args.len() - usize::from(args.last() == Some(&"true"));
            c.step()
                .args(&args[..at])
                .args(["--driver", "overlay2", "--root", &root])
                .args(&args[at..])
                .run()?
                .expect_error(125, words)?;
        }
        for id in ["..", "a/b", "a,b", "a:b", long.as_str()] {
            let ran = c
                .step()
                .args(["layer", "create", id, "--driver", "vfs", "--root", &root])
                .run()?;
            expect(
                ran.status == 125,
                format!("{id:?} to be refused as a name"),
                ran.status,
            )?;
        }
        Ok(())
    });
}

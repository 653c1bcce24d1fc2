//! Launchers, imports and servers that are killed, and disks that are full.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use check::prelude::*;

use crate::layers;
use crate::layers::Store;

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
fn a_wait_for_the_store_is_ended() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        let store = Store::new(c, "vfs")?;
        store.image("base", &rootfs)?;
        let path = store.root.join("run/vfs.lock");
        let lock = fs::File::create(&path).with_context(|| format!("open({path:?})"))?;
        lock.lock().context("flock")?;
        let mut waiting = store
            .container(&["--layer", "base"])
            .args(["true"])
            .command()
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start")?;
        let pid = waiting.id() as i32;
        let waits = wait_for(|| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let has_it = open
                .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
                .any(|file| file == path);
            let sleeps = host::process(pid).is_some_and(|process| process.state == 'S');
            (has_it && sleeps).then_some(())
        });
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).context("kill")?;
        let status = wait_or_kill(&mut waiting)?;
        expect(waits.is_some(), format!("a wait for {path:?}"), "none")?;
        expect(
            status == Some(143),
            "SIGTERM to end the wait for a store that somebody holds, with status 143",
            format!("{status:?}: flock(2) does not return for a signal that is blocked"),
        )?;
        drop(lock);
        expect_eq(
            "the layers afterwards",
            store.layers()?,
            vec!["base".to_owned()],
        )
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
                .args([OsStr::new("--from"), rootfs.as_ref()])
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
        expect(wrote.allowed, "the container to write", wrote.errno)?;
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

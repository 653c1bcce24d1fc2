//! What is left when something goes wrong: nothing lost, nothing half done.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::mounted::{Mounted, STEP, possible};

/// The PID of the server that has this directory open.
fn server_of(union: &Mounted) -> String {
    let wanted = union.path("rw").canonicalize().unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has = fds
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == wanted));
        if has {
            return process.file_name().into_string().unwrap();
        }
    }
    panic!("no server has {wanted:?} open");
}

#[test]
fn a_full_disk_is_told_and_nothing_half_copied_is_left() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["rw", "ro"]);
    union.sh("mount -t tmpfs -o size=1m none rw");
    union.write("ro/big", vec![1; 4 << 20]);
    union.write("ro/small", "small");
    union.mount("dirs=rw:ro");
    let outcome = fs::OpenOptions::new().append(true).open(union.mnt("big"));
    let left = union.names("rw");
    let still = fs::read(union.mnt("big")).unwrap();
    union.sh("echo more >> mnt/small");
    let small = union.read("mnt/small");
    let full = fs::File::create(union.mnt("new"))
        .unwrap()
        .write_all(&[0; 2 << 20]);
    union.umount();
    union.sh("umount rw");
    assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(still, vec![1; 4 << 20]);
    assert_eq!(small, "smallmore\n");
    assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_killed_server_leaves_a_mount_that_can_be_removed() {
    if !possible() {
        return;
    }
    let mut union = Mounted::three(|u| u.write("ro1/f", "low"));
    union.sh("echo more >> mnt/f");
    let server = server_of(&union);
    union.sh(&format!("kill -9 {server}"));
    sleep(Duration::from_millis(100));
    let error = fs::read(union.mnt("f")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    let told = union.run(&["branches", "mnt"]);
    assert!(
        String::from_utf8(told.stderr)
            .unwrap()
            .contains("has ended")
    );
    union.umount();
    assert_eq!(union.read("ro1/f"), "low");
    assert_eq!(union.read("rw/f"), "lowmore\n");
    // What a copy broken off left is gone with the next mount.
    union.write("rw/.wh..wh.tmp.7", "half");
    union.write("rw/.wh..wh.tmp.8/.wh.x", "");
    union.mount("dirs=./rw:./ro2:./ro1");
    assert_eq!(union.names("rw"), ["f"]);
    assert_eq!(union.read("mnt/f"), "lowmore\n");
}

#[test]
fn the_server_ends_with_the_mount() {
    if !possible() {
        return;
    }
    let mut union = Mounted::three(|_| {});
    let server = server_of(&union);
    union.umount();
    for _ in 0..100 {
        if fs::metadata(format!("/proc/{server}")).is_err() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("process {server} is still there");
}

#[test]
fn a_server_that_is_told_to_end_unmounts() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    let server = server_of(&union);
    union.sh(&format!("kill {server}"));
    sleep(Duration::from_millis(300));
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(union.path("mnt").to_str().unwrap()));
}

#[test]
fn a_server_that_cannot_attach_its_mount_ends_without_one() {
    if !possible() {
        return;
    }
    let union = Mounted::prepare(&["rw"]);
    union.write("file", "no directory");
    for foreground in [&["-f"][..], &[]] {
        let mount = [&["mount", "-o", "dirs=rw"], foreground, &["none", "file"]].concat();
        let output = union.run(&mount);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("move_mount"), "{said}");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(union.path("file").to_str().unwrap()));
    }
}

#[test]
fn the_starter_does_not_leave_its_pipe_with_the_server() {
    if !possible() {
        return;
    }
    let union = Mounted::prepare(&["rw"]);
    // cat(1) ends when the last writer of its pipe is gone.
    let line = format!("timeout 10 sh -c '{STEP} mount -o dirs=rw none mnt 2>&1 | cat'");
    let status = Command::new("sh")
        .args(["-c", &line])
        .current_dir(union.path(""))
        .status();
    let ended = status.unwrap().success();
    union.sh(&format!("{STEP} umount mnt"));
    assert!(ended);
}

#[test]
fn a_union_can_hide_its_own_lower_branch() {
    if !possible() {
        return;
    }
    // The classic: mount -t aufs -o br:/tmp/rw:/home none /home
    let union = Mounted::prepare(&["rw"]);
    union.write("mnt/f", "original");
    union.sh(&format!("{STEP} mount -o br:rw:mnt none mnt"));
    union.sh("echo more >> mnt/f");
    let (seen, copy) = (union.read("mnt/f"), union.exists("rw/f"));
    union.sh(&format!("{STEP} umount mnt"));
    assert_eq!((seen.as_str(), copy), ("originalmore\n", true));
    assert_eq!(union.read("mnt/f"), "original");
}

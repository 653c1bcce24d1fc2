//! What one container, or one user, may use up.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;

use check::check::wait_or_kill;
use check::disk::Disk;
use check::prelude::*;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::{Life, Ordinary};

#[test]
fn root_inside_fills_no_memory_of_the_host() {
    check(|c| {
        let life = Life::new(c)?;
        // The state of networks lies in memory, as /run does.
        let memory = Disk::in_memory(c, "1m")?;
        let call = |words: &[&str]| life.call(words).env("DRYDOCK_STATE", memory.path());
        let run = ["run", "-d", "--network", "none", "--name", "box"];
        let command = [life.image.as_str(), "sleep", "1000"];
        call(&[&run[..], &command].concat()).run()?.success()?;
        let before = memory.free()?;
        for file in ["hosts", "resolv.conf", "hostname"] {
            let script = format!("head -c 4000000 /dev/zero >/etc/{file} && wc -c </etc/{file}");
            let ran = call(&["exec", "box", "sh", "-c", &script]).run()?;
            expect(
                ran.status == 0 && ran.stdout.trim() == "4000000",
                format!("/etc/{file} on the disk, as all else that the container writes"),
                ran.stderr.trim(),
            )?;
        }
        let after = memory.free()?;
        expect(
            after == before,
            "the memory of the host to be as free as before root inside wrote into its /etc",
            format!("{} KiB less", (before - after.min(before)) >> 10),
        )?;
        // A killed monitor leaves none of them, nor does a machine that stops.
        let (_, monitor) = life.pids("box")?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL).context("kill the monitor")?;
        life.expect_status("box", "Exited")?;
        let other = life
            .root
            .join("etc")
            .join(format!("{}-hosts", "a".repeat(64)));
        fs::write(&other, "").context("write")?;
        call(&["start", "box"]).run()?.success()?;
        call(&["exec", "box", "grep", "-q", "localhost", "/etc/hosts"])
            .run()?
            .success()?;
        call(&["rm", "-f", "box"]).run()?.success()?;
        call(&["ps"]).run()?.success()?;
        expect_eq("what is left in etc", life.left_in("etc"), Vec::new())?;
        life.expect_nothing_left()?;
        memory.remove()
    });
}

/// All instances of inotify(7) that a user may have.
fn all_instances(uid: u32) -> Result<Vec<OwnedFd>> {
    let taken = thread::spawn(move || -> Result<Vec<OwnedFd>> {
        // They are counted for the effective user, and in Linux each thread has
        // its own.
        let uid = rustix::process::Uid::from_raw(uid);
        let keep = rustix::process::Uid::ROOT;
        rustix::thread::set_thread_res_uid(keep, uid, keep).context("setresuid")?;
        let mut taken = Vec::new();
        loop {
            match inotify::init(inotify::CreateFlags::CLOEXEC) {
                Ok(instance) => taken.push(instance),
                Err(Errno::MFILE) if taken.len() < 800 => return Ok(taken),
                Err(Errno::MFILE) => return Err(unsupported("a user may have too many of them")),
                Err(errno) => return Err(errno).context("inotify_init"),
            }
        }
    });
    taken.join().map_err(|_| failed("instances", "a panic"))?
}

#[test]
fn more_may_follow_than_the_kernel_wakes() {
    check(|c| {
        let life = Life::new(c)?;
        let user = Ordinary::new(&life)?;
        let script = "echo one; until [ -e /go ]; do sleep 0.05; done; echo two";
        let run = ["run", "-d", "--network", "none", "--name", "box"];
        user.said(&[&run[..], &[&user.image, "sh", "-c", script]].concat())?;
        let taken = all_instances(1000)?;
        let mut followers = Vec::new();
        for (words, file) in [
            (&["logs", "-f", "box"][..], "logs"),
            (
                &["events", "--filter", "event=die", "--format", "{{.Action}}"],
                "events",
            ),
        ] {
            let path = c.dir().join(file);
            let mut command = user.call(words).command();
            command.stdin(Stdio::null());
            command.stdout(File::create(&path).context("create")?);
            command.stderr(File::create(path.with_extension("error")).context("create")?);
            followers.push((command.spawn().context("start the program")?, path));
        }
        let said = |n: usize| fs::read_to_string(&followers[n].1).unwrap_or_default();
        let error = |n: usize| {
            let mut text = String::new();
            let path = followers[n].1.with_extension("error");
            if let Ok(mut file) = File::open(path) {
                file.read_to_string(&mut text).ok();
            }
            text
        };
        let one = wait_for(|| (said(0) == "one\n").then_some(()));
        expect(
            one.is_some(),
            "logs -f to show a line, though the user has no instance of inotify left",
            format!("{:?} and {:?}", said(0), error(0)),
        )?;
        // What is running has begun to look.
        let begun = followers[1].0.id();
        let waits = wait_for(|| {
            let call = fs::read_to_string(format!("/proc/{begun}/wchan")).ok()?;
            call.contains("poll").then_some(())
        });
        user.said(&["exec", "box", "touch", "/go"])?;
        let both = wait_for(|| (said(0) == "one\ntwo\n").then_some(()));
        let died = wait_for(|| (said(1) == "die\n").then_some(()));
        let found = format!("{:?}, {:?}, {:?}", said(0), said(1), error(1));
        let status = wait_or_kill(&mut followers[0].0)?;
        followers[1].0.kill().context("kill events")?;
        followers[1].0.wait().context("wait")?;
        drop(taken);
        expect(
            both.is_some() && died.is_some(),
            "those who follow to see what comes, also without inotify",
            format!("{found} (waiting: {})", waits.is_some()),
        )?;
        expect_eq("the status of logs -f", status, Some(0))?;
        user.said(&["rm", "box"]).map(drop)
    });
}

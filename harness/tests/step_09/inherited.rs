//! What the launcher has, and a container does not inherit: descriptors, keys,
//! settings of the caller.

use std::fs::File;
use std::os::fd::AsRawFd;

use check::prelude::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::engine::Engine;

#[test]
fn no_descriptor_of_the_host_gets_in() {
    check(|c| {
        let engine = Engine::new(c)?;
        // As a careless caller leaves one behind: open, and not close-on-exec.
        let directory = File::open("/").context("open(/)")?;
        fcntl(&directory, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
        let number = directory.as_raw_fd();
        let seen = engine.run(&[]).args([engine.image()]).probe()?;
        let fds: Vec<i32> = seen.fds.keys().copied().collect();
        expect(
            fds == [0, 1, 2],
            "the three standard streams and no other descriptor",
            format!("{:?}", seen.fds),
        )?;
        // And as an image would ask for it (CVE-2024-21626).
        let path = format!("/proc/self/fd/{number}");
        let ran = engine
            .run(&["-w", &path])
            .args([engine.image(), "ls"])
            .run()?;
        expect(
            ran.status == 125 && !ran.stdout.contains("lost+found"),
            "a working directory outside of the container to be refused",
            format!("status {}, {:?}", ran.status, ran.stdout),
        )
    });
}

#[test]
fn nothing_of_the_caller_gets_in() {
    check(|c| {
        let engine = Engine::new(c)?;
        let key = c.word("key");
        let odd = |step: &Step| {
            let launcher = step.command();
            let mut odd = c
                .other_program("probe")
                .args(["odd-caller", &key, "--"])
                .args([launcher.get_program()])
                .args(launcher.get_args());
            for (name, value) in launcher.get_envs() {
                odd = odd.env(name, value.unwrap_or_default());
            }
            odd
        };
        let made = c.dir().join("made");
        let bind = format!("{}:/made", made.display());
        let script = "umask; cat /proc/self/oom_score_adj /proc/self/personality; \
                      stat -c %a /made /volume /work /work/dir; cat /proc/self/status; true";
        let options = ["-v", &bind, "-v", "/volume", "-w", "/work/dir"];
        let run = engine.run(&options);
        let ran = odd(&run.args([engine.image(), "sh", "-c", script]))
            .run()?
            .success()?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        for (line, (what, expected)) in lines.iter().zip([
            ("the umask", "0022"),
            ("oom_score_adj", "0"),
            ("the personality", "00000000"),
            ("the mode of a directory that was made on the host", "755"),
            ("the mode of a volume", "755"),
            ("the mode of a directory above the working directory", "755"),
            ("the mode of the working directory", "755"),
        ]) {
            expect(
                *line == expected,
                format!("{what} to be {expected}, whoever calls"),
                format!("{line}, the caller's"),
            )?;
        }
        for field in ["SigIgn", "SigBlk", "CapInh", "CapAmb"] {
            let found = lines.iter().find_map(|line| line.strip_prefix(field));
            expect_eq(field, found, Some(":\t0000000000000000"))?;
        }
        // The keyring: with all rights, so that the kernel answers.
        for options in [
            &["--privileged"][..],
            &["--security-opt", "seccomp=unconfined"],
        ] {
            let run = engine.run(options);
            let run = run.args([engine.image(), "probe", "find-key", &key]);
            let found: Attempt = odd(&run).run()?.success()?.json()?;
            expect(
                !found.allowed && found.errno == "ENOKEY",
                format!("another session keyring than the caller's with {options:?}"),
                format!(
                    "{:?}: fork(2) and execve(2) pass the caller's on",
                    found.errno
                ),
            )?;
        }
        let run = engine
            .run(&[])
            .args([engine.image(), "probe", "find-key", &key]);
        let found: Attempt = odd(&run).run()?.success()?.json()?;
        expect_eq("keyctl(2) in a container", found.errno.as_str(), "EPERM")
    });
}

#[test]
fn a_keyring_that_cannot_be_left_is_an_error() {
    check(|c| {
        let engine = Engine::new(c)?;
        let run = |options: &[&str]| {
            let step = engine.run(options).args([engine.image(), "true"]).command();
            let mut without = c
                .other_program("probe")
                .args(["without-keyctl", "--"])
                .args([step.get_program()])
                .args(step.get_args());
            for (name, value) in step.get_envs() {
                without = without.env(name, value.unwrap_or_default());
            }
            without.run()
        };
        let ran = run(&[])?;
        expect(
            ran.status == 125,
            "no container where its own session keyring is refused",
            format!(
                "status {:?}: the caller's keys are within reach, without a warning",
                ran.status
            ),
        )?;
        ran.expect_error(125, &["keyctl", "--no-new-keyring"])?;
        run(&["--no-new-keyring"])?.success()?;
        Ok(())
    });
}

/// The parts of the launch, from -v, with what the child holds after each.
fn held_after(stderr: &str) -> Vec<(String, Vec<String>)> {
    let mut part = String::from("birth");
    let mut found = Vec::new();
    for line in stderr
        .lines()
        .filter_map(|line| line.split_once("] "))
        .map(|(_, said)| said)
    {
        if let Some(name) = line.strip_prefix("in_container ") {
            part = name.to_owned();
        } else if line == "start" {
            part = "before_exec".to_owned();
        } else if let Some(list) = line.strip_prefix("holds ") {
            let names = list
                .split(", ")
                .filter_map(|fd| Some(fd.split_once(' ')?.1.to_owned()));
            found.push((part.clone(), names.collect()));
        }
    }
    found
}

#[test]
fn nothing_of_the_host_is_held_when_the_image_has_a_say() {
    check(|c| {
        let engine = Engine::new(c)?;
        let (image, volume) = (engine.image(), c.word("volume"));
        let mount = format!("{volume}:/data");
        let ways: [&[&str]; 4] = [
            &["-m", "64m"],
            &["--init", "-v", &mount],
            &["--privileged", "--pid", "host"],
            &["-t"],
        ];
        for options in ways {
            let ran = engine
                .tool(["--verbose", "run", "--rm", "--network", "none"])
                .args(options)
                .args([image, "true"])
                .run()?
                .success()?;
            // With a terminal the child's last words are in that.
            let parts = held_after(&(ran.stderr + &ran.stdout));
            let own = |name: &String| {
                ["pipe:", "socket:", "/memfd:", "/dev/pts/"]
                    .iter()
                    .any(|kind| name.starts_with(kind))
            };
            // The layers are the container's: a mount that is not in the host's
            // tree. The v1 files are entered first, and end there.
            let explained = |name: &String| own(name) || name == "/" || name.ends_with("/tasks");
            let after = parts
                .iter()
                .position(|(part, _)| part == "union")
                .unwrap_or_default();
            expect(
                parts.len() > 10 && after > 0,
                "-v to say what the child holds after each part",
                format!("{parts:?}"),
            )?;
            for (n, (part, names)) in parts.iter().enumerate() {
                let wrong: Vec<&String> = names
                    .iter()
                    .filter(|name| {
                        !if n < after {
                            explained(name)
                        } else {
                            own(name)
                        }
                    })
                    .collect();
                expect(
                    wrong.is_empty(),
                    format!("the child to hold nothing of the host with {options:?}"),
                    format!("after {part:?} {wrong:?}: the image may reach it by /proc/self/fd"),
                )?;
            }
            let last = parts.last().map(|(_, names)| names.len());
            expect_eq("how many descriptors are left for execve", last, Some(2))?;
        }
        engine.tool(["volume", "rm", &volume]).run()?.success()?;
        Ok(())
    });
}

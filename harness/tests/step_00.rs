//! Checks of step 00: launching a process.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use check::prelude::*;
use check::sys::{Streams, spawn_on_pty};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const SIGPIPE: u64 = 1 << 12;

/// A command that runs, its signal masks (bit N-1 is signal N), and its
/// scheduling policy, as the host sees them.
struct Running {
    policy: Option<u32>,
    blocked: u64,
    ignored: u64,
}

/// Waits until the launcher's child has executed the program `name`.
fn running(held: &Held, name: &str) -> Result<Running> {
    let launcher = held.launcher();
    let pid = wait_for(|| {
        let child = host::children(launcher).ok()?.into_iter().next()?;
        (child.comm == name).then_some(child.pid)
    });
    let Some(pid) = pid else {
        return Err(failed(
            format!("{name} to run as the launcher's child"),
            "no such process on the host",
        ));
    };
    let mask = |field: &str| -> Result<u64> {
        let text = host::status_field(pid, field).unwrap_or_default();
        u64::from_str_radix(&text, 16).with_context(|| format!("parse {field} of {pid}"))
    };
    Ok(Running {
        policy: host::scheduling_policy(pid),
        blocked: mask("SigBlk")?,
        ignored: mask("SigIgn")?,
    })
}

#[test]
fn the_command_runs() {
    check(|c| {
        let words = [c.word("one"), c.word("two words ")];
        let seen = c.step().report(&words)?;
        expect_eq("the command's arguments", seen.args, words.to_vec())?;
        // Without a command it is a shell.
        let status = 1 + c.number(100) as i32;
        c.step()
            .stdin(format!("exit {status}\n"))
            .run()?
            .expect_status(status)?;
        Ok(())
    });
}

#[test]
fn the_commands_status_is_passed_on() {
    check(|c| {
        for status in [0, 1 + c.number(123) as i32, 255] {
            c.step()
                .args(["probe", "exit", &status.to_string()])
                .run()?
                .expect_status(status)?;
        }
        Ok(())
    });
}

#[test]
fn a_signals_death_is_128_plus_n() {
    check(|c| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGABRT] {
            let number = (signal as i32).to_string();
            c.step()
                .args(["probe", "raise", &number])
                .run()?
                .expect_status(128 + signal as i32)?;
        }
        Ok(())
    });
}

#[test]
fn a_missing_command_is_127() {
    check(|c| {
        let name = c.word("no-such-command");
        let ran = c
            .step()
            .args([&name])
            .run()?
            .expect_error(127, &[&name, "ENOENT", "PATH"])?;
        expect(
            ran.stdout.is_empty(),
            "nothing on standard output",
            format!("{:?}", ran.stdout),
        )?;
        // The file is there; what its first line names is not.
        let interpreter = format!("/{}", c.word("interpreter"));
        let script = c.dir().join("script");
        std::fs::write(&script, format!("#!{interpreter}\n")).context("write a script")?;
        executable(&script)?;
        c.step()
            .args([&script])
            .run()?
            .expect_error(127, &["interpreter", &interpreter])?;
        Ok(())
    });
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    check(|c| {
        let plain = c.dir().join(c.word("plain"));
        std::fs::write(&plain, "text").context("write a file")?;
        c.step()
            .args([&plain])
            .run()?
            .expect_error(126, &["EACCES", "chmod +x"])?;
        executable(&plain)?;
        c.step()
            .args([&plain])
            .run()?
            .expect_error(126, &["ENOEXEC"])?;
        c.step()
            .args([c.dir()])
            .run()?
            .expect_error(126, &["directory"])?;
        Ok(())
    });
}

fn executable(file: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).context("chmod")
}

#[test]
fn the_launchers_own_failure_is_125() {
    check(|c| {
        let option = format!("--{}", c.word("no-such-option"));
        c.step()
            .args([&option, "probe", "report"])
            .run()?
            .expect_status(125)?;
        let help = c.step().args(["--help"]).run()?.expect_status(0)?;
        expect(
            help.stdout.contains("Usage"),
            "--help to explain the call",
            format!("{:?}", help.stdout),
        )?;
        Ok(())
    });
}

#[test]
fn no_descriptor_is_inherited() {
    check(|c| {
        // A shell opens files which the launcher knows nothing about.
        let program = c.step().command().get_program().to_owned();
        let seen = Step::new("sh".into())
            .args(["-c", "exec 7</proc/version 9>/dev/null \"$@\"", "sh"])
            .args([program])
            .probe()?;
        let more: Vec<_> = seen.fds.iter().filter(|(fd, _)| **fd > 2).collect();
        expect(
            more.is_empty(),
            "no descriptors but the standard streams",
            format!(
                "inherited ones: {more:?}; a leaked descriptor leaks the host's file behind it"
            ),
        )
    });
}

#[test]
fn the_command_starts_with_clean_signals() {
    check(|c| {
        // Not the probe: the runtime of Rust ignores SIGPIPE in it as well.
        let held = c.step().args(["cat"]).start()?;
        let cat = running(&held, "cat")?;
        held.end()?.success()?;
        expect(
            cat.blocked == 0,
            "no signal to be blocked in the command",
            format!(
                "the mask {:#x}: execve(2) keeps the signal mask, and the launcher's is not undone",
                cat.blocked
            ),
        )?;
        expect(
            cat.ignored & SIGPIPE == 0,
            "SIGPIPE at its default action",
            "it ignored: Rust ignores it in every program, and execve(2) keeps that",
        )
    });
}

#[test]
fn signals_are_passed_on() {
    check(|c| {
        let mut held = c.step().args(["probe", "signals"]).start()?;
        let ready: Attempt = held.read()?;
        expect_eq("the first word", ready.text.as_str(), "ready")?;
        let signals = [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGWINCH,
            Signal::SIGTERM,
        ];
        for signal in signals {
            held.signal(signal)?;
            let answer = held.read::<Attempt>().map_err(|_| {
                failed(
                    format!("{signal}, sent to the launcher, to reach the command"),
                    "that it did not within 10 s",
                )
            })?;
            expect_eq("the signal that arrived", answer.text, signal.to_string())?;
        }
        held.wait()?.expect_status(0)?;
        Ok(())
    });
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).ok();
}

#[test]
fn the_command_dies_with_its_launcher() {
    check(|c| {
        let held = c.step().hold()?;
        let child = held.pid()?;
        held.signal(Signal::SIGKILL)?;
        let gone = wait_for(|| match host::process(child) {
            None => Some(()),
            // Dead, and not yet reaped by this check, which has adopted it.
            Some(process) if process.state == 'Z' => Some(()),
            Some(_) => None,
        });
        expect(
            gone.is_some(),
            "the command to die when its launcher is killed",
            "it still alive: nobody will ever wait for it, and what was made for it stays",
        )
    });
}

#[test]
fn an_ordinary_process_of_the_host() {
    check(|c| {
        let held = c.step().hold()?;
        let child = held.pid()?;
        expect_eq("the PID that the host sees", child, held.seen().pid)?;
        let host = host::namespaces("self")?;
        let inside = &held.seen().namespaces;
        let other: Vec<&String> = inside
            .iter()
            .filter(|(kind, inode)| host.get(*kind) != Some(*inode))
            .map(|(kind, _)| kind)
            .collect();
        expect(
            other.is_empty(),
            "the host's namespaces inside, none of which is isolated yet",
            format!("others for {other:?}: an ordinary process needs no namespace of its own"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn clone_where_clone3_is_missing() {
    check(|c| {
        for errno in [nix::errno::Errno::ENOSYS, nix::errno::Errno::EPERM] {
            let launcher = c.step().command();
            c.other_program("probe")
                .args(["without-clone3", &(errno as i32).to_string(), "--"])
                .args([launcher.get_program()])
                .probe()
                .with_context(|| format!("clone3 fails with {errno:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn the_protocol_can_be_watched() {
    check(|c| {
        let ran = c
            .step()
            .args(["-v", "probe", "exit", "0"])
            .run()?
            .success()?;
        let words = ["clone3", "release", "start"];
        let places: Vec<_> = words.iter().map(|word| ran.stderr.find(word)).collect();
        expect(
            places.iter().all(Option::is_some) && places.is_sorted(),
            format!("-v to name {words:?} in this order"),
            format!("{:?}", ran.stderr),
        )
    });
}

#[test]
fn the_terminal_is_handed_over() {
    check(|c| {
        // All three streams on the terminal: a job of its own.
        let (mut child, pty) = spawn_on_pty(
            &mut c.step().args(["sleep", "1000"]).command(),
            Streams::All,
        )?;
        let launcher = child.id() as i32;
        let job = wait_for(|| {
            let job = host::children(launcher).ok()?.into_iter().next()?;
            (job.comm == "sleep" && job.tpgid == job.pgrp).then_some(job)
        });
        let Some(job) = job else {
            child.kill().context("kill the launcher")?;
            child.wait().context("wait")?;
            return Err(failed(
                "the command in the foreground of the terminal",
                "that it is not",
            ));
        };
        let own = expect(
            job.pgrp == job.pid,
            "the command to lead a process group of its own",
            "it in the launcher's: Ctrl-C would reach both, and Ctrl-Z stop the launcher",
        );
        // Ctrl-C: the terminal's interrupt character.
        let mut terminal = std::fs::File::from(pty);
        terminal
            .write_all(b"\x03")
            .context("write to the terminal")?;
        let status = wait_or_kill(&mut child)?;
        own?;
        expect_eq("the status after Ctrl-C", status, Some(130))
    });
}

#[test]
fn a_stopped_command_stops_its_launcher() {
    check(|c| {
        let (mut child, pty) = spawn_on_pty(&mut c.step().args(["cat"]).command(), Streams::All)?;
        let launcher = child.id() as i32;
        let state =
            |wanted: char| wait_for(|| (host::process(launcher)?.state == wanted).then_some(()));
        let result = (|| {
            let foreground = wait_for(|| {
                let job = host::children(launcher).ok()?.into_iter().next()?;
                (job.comm == "cat" && job.tpgid == job.pgrp).then_some(())
            });
            expect(
                foreground.is_some(),
                "the command in the foreground",
                "that it is not",
            )?;
            let mut terminal = std::fs::File::from(pty.try_clone().context("dup")?);
            // Ctrl-Z
            terminal
                .write_all(b"\x1a")
                .context("write to the terminal")?;
            expect(
                state('T').is_some(),
                "the launcher to stop with its command, so that the shell notices",
                "it still running",
            )?;
            // What `fg` does, without giving the terminal away in between.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(launcher), Signal::SIGCONT)
                .context("kill(SIGCONT)")?;
            let text = c.word("typed");
            terminal
                .write_all(format!("{text}\n\x04").as_bytes())
                .context("write to the terminal")?;
            // Ends with EIO, when the last process has closed the terminal.
            let mut shown = String::new();
            let mut bytes = [0; 256];
            while let Ok(n @ 1..) = terminal.read(&mut bytes) {
                shown.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
            // Once as its echo, once from cat.
            expect_eq(
                "how often the terminal shows what was typed",
                shown.matches(&text).count(),
                2,
            )
        })();
        if result.is_err() {
            kill(launcher);
        }
        drop(pty);
        let status = wait_or_kill(&mut child)?;
        result?;
        expect_eq(
            "the status after it went on and read its input",
            status,
            Some(0),
        )
    });
}

#[test]
fn in_a_pipeline_it_stays_in_its_group() {
    check(|c| {
        let mut command = c.step().args(["probe", "report"]).command();
        command.stdout(Stdio::piped());
        let (child, pty) = spawn_on_pty(&mut command, Streams::AllButOutput)?;
        let launcher = child.id() as i32;
        let output = child.wait_with_output().context("wait for the launcher")?;
        drop(pty);
        let seen: Seen = serde_json::from_slice(&output.stdout).context("parse the report")?;
        expect(
            seen.pgrp == launcher,
            "the command in the process group that it shares with the rest of the pipeline",
            "it in one of its own, to which the terminal was given: the rest is stopped by SIGTTIN",
        )
    });
}

#[test]
fn what_the_caller_ignores_is_not_inherited() {
    check(|c| {
        let launcher = c.step().command();
        let held = c
            .other_program("probe")
            .args(["odd-caller", &c.word("key"), "--"])
            .args([launcher.get_program()])
            .args(["cat"])
            .start()?;
        let cat = running(&held, "cat")?;
        held.end()?.success()?;
        expect_eq(
            "the ignored signals of the command, whose caller ignores some",
            format!("{:016x}", cat.ignored).as_str(),
            "0000000000000000",
        )?;
        expect_eq(
            "the blocked signals of the command, whose caller blocks some",
            format!("{:016x}", cat.blocked).as_str(),
            "0000000000000000",
        )?;
        expect_eq(
            "the policy of the command, whose caller has a real-time one",
            cat.policy,
            Some(0),
        )
    });
}

#[test]
fn real_time_signals_are_passed_on() {
    check(|c| {
        let script = "trap 'exit 9' 37; echo '{\"allowed\": true, \"errno\": \"\", \"text\": \"ready\"}'; \
                      while :; do :; done";
        for (signal, status) in [(37, 9), (64, 128 + 64)] {
            let mut held = c.step().args(["sh", "-c", script]).start()?;
            let ready: Attempt = held.read()?;
            expect_eq("the first word", ready.text.as_str(), "ready")?;
            let sent = std::process::Command::new("kill")
                .args([format!("-{signal}"), held.launcher().to_string()])
                .status()
                .context("run kill")?;
            anyhow::ensure!(sent.success(), "kill -{signal}: {sent}");
            let ran = held.wait()?;
            expect(
                ran.status == status,
                format!("status {status} after signal {signal} to the launcher"),
                format!(
                    "{:?}: real-time signals have no names, and kill a process that does not expect them",
                    ran.status
                ),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_set_up_that_hangs_is_ended() {
    check(|c| {
        let launcher = c.step().command();
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut hanging = c
                .other_program("probe")
                .args(["hanging", "--"])
                .args([launcher.get_program()])
                .args(["true"])
                .command()
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .context("start")?;
            let pid = hanging.id() as i32;
            let child = wait_for(|| host::children(pid).ok()?.first().map(|child| child.pid));
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).context("kill")?;
            let status = wait_or_kill(&mut hanging)?;
            expect(
                status == Some(128 + signal as i32),
                format!(
                    "{signal} to end a set-up that hangs, with status {}",
                    128 + signal as i32
                ),
                format!(
                    "{status:?}: the launcher must handle signals also while it waits for the child"
                ),
            )?;
            let child = child
                .and_then(host::process)
                .filter(|child| child.state != 'Z');
            expect(
                child.is_none(),
                "the child to be ended too",
                format!("{child:?}"),
            )?;
        }
        Ok(())
    });
}

/// What `-v` says that the child holds, each time.
fn holds(stderr: &str) -> Vec<Vec<&str>> {
    let lists = stderr
        .lines()
        .filter_map(|line| line.split_once("] holds "));
    lists
        .map(|(_, list)| {
            list.split(", ")
                .filter_map(|fd| Some(fd.split_once(' ')?.1))
                .collect()
        })
        .collect()
}

#[test]
fn the_child_holds_its_two_pipes_only() {
    check(|c| {
        // As a careless caller leaves one behind: open, and not close-on-exec.
        let directory = std::fs::File::open("/").context("open(/)")?;
        fcntl(&directory, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
        let ran = c
            .step()
            .args(["-v", "probe", "exit", "0"])
            .run()?
            .success()?;
        let held = holds(&ran.stderr);
        expect(
            held.len() >= 2,
            "-v to say what the child holds at its birth and before execve",
            format!("{:?}", ran.stderr),
        )?;
        for descriptors in held {
            expect(
                descriptors.len() == 2 && descriptors.iter().all(|d| d.starts_with("pipe:")),
                "the child to hold the two pipes and the standard streams, and nothing else",
                format!(
                    "{descriptors:?}: until execve(2) a path such as /proc/self/fd/3/etc leads \
                     there, and close-on-exec helps only after"
                ),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_magic_link_is_not_executed() {
    check(|c| {
        let script = c.dir().join("script");
        let second = c.dir().join("second");
        let link = c.dir().join("link");
        std::os::unix::fs::symlink("/proc/self/exe", &link).context("symlink")?;
        for (file, interpreter) in [(&script, "/proc/self/exe"), (&second, "/proc/1/exe")] {
            std::fs::write(file, format!("#!{interpreter}\n")).context("write a script")?;
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
                .context("chmod")?;
        }
        let words = [script, second, link].map(|path| path.display().to_string());
        let direct = ["/proc/self/exe"].into_iter();
        for program in direct.chain(words.iter().rev().map(String::as_str)) {
            let ran = c.step().args([program, "--version"]).run()?;
            expect(
                ran.status == 126 && ran.stdout.is_empty(),
                format!("{program} to be refused with status 126"),
                format!(
                    "status {}, {:?}: the command is the engine's own program on the host, which \
                     a container must not get hold of",
                    ran.status, ran.stdout
                ),
            )?;
        }
        Ok(())
    });
}

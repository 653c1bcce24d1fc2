//! Checks of step 03: the PID namespace, its init, and what the host sees.

use std::fs::File;
use std::io::Write;

use check::host::Process;
use check::prelude::*;
use check::sys::{Streams, spawn_on_pty};
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Orphans that end while init is stopped.
const ORPHANS: usize = 6;

#[test]
fn the_command_is_pid_1() {
    check(|c| {
        let ours = host::namespaces("self")?;
        let held = c.step().hold()?;
        let seen = held.seen();
        let why = match (seen.pid, seen.ppid) {
            (1, _) => String::new(),
            (pid, 1) => format!("{pid}, the child of an init that nobody asked for"),
            (pid, _) => {
                format!("{pid}: unshare(2) does not move its caller, only the children born later")
            }
        };
        expect(why.is_empty(), "the command to be PID 1", why)?;
        expect_eq("the PID of its parent, who is not inside", seen.ppid, 0)?;
        for kind in ["uts", "ipc", "pid"] {
            expect(
                seen.namespaces.get(kind) != ours.get(kind),
                format!("a new {kind} namespace"),
                "the host's",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_host_sees_it_under_another_pid() {
    check(|c| {
        let held = c.step().hold()?;
        let pid = held.pid()?;
        let pids = host::status_field(pid, "NSpid").unwrap_or_default();
        expect_eq(
            "its PIDs on the host (NSpid), the host's first",
            pids,
            format!("{pid} 1"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn nobody_outside_is_seen_inside() {
    check(|c| {
        let mut held = c.step().hold()?;
        let launcher = held.launcher();
        let attempt: Attempt = held.ask(&["kill", &launcher.to_string(), "0"])?;
        expect_eq(
            "the result of kill(2) on the launcher's PID, from inside",
            attempt.errno.as_str(),
            "ESRCH",
        )?;
        // The other way round there is no wall.
        kill(Pid::from_raw(held.pid()?), None).context("kill(0) from outside")?;
        // And ps(1) reads /proc, which is still the host's.
        expect(
            held.seen().processes.contains(&launcher),
            "/proc to show the host's processes inside as long as no other is mounted",
            "the launcher is not there",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn pid_1_gets_only_the_signals_it_handles() {
    check(|c| {
        let mut held = c.step().hold()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSTOP] {
            let attempt: Attempt = held.ask(&["raise", &(signal as i32).to_string()])?;
            expect_eq(
                &format!("PID 1 that sends itself {signal}"),
                attempt.text.as_str(),
                "survived",
            )?;
        }
        // From outside: what it does not handle is lost as well, but for two.
        held.signal(Signal::SIGTERM)?;
        let pid = Pid::from_raw(held.pid()?);
        kill(pid, Signal::SIGTERM).context("kill(SIGTERM) from outside")?;
        held.report()?;
        kill(pid, Signal::SIGKILL).context("kill(SIGKILL) from outside")?;
        held.wait()?.expect_status(137)?;
        Ok(())
    });
}

#[test]
fn the_namespace_ends_with_its_first_process() {
    check(|c| {
        for init in [false, true] {
            let option = init.then_some("--init");
            // The command ends, and leaves a process behind.
            let mut held = c.step().args(option).hold()?;
            let left = sleeper(&mut held)?;
            held.end()?.success()?;
            gone(left, "PID 1 has ended")?;
            // The launcher is killed.
            let mut held = c.step().args(option).hold()?;
            let (left, first) = (sleeper(&mut held)?, held.pid()?);
            held.signal(Signal::SIGKILL)?;
            gone(left, "the launcher was killed")?;
            gone(first, "the launcher was killed")?;
            held.wait()?;
        }
        Ok(())
    });
}

#[test]
fn orphans_are_adopted_by_pid_1() {
    check(|c| {
        let mut held = c.step().hold()?;
        let orphan = sleeper(&mut held)?;
        let (parent, first) = (host::process(orphan).map_or(0, |p| p.ppid), held.pid()?);
        expect(
            parent == first,
            format!("the parent, on the host, of an orphan of the container to be process {first}"),
            format!("process {parent}"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn with_init_the_command_is_its_child() {
    check(|c| {
        let held = c.step().args(["--init"]).hold()?;
        let why = match held.seen().pid {
            1 => "the command is PID 1 itself",
            _ => "it is not the child of PID 1",
        };
        expect(
            held.seen().ppid == 1,
            "init to be PID 1 and the command its child",
            why,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn init_reaps_orphans() {
    check(|c| {
        let mut held = c.step().args(["--init"]).hold()?;
        expect_eq(
            "the parent of the command inside, with --init,",
            held.seen().ppid,
            1,
        )?;
        let init = held.pid()?;
        let namespace = pid_namespace(init)?;
        // A signal that is pending already is not sent again (signal(7)): an
        // init that was stopped finds one SIGCHLD for all that ended meanwhile.
        kill(Pid::from_raw(init), Signal::SIGSTOP).context("kill(SIGSTOP)")?;
        for _ in 0..ORPHANS {
            let _: Attempt = held.ask(&["orphan"])?;
        }
        let zombies = || {
            let all = members(namespace).unwrap_or_default();
            let of_init = all.into_iter().filter(|p| p.state == 'Z');
            of_init.collect::<Vec<Process>>()
        };
        let ended = wait_for(|| (zombies().len() == ORPHANS).then_some(()));
        kill(Pid::from_raw(init), Signal::SIGCONT).context("kill(SIGCONT)")?;
        expect(
            ended.is_some(),
            format!("{ORPHANS} orphans that have ended to be zombies while PID 1 is stopped"),
            format!("{}: PID 1 is not their parent", zombies().len()),
        )?;
        let reaped = wait_for(|| {
            // The launcher has stopped with its child.
            if host::process(held.launcher())?.state == 'T' {
                held.signal(Signal::SIGCONT).ok()?;
            }
            zombies().is_empty().then_some(())
        });
        let left = zombies();
        // How many are left of some depends on the signals that came later.
        let (how_many, why) = match left.len() {
            all if all >= ORPHANS => ("all", "nobody waits for them"),
            _ => (
                "some",
                "one SIGCHLD may stand for several children, and each needs a wait(2)",
            ),
        };
        if reaped.is_none() {
            // An init that misses the end of its children misses that of the
            // command too.
            kill(Pid::from_raw(init), Signal::SIGKILL).context("kill(SIGKILL)")?;
        }
        expect(
            reaped.is_some(),
            "no zombie, 10 s after the orphans have ended",
            format!(
                "{how_many} of {ORPHANS}, the children of PID {:?}: {why}",
                left.first().map_or(0, |zombie| zombie.ppid)
            ),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn init_resumes_a_stopped_command() {
    check(|c| {
        let mut command = c.step().args(["--init", "cat"]).command();
        let (mut child, pty) = spawn_on_pty(&mut command, Streams::All)?;
        let launcher = child.id() as i32;
        let mut terminal = File::from(pty);
        let mut work = || -> Result<()> {
            let cat = wait_for(|| {
                let init = host::children(launcher).ok()?.into_iter().next()?;
                let cat = host::children(init.pid).ok()?.into_iter().next()?;
                (cat.comm == "cat" && cat.pgrp == cat.tpgid).then_some(cat.pid)
            });
            let cat = cat.ok_or_else(|| {
                failed(
                    "the command in the foreground of the terminal, as the child of PID 1",
                    "that it is not",
                )
            })?;
            let stopped = Signal::SIGTSTP;
            kill(Pid::from_raw(cat), stopped).context("kill(SIGTSTP)")?;
            // It reads what is typed once it goes on, and ends.
            let text = c.word("typed");
            terminal
                .write_all(format!("{text}\n\x04").as_bytes())
                .context("write to the terminal")?;
            let ended = wait_for(|| {
                host::process(cat)
                    .is_none_or(|cat| cat.state == 'Z')
                    .then_some(())
            });
            expect(
                ended.is_some(),
                "a command that Ctrl-Z has stopped to be resumed by PID 1",
                "it stopped for ever: nobody outside is told, and PID 1 has not asked for stops \
                 (WUNTRACED of wait(2))",
            )
        };
        let worked = work();
        if worked.is_err() {
            for process in host::children(launcher)? {
                kill(Pid::from_raw(process.pid), Signal::SIGKILL).context("kill the container")?;
            }
            child.kill().context("kill the launcher")?;
        }
        let status = child.wait().context("wait for the launcher")?;
        drop(terminal);
        worked?;
        expect_eq("the status of the command", status.code(), Some(0))
    });
}

#[test]
fn init_passes_signals_on() {
    check(|c| {
        let mut held = c.step().args(["--init", "probe", "signals"]).start()?;
        let _: Attempt = held.read()?;
        let init = Pid::from_raw(held.pid()?);
        for signal in [
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGWINCH,
            Signal::SIGINT,
        ] {
            for to in ["the launcher", "PID 1"] {
                match to {
                    "PID 1" => kill(init, signal).context("kill PID 1")?,
                    _ => held.signal(signal)?,
                }
                let answer: Attempt = held.read().map_err(|_| {
                    failed(
                        format!("{signal}, sent to {to}, to reach the command"),
                        "that it did not",
                    )
                })?;
                expect_eq("the signal that arrived", answer.text, signal.to_string())?;
            }
        }
        held.signal(Signal::SIGTERM)?;
        held.wait()?.success()?;
        Ok(())
    });
}

#[test]
fn init_gives_the_commands_status() {
    check(|c| {
        let number = 1 + c.number(120) as i32;
        let exits = [0, number, 255].map(|status| ("exit", status, status));
        let signals = [Signal::SIGKILL, Signal::SIGTERM];
        let raises = signals.map(|signal| ("raise", signal as i32, 128 + signal as i32));
        for (word, number, status) in exits.into_iter().chain(raises) {
            let mut held = c.step().args(["--init"]).hold()?;
            expect_eq(
                "the parent of the command inside, with --init,",
                held.seen().ppid,
                1,
            )?;
            held.tell(&[word, &number.to_string()])?;
            held.wait()?.expect_status(status)?;
        }
        let run = |args: &[&str]| c.step().args(["--init"]).args(args).run();
        let missing = c.word("missing");
        run(&[&missing])?.expect_error(127, &[&missing])?;
        run(&["/dev/null"])?.expect_error(126, &["/dev/null"])?;
        Ok(())
    });
}

#[test]
fn init_holds_nothing_open() {
    check(|c| {
        let held = c.step().args(["--init"]).hold()?;
        let init = held.pid()?;
        let open = || {
            let mut files = Vec::new();
            for entry in std::fs::read_dir(format!("/proc/{init}/fd")).ok()? {
                let target = std::fs::read_link(entry.ok()?.path()).ok()?;
                let target = target.display().to_string();
                if !target.starts_with("anon_inode:") {
                    files.push(target);
                }
            }
            Some(files)
        };
        // Init may be a moment behind the command.
        wait_for(|| open().filter(Vec::is_empty));
        let open = open().unwrap_or_default();
        expect(
            open.is_empty(),
            "init to hold no pipe, terminal or file of the caller open",
            format!("{open:?}: a reader at the other end waits for init, which never writes"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn jobs_can_be_controlled_under_init() {
    check(|c| {
        let mut command = c.step().args(["--init", "sh"]).env("ENV", "").command();
        let (mut child, pty) = spawn_on_pty(&mut command, Streams::All)?;
        let launcher = child.id() as i32;
        let mut terminal = File::from(pty);
        let mut work = || -> Result<()> {
            let init = wait_for(|| Some(host::children(launcher).ok()?.first()?.pid));
            let init = init.ok_or_else(|| failed("a container", "none"))?;
            let namespace = pid_namespace(init)?;
            // The job in the foreground of the terminal, in this state.
            let sleep = |state: char| {
                wait_for(|| {
                    let all = members(namespace).ok()?;
                    let job = all.into_iter().find(|p| p.comm == "sleep")?;
                    let shown = state == 'T' || job.pgrp == job.tpgid;
                    (job.state == state && shown).then_some(())
                })
            };
            let mut type_in =
                |keys: &[u8]| terminal.write_all(keys).context("write to the terminal");
            type_in(b"sleep 1000\n")?;
            expect(
                sleep('S').is_some(),
                "a job in the foreground of the terminal",
                "that the shell has no job control: the terminal is not its own",
            )?;
            type_in(b"\x1a")?;
            expect(sleep('T').is_some(), "Ctrl-Z to stop the job", "it running")?;
            type_in(b"fg\n")?;
            expect(sleep('S').is_some(), "`fg` to continue it", "it stopped")?;
            type_in(b"\x03")?;
            let ended = wait_for(|| {
                let all = members(namespace).ok()?;
                (!all.iter().any(|p| p.comm == "sleep")).then_some(())
            });
            expect(ended.is_some(), "Ctrl-C to end the job", "it running")?;
            type_in(b"exit 42\n")
        };
        let worked = work();
        let ended = wait_for(|| {
            host::process(launcher)
                .is_none_or(|p| p.state == 'Z')
                .then_some(())
        });
        if worked.is_err() || ended.is_none() {
            for process in host::children(launcher)? {
                kill(Pid::from_raw(process.pid), Signal::SIGKILL).context("kill the container")?;
            }
            child.kill().context("kill the launcher")?;
        }
        let status = child.wait().context("wait for the launcher")?;
        drop(terminal);
        worked?;
        expect_eq("the status of the shell", status.code(), Some(42))
    });
}

#[test]
fn init_needs_a_namespace_of_its_own() {
    check(|c| {
        c.step()
            .args(["--init", "--pid", "host", "probe", "exit", "0"])
            .run()?
            .expect_error(125, &["--init", "host"])?;
        let seen = c.step().args(["--pid", "host"]).probe()?;
        expect(
            seen.namespaces.get("pid") == host::namespaces("self")?.get("pid"),
            "the host's PID namespace with --pid host",
            "another one",
        )
    });
}

#[test]
fn the_namespace_of_a_running_process_is_joined() {
    check(|c| {
        let first = c.step().hold()?;
        let mode = format!("container:{}", first.pid()?);
        let mut second = c.step().args(["--pid", &mode]).hold()?;
        expect(
            second.seen().namespaces.get("pid") == first.seen().namespaces.get("pid"),
            "the command in the joined PID namespace",
            "it in another one: setns(2) does not move its caller, only the children born later",
        )?;
        let attempt: Attempt = second.ask(&["kill", "1", "0"])?;
        expect(
            attempt.allowed && second.seen().pid > 1,
            "PID 1 to be the process of the container that was joined",
            format!("{} at PID {}", attempt.errno, second.seen().pid),
        )?;
        second.end()?.success()?;
        first.end()?.success()?;
        c.step()
            .args(["--pid", "container:4194304", "probe", "exit", "0"])
            .run()?
            .expect_error(125, &["4194304"])?;
        Ok(())
    });
}

#[test]
fn pids_shows_every_process_with_all_its_pids() {
    check(|c| {
        // A container in a container.
        let program = c.step().command().get_program().to_owned();
        let held = c.step().args([program]).hold()?;
        let outer = held.pid()?;
        let inner = host::children(outer)?;
        let inner = inner
            .first()
            .context("the inner container has no process")?;
        let pid = outer.to_string();
        for args in [vec!["pids", &pid], vec!["pids"]] {
            let ran = c.step().args(&args).run()?.success()?;
            let rows: Vec<Vec<&str>> = ran
                .stdout
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            for process in [outer, inner.pid] {
                let all = host::status_field(process, "NSpid").unwrap_or_default();
                let all: Vec<&str> = all.split(' ').collect();
                expect(
                    rows.iter().any(|row| row.starts_with(&all)),
                    format!(
                        "`{}` to list a process under all of its PIDs, {}",
                        ran.call,
                        all.join(" ")
                    ),
                    format!(
                        "{:?}: it has one PID for each level of namespaces",
                        rows.iter()
                            .skip(1)
                            .map(|row| row.iter().take(2).copied().collect::<Vec<_>>().join(" "))
                            .collect::<Vec<_>>()
                    ),
                )?;
            }
            let launcher = held.launcher().to_string();
            expect(
                !rows
                    .iter()
                    .any(|row| row.first() == Some(&launcher.as_str())),
                "only processes of containers",
                "the launcher, which is in the host's PID namespace",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn pids_of_no_container_is_an_error() {
    check(|c| {
        let own = std::process::id().to_string();
        for pid in ["4194304", &own] {
            c.step()
                .args(["pids", pid])
                .run()?
                .expect_error(125, &[pid])?;
        }
        Ok(())
    });
}

/// Has the probe leave an orphan behind that waits for ever. Its PID on the
/// host.
fn sleeper(held: &mut Held) -> Result<i32> {
    let attempt: Attempt = held.ask(&["sleeper"])?;
    expect(attempt.allowed, "to fork inside", &attempt.errno)?;
    let namespace = pid_namespace(held.pid()?)?;
    let found = members(namespace)?.into_iter().find(|process| {
        let pids = host::status_field(process.pid, "NSpid").unwrap_or_default();
        pids.split(' ').next_back() == Some(&attempt.text)
    });
    found.map(|process| process.pid).ok_or_else(|| {
        failed(
            format!("process {} of the container on the host", attempt.text),
            "none: it is in no PID namespace with PID 1",
        )
    })
}

fn gone(pid: i32, when: &str) -> Result<()> {
    let gone = wait_for(|| {
        host::process(pid)
            .is_none_or(|p| p.state == 'Z')
            .then_some(())
    });
    expect(
        gone.is_some(),
        format!("every process of the namespace to be gone when {when}"),
        format!("process {pid} alive"),
    )
}

fn pid_namespace(pid: i32) -> Result<u64> {
    host::namespaces(&pid.to_string())?
        .remove("pid")
        .context("no PID namespaces in this kernel")
}

/// The processes of one PID namespace, zombies too: those have left it, but
/// are still the children of its members.
fn members(namespace: u64) -> Result<Vec<Process>> {
    let all = host::processes()?;
    let inside = |pid: i32| pid_namespace(pid).is_ok_and(|own| own == namespace);
    let (mut members, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| inside(p.pid));
    let zombies: Vec<Process> = others
        .into_iter()
        .filter(|p| p.state == 'Z' && members.iter().any(|member| member.pid == p.ppid))
        .collect();
    members.extend(zombies);
    Ok(members)
}

#[test]
fn init_knows_nothing_of_the_launcher() {
    check(|c| {
        let (value, argument) = (c.word("secret"), c.word("argument"));
        let mut held = c
            .step()
            .env("SECRET", &value)
            .args(["--init", "sh", "-c", "probe hold", &argument])
            .start()?;
        let _: Seen = held.read()?;
        let init = held.pid()?;
        let file = |name: &str| std::fs::read(format!("/proc/{init}/{name}")).unwrap_or_default();
        // It may be a moment behind the command.
        wait_for(|| file("cmdline").starts_with(b"drydock-init").then_some(()));
        for (name, word) in [("environ", &value), ("cmdline", &argument)] {
            expect(
                !contains(&file(name), word),
                format!("/proc/1/{name} to say nothing of the caller"),
                format!("{word:?} in it: PID 1 is the forked launcher"),
            )?;
        }
        for word in [&value, &argument] {
            expect(
                !memory(init)?.iter().any(|bytes| contains(bytes, word)),
                "the memory of PID 1 to hold nothing of the caller",
                format!("{word:?} in it: it is a copy of the launcher's"),
            )?;
        }
        let exe = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{init}/exe"))
            .and_then(|mut exe| std::io::Write::write(&mut exe, b"x"));
        expect(
            exe.is_err(),
            "the program of PID 1 to be sealed",
            "that one can write to it",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes
        .windows(word.len())
        .any(|found| found == word.as_bytes())
}

/// The writable memory of a process, a mapping each.
fn memory(pid: i32) -> Result<Vec<Vec<u8>>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("read maps")?;
    let memory = File::open(format!("/proc/{pid}/mem")).context("open mem")?;
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'))
            .context("a line of maps")?;
        let begin = u64::from_str_radix(begin, 16).context("an address")?;
        let end = u64::from_str_radix(end, 16).context("an address")?;
        let mut bytes = vec![0; (end - begin) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, begin)
            .context("read mem")?;
        found.push(bytes);
    }
    Ok(found)
}

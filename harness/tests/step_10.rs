//! Checks of step 10: what a container gives up, and in which order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use check::agent::Agent;
use check::prelude::*;
use nix::errno::Errno;

const NEW_USER: &str = "268435456"; // CLONE_NEWUSER
const NEW_UTS: &str = "67108864"; // CLONE_NEWUTS

/// Bits of capability sets (capabilities(7)).
const CHOWN: u64 = 1;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_TIME: u64 = 1 << 25;
/// The capabilities of a container by default: Docker's fourteen.
const DEFAULT: u64 = 0xa804_25fb;

/// Calls of the step that keep their state in this check's directory.
fn step(c: &Check) -> Step {
    c.step().env("DRYDOCK_STATE", c.dir().join("state"))
}

/// A file with a profile.
fn profile(c: &Check, text: &str) -> Result<String> {
    let path = c.dir().join(format!("{}.json", c.word("profile")));
    fs::write(&path, text).context("write the profile")?;
    Ok(format!("seccomp={}", path.display()))
}

/// A profile that allows all but what these rules say.
fn all_but(c: &Check, rules: &str) -> Result<String> {
    profile(
        c,
        &format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#),
    )
}

fn call(held: &mut Held, words: &[&str]) -> Result<Attempt> {
    held.ask(&[&["call"], words].concat())
}

/// A call that must fail with this errno.
fn expect_refused(held: &mut Held, words: &[&str], errno: &str, otherwise: &str) -> Result<()> {
    let attempt = call(held, words)?;
    let found = match attempt.allowed {
        true => "it was made".to_owned(),
        false => attempt.errno.clone(),
    };
    expect(
        !attempt.allowed && attempt.errno == errno,
        format!("{} refused with {errno}", words.join(" ")),
        format!("{found}: {otherwise}"),
    )
}

fn field(held: &Held, name: &str) -> Result<String> {
    let pid = held.pid()?;
    host::status_field(pid, name).with_context(|| format!("{name} in /proc/{pid}/status"))
}

#[test]
fn a_filter_applies_by_default() {
    check(|c| {
        let held = step(c).hold()?;
        expect_eq(
            "Seccomp in /proc/PID/status",
            field(&held, "Seccomp")?.as_str(),
            "2",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_reaches_the_host_is_refused() {
    check(|c| {
        let mut held = step(c).hold()?;
        // With arguments for which the kernel itself would have another answer.
        for words in [
            ["unshare", NEW_USER].as_slice(),
            &["keyctl", "9999"],
            &["add_key"],
            &["userfaultfd", "-1"],
            &["io_uring_setup"],
            &["bpf", "-1"],
            &["perf_event_open"],
            &["open_by_handle_at"],
            &["kexec_load"],
            &["init_module"],
            &["setns", "-1"],
            &["mount"],
            &["pivot_root"],
            &["swapon"],
            &["socket", "38", "5"],
            &["personality", "262144"],
        ] {
            expect_refused(&mut held, words, "EPERM", "the filter lets it pass")?;
        }
        for words in [
            ["sched_yield"].as_slice(),
            &["socket", "1", "1"],
            &["personality", "4294967295"],
        ] {
            let made = call(&mut held, words)?;
            expect(
                made.allowed,
                format!("{} made", words.join(" ")),
                format!("{}: Docker's profile allows it", made.errno),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn every_interface_is_filtered() {
    check(|c| {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(unsupported(
                "needs an x86-64 machine, which has three interfaces",
            ));
        }
        let mut held = step(c).hold()?;
        // On a kernel without x32 the call would fail with ENOSYS.
        let words = ["--through", "x32", "unshare", NEW_USER];
        expect_refused(
            &mut held,
            &words,
            "EPERM",
            "the number of an x32 call has bit 30, and the filter does not know it",
        )?;
        let made = call(&mut held, &["--through", "x86", "20"])?;
        if made.allowed {
            let words = ["--through", "x86", "310", NEW_USER];
            expect_refused(
                &mut held,
                &words,
                "EPERM",
                "310 is unshare of a 32-bit program, and the filter knows 64-bit numbers only",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_is_newer_than_the_profile_is_unknown() {
    check(|c| {
        let mut held = step(c).hold()?;
        for words in [["clone3"], ["5000"]] {
            expect_refused(
                &mut held,
                &words,
                "ENOSYS",
                "the C library falls back on an older call if one is unknown, and gives up if it \
                 is forbidden",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_file_replaces_the_profile() {
    check(|c| {
        let errno = 60 + c.number(30);
        let file = profile(
            c,
            &format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":null,"syscalls":[
                    {{"names":["sched_yield"],"action":"SCMP_ACT_ERRNO","errnoRet":{errno}}}]}}"#
            ),
        )?;
        let mut held = step(c).args(["--security-opt", &file]).hold()?;
        let refused = call(&mut held, &["sched_yield"])?;
        let name = format!("{:?}", nix::errno::Errno::from_raw(errno as i32));
        expect_eq("the errno of sched_yield", refused.errno, name)?;
        expect(
            call(&mut held, &["keyctl", "9999"])?.errno != "EPERM",
            "keyctl as the file has it: allowed",
            "EPERM: the default profile applies as well",
        )?;
        held.end()?.success()?;
        let held = step(c)
            .args(["--security-opt", "seccomp=unconfined"])
            .hold()?;
        expect_eq(
            "Seccomp without a filter",
            field(&held, "Seccomp")?.as_str(),
            "0",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn arguments_are_compared_in_full() {
    check(|c| {
        // sched_yield takes no arguments: the kernel does not mind.
        let value = (1u64 << 32) + 5;
        let rules = format!(
            r#"{{"name":"sched_yield","action":"SCMP_ACT_ERRNO","errnoRet":71,
                 "args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}},
               {{"name":"getpgrp","action":"SCMP_ACT_ERRNO","errnoRet":71,
                 "args":[{{"index":1,"value":{value},"op":"SCMP_CMP_GT"}}]}},
               {{"name":"getpid","action":"SCMP_ACT_ERRNO","errnoRet":71,"args":[
                 {{"index":2,"value":{},"valueTwo":{},"op":"SCMP_CMP_MASKED_EQ"}}]}}"#,
            0xf_0000_0006u64, 0x2_0000_0004u64,
        );
        let option = all_but(c, &rules)?;
        let mut held = step(c).args(["--security-opt", &option]).hold()?;
        let (low, high) = (5, 1i64 << 32);
        for (name, index, argument, refused) in [
            ("sched_yield", 0, high + low, true),
            ("sched_yield", 0, low, false),
            ("sched_yield", 0, high, false),
            ("getpgrp", 1, high + low + 1, true),
            ("getpgrp", 1, 2 * high, true),
            ("getpgrp", 1, high + low, false),
            ("getpgrp", 1, low + 1, false),
            ("getpgrp", 1, -1, true),
            ("getpid", 2, 0x12_0000_000d, true),
            ("getpid", 2, 0x2_0000_0006, false),
            ("getpid", 2, 0x4, false),
        ] {
            let mut words = vec![name.to_owned()];
            words.extend((0..3).map(|n| if n == index { argument } else { 0 }.to_string()));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let made = call(&mut held, &words)?;
            expect(
                made.allowed != refused,
                format!(
                    "{name} with {argument:#x} {}",
                    ["made", "refused"][usize::from(refused)]
                ),
                "the opposite: an argument has 64 bits, and the accumulator 32",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_strictest_rule_decides() {
    check(|c| {
        let rules = r#"
            {"name":"sched_yield","action":"SCMP_ACT_LOG","args":[{"value":7,"op":"SCMP_CMP_GE"}]},
            {"name":"sched_yield","action":"SCMP_ACT_ERRNO","args":[{"value":9,"op":"SCMP_CMP_GE"}]},
            {"name":"getpgrp","action":"SCMP_ACT_ERRNO","args":[
                {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"name":"getsid","action":"SCMP_ACT_ERRNO","args":[{"value":1,"op":"SCMP_CMP_EQ"}]}"#;
        let option = all_but(c, rules)?;
        let mut held = step(c).args(["--security-opt", &option]).hold()?;
        for (words, refused) in [
            (["sched_yield", "8", "0"], false),
            (["sched_yield", "9", "0"], true),
            (["getpgrp", "1", "2"], true),
            (["getpgrp", "1", "3"], false),
            (["getpgrp", "3", "2"], false),
        ] {
            let made = call(&mut held, &words)?;
            expect(
                made.allowed != refused,
                format!(
                    "{} {}",
                    words.join(" "),
                    ["made", "refused"][usize::from(refused)]
                ),
                "the opposite: of several rules that match the strictest counts, and all \
                 conditions of a rule must hold",
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn capabilities_are_added_and_dropped() {
    check(|c| {
        let all = host::status_field(std::process::id() as i32, "CapBnd").context("CapBnd")?;
        let all = u64::from_str_radix(&all, 16).context("CapBnd")?;
        for (options, expected) in [
            ([].as_slice(), DEFAULT),
            (&["--cap-drop", "chown"], DEFAULT & !CHOWN),
            (
                &["--cap-add", "CAP_SYS_TIME", "--cap-drop", "CHOWN"],
                (DEFAULT & !CHOWN) | SYS_TIME,
            ),
            (&["--cap-drop", "ALL"], 0),
            (&["--cap-drop", "ALL", "--cap-add", "SYS_TIME"], SYS_TIME),
            (&["--cap-add", "ALL", "--cap-drop", "CHOWN"], all & !CHOWN),
            (&["--privileged"], all),
        ] {
            let held = step(c).args(options).hold()?;
            let sets = &held.seen().capabilities;
            for (set, expected) in [
                ("CapBnd", expected),
                ("CapPrm", expected),
                ("CapEff", expected),
                ("CapInh", 0),
                ("CapAmb", 0),
            ] {
                let what = format!("{set} with {options:?}");
                expect_eq(
                    &what,
                    format!("{:#x}", sets[set] & all),
                    format!("{:#x}", expected & all),
                )?;
            }
            held.end()?.success()?;
        }
        step(c)
            .args(["--cap-add", "SYS_TEIM", "true"])
            .run()?
            .expect_status(125)?;
        Ok(())
    });
}

#[test]
fn another_user_has_no_capabilities() {
    check(|c| {
        let uid = (10_000 + c.number(50_000)).to_string();
        let held = step(c).args(["--user", &uid]).hold()?;
        let seen = held.seen();
        expect_eq("CapPrm of an ordinary user", seen.capabilities["CapPrm"], 0)?;
        expect_eq("CapEff of an ordinary user", seen.capabilities["CapEff"], 0)?;
        expect_eq(
            "Seccomp in /proc/PID/status",
            field(&held, "Seccomp")?.as_str(),
            "2",
        )?;
        expect_eq(
            "NoNewPrivs in /proc/PID/status",
            field(&held, "NoNewPrivs")?.as_str(),
            "0",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_filter_follows_the_capabilities() {
    check(|c| {
        let mut held = step(c).args(["--cap-add", "SYS_ADMIN"]).hold()?;
        expect(
            held.seen().capabilities["CapEff"] & SYS_ADMIN != 0,
            "CAP_SYS_ADMIN in CapEff",
            "it is missing",
        )?;
        let made = call(&mut held, &["unshare", NEW_UTS])?;
        expect(
            made.allowed,
            "unshare allowed to a container with CAP_SYS_ADMIN",
            format!("{}: includes.caps was not looked at", made.errno),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn no_new_privileges_is_an_option() {
    check(|c| {
        for (options, expected) in [
            ([].as_slice(), "0"),
            (&["--security-opt", "no-new-privileges"], "1"),
            (&["--security-opt", "no-new-privileges=false"], "0"),
        ] {
            let held = step(c).args(options).hold()?;
            let found = field(&held, "NoNewPrivs")?;
            expect_eq(
                &format!("NoNewPrivs with {options:?}"),
                found.as_str(),
                expected,
            )?;
            expect_eq("Seccomp", field(&held, "Seccomp")?.as_str(), "2")?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn the_filter_comes_last() {
    check(|c| {
        // All that the launcher's child does before it executes the command.
        let option = all_but(
            c,
            r#"{"action":"SCMP_ACT_KILL_PROCESS","names":["prctl","capset","capget","setresuid",
                "setresgid","setgroups","close_range","unshare","setns","mount","umount2",
                "pivot_root","sethostname","execveat","seccomp","umask","rt_sigtimedwait"]}"#,
        )?;
        for options in [
            ["--user", "1234"].as_slice(),
            &["--security-opt", "no-new-privileges"],
        ] {
            let ran = step(c)
                .args(["--security-opt", &option])
                .args(options)
                .args([c.other_program("probe").command().get_program()])
                .args(["call", "sched_yield"])
                .run()?;
            expect(
                ran.status == 0,
                "a command that starts, although its filter forbids what the launcher does",
                format!("status {}: the filter was loaded too early", ran.status),
            )?;
        }
        Ok(())
    });
}

#[test]
fn an_init_is_filtered_too() {
    check(|c| {
        let held = step(c).args(["--init"]).hold()?;
        let init = held.pid()?;
        let children = host::children(init)?;
        let command = children.first().context("a child of the init")?.pid;
        for (what, pid) in [("the command", command), ("the init", init)] {
            let found = host::status_field(pid, "Seccomp").context("Seccomp")?;
            expect(
                found == "2",
                format!("a filter on {what}"),
                format!("Seccomp {found}: root of the container may trace its init"),
            )?;
            let effective = host::status_field(pid, "CapEff").context("CapEff")?;
            let effective = u64::from_str_radix(&effective, 16).context("CapEff")?;
            expect(
                effective & SYS_ADMIN == 0,
                format!("{what} without CAP_SYS_ADMIN"),
                format!("CapEff {effective:#x}"),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_profile_is_refused_by_name() {
    check(|c| {
        let rule = |rest: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],{rest}}}]}}"#
            )
        };
        for (text, word) in [
            ("{}".to_owned(), "defaultAction"),
            (r#"{"defaultAction":"ALLOW"}"#.to_owned(), "ALLOW"),
            (rule(r#""actoin":"SCMP_ACT_ALLOW""#), "actoin"),
            (
                rule(r#""action":"SCMP_ACT_ALLOW","errnoRet":5"#),
                "errnoRet",
            ),
            (
                rule(r#""action":"SCMP_ACT_ALLOW","name":"write""#),
                "both name and names",
            ),
            (
                rule(r#""action":"SCMP_ACT_ALLOW","args":[{"index":7,"op":"SCMP_CMP_EQ"}]"#),
                "argument 7",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                    {"name":"execve","action":"SCMP_ACT_ERRNO"}]}"#
                    .to_owned(),
                "execve",
            ),
        ] {
            let option = profile(c, &text)?;
            let ran = step(c).args(["--security-opt", &option, "true"]).run()?;
            ran.expect_error(125, &[word])?;
        }
        let missing = format!("seccomp={}", c.dir().join("nothing").display());
        step(c)
            .args(["--security-opt", &missing, "true"])
            .run()?
            .expect_error(125, &["nothing"])?;
        Ok(())
    });
}

/// The files of the cache, by their names.
fn cached(c: &Check) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let directory = c.dir().join("state/seccomp");
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory:?}"))? {
        let path = entry.context("read the cache")?.path();
        let content = fs::read(&path).context("read a cached program")?;
        files.insert(path, content);
    }
    Ok(files)
}

#[test]
fn a_planted_program_is_not_loaded() {
    check(|c| {
        let option = all_but(c, "")?;
        step(c)
            .args(["--security-opt", &option, "true"])
            .run()?
            .success()?;
        let open = cached(c)?;
        let open = open.values().next().context("no cached program")?.clone();
        step(c).args(["true"]).run()?.success()?;
        let files = cached(c)?;
        let (path, _) = files
            .iter()
            .find(|(_, content)| **content != open)
            .context("no second program")?;
        let somebody = 20_000 + c.number(20_000) as u32;
        for how in ["owner", "mode", "cut"] {
            fs::remove_file(path).context("remove a program")?;
            match how {
                "cut" => fs::write(path, &open[..open.len() / 2]),
                _ => fs::write(path, &open),
            }
            .context("plant a program")?;
            match how {
                "owner" => chown(path, Some(somebody), None),
                "mode" => fs::set_permissions(path, PermissionsExt::from_mode(0o666)),
                _ => Ok(()),
            }
            .context("give it away")?;
            let mut held = step(c).hold()?;
            expect_refused(
                &mut held,
                &["unshare", NEW_USER],
                "EPERM",
                "a program that somebody else has put there was loaded",
            )?;
            held.end()?;
        }
        Ok(())
    });
}

#[test]
fn a_verdict_is_explained() {
    check(|c| {
        let says = |words: &[&str]| -> Result<String> {
            let ran = step(c).args(["seccomp", "explain"]).args(words).run()?;
            Ok(ran.success()?.stdout)
        };
        for (words, expected) in [
            (
                ["mount"].as_slice(),
                "mount: refused with EPERM, because CAP_SYS_ADMIN is missing",
            ),
            (&["--cap-add", "SYS_ADMIN", "mount"], "mount: allowed"),
            (&["clone3"], "refused with ENOSYS"),
            (
                &["clone", "CLONE_NEWUSER"],
                "refused with EPERM, by its arguments",
            ),
            (
                &["--kernel", "4.4", "ptrace"],
                "the kernel is older than 4.8",
            ),
            (&["userfaultfd"], "because no rule names it"),
        ] {
            let said = says(words)?;
            expect(
                said.contains(expected),
                format!("explain {}: {expected}", words.join(" ")),
                format!("{said:?}"),
            )?;
        }
        let shown = step(c).args(["seccomp", "show"]).run()?.success()?.stdout;
        expect(
            shown.contains("load arch") && shown.contains("return ALLOW"),
            "the program, from the load of the interface to its returns",
            format!("{:?}", shown.lines().next()),
        )
    });
}

#[test]
fn a_recorded_profile_fits() {
    check(|c| {
        let file = c.dir().join("recorded.json");
        let probe = c.other_program("probe").command().get_program().to_owned();
        step(c)
            .args(["seccomp", "record", "-o"])
            .args([&file])
            .args([&probe])
            .args(["call", "sched_yield"])
            .run()?
            .success()?;
        let option = format!("seccomp={}", file.display());
        let again = |words: &[&str]| {
            step(c)
                .args(["--security-opt", &option])
                .args([&probe])
                .args(words)
                .run()
        };
        let made: Attempt = again(&["call", "sched_yield"])?.success()?.json()?;
        expect(made.allowed, "the recorded call made", made.errno)?;
        let other: Attempt = again(&["call", "getpgrp"])?.success()?.json()?;
        expect_eq(
            "a call that was not recorded",
            other.errno.as_str(),
            "EPERM",
        )?;
        Ok(())
    });
}

#[test]
fn only_parameters_of_namespaces_are_set() {
    check(|c| {
        let value = (1000 + c.number(1000)).to_string();
        let option = format!("net.core.somaxconn={value}");
        let host = fs::read_to_string("/proc/sys/net/core/somaxconn").context("somaxconn")?;
        let mut held = step(c)
            .args(["--network", "none", "--sysctl", &option])
            .args(["--sysctl", "kernel.shmmni=77"])
            .hold()?;
        for (file, value) in [
            ("/proc/sys/net/core/somaxconn", value.as_str()),
            ("/proc/sys/kernel/shmmni", "77"),
        ] {
            let read: Attempt = held.ask(&["read", file])?;
            expect_eq(file, read.text.trim(), value)?;
        }
        held.end()?.success()?;
        let after = fs::read_to_string("/proc/sys/net/core/somaxconn").context("somaxconn")?;
        expect_eq("the host's somaxconn", after, host)?;
        for option in [
            "kernel.core_pattern=|/bin/sh",
            "vm.swappiness=1",
            "net/../kernel/core_pattern=x",
        ] {
            let ran = step(c).args(["--sysctl", option, "true"]).run()?;
            ran.expect_status(125)?;
        }
        step(c)
            .args(["--ipc", "host", "--sysctl", "kernel.shmmni=78", "true"])
            .run()?
            .expect_error(125, &["host", "ipc"])?;
        Ok(())
    });
}

/// The seconds since the machine's start, in the reader's time namespace.
fn uptime(text: &str) -> Result<u64> {
    let whole = text.split(['.', ' ']).next().unwrap_or_default();
    whole.parse().context("parse /proc/uptime")
}

#[test]
fn a_clock_is_shifted_for_the_container_only() {
    check(|c| {
        if !std::path::Path::new("/proc/self/timens_offsets").exists() {
            return Err(unsupported("this kernel has no time namespaces"));
        }
        let days = 1 + c.number(300);
        let offset = format!("boottime={}", days * 86_400);
        let ran = step(c)
            .args(["--time-offset", &offset, "cat", "/proc/uptime"])
            .run()?
            .success()?;
        let outside = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
        let (inside, outside) = (uptime(&ran.stdout)?, uptime(&outside)?);
        expect(
            inside >= outside + days * 86_400 - 600 && outside < inside,
            "a machine that started days earlier",
            "another time: boottime has a line of its own in timens_offsets",
        )?;
        for wrong in ["boottime=-999999999", "realtime=5"] {
            step(c)
                .args(["--time-offset", wrong, "true"])
                .run()?
                .expect_status(125)?;
        }
        Ok(())
    });
}

#[test]
fn a_listener_decides() {
    check(|c| {
        let path = c.dir().join("agent");
        let word = c.word("metadata");
        let rules = |more: &str| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": {path:?},
                    "listenerMetadata": "{word}", "syscalls": [
                    {{"names": ["sched_yield"], "action": "SCMP_ACT_NOTIFY"}}, {more}]}}"#
            );
            profile(c, &text)
        };
        // The call that hands the descriptor over is the container's own: the
        // filter may refuse it, or ask the listener about it.
        for (action, errno) in [
            (r#"SCMP_ACT_ERRNO", "errnoRet": 38, "comment": ""#, "ENOSYS"),
            ("SCMP_ACT_NOTIFY", "EXDEV"),
        ] {
            let option = rules(&format!(
                r#"{{"names": ["sendmsg"], "action": "{action}"}}"#
            ))?;
            let agent = Agent::start(&path, Errno::EXDEV)?;
            let mut held = step(c).args(["--security-opt", &option]).hold()?;
            let pid = held.pid()?;
            for (call, errno) in [("sched_yield", "EXDEV"), ("sendmsg", errno)] {
                expect_refused(
                    &mut held,
                    &[call],
                    errno,
                    "the listener's decision does not count",
                )?;
            }
            held.end()?.success()?;
            let heard = agent.end()?;
            let message = &heard.message;
            expect_eq(
                "pid of the message",
                message["pid"].as_i64(),
                Some(pid.into()),
            )?;
            expect_eq(
                "state.pid of the message",
                message["state"]["pid"].as_i64(),
                Some(pid.into()),
            )?;
            expect_eq(
                "metadata of the message",
                message["metadata"].as_str(),
                Some(word.as_str()),
            )?;
            expect(
                message["fds"] == serde_json::json!(["seccompFd"])
                    && ["ociVersion", "id", "status", "bundle"]
                        .iter()
                        .all(|name| message["state"][name].is_string()),
                "a container process state (config-linux.md)",
                message.to_string(),
            )?;
            expect(!heard.calls.is_empty(), "calls to decide on", "none")?;
            fs::remove_file(&path).context("unlink")?;
        }
        let option = rules(r#"{"names": ["getpgrp"], "action": "SCMP_ACT_NOTIFY"}"#)?;
        let again = || {
            step(c)
                .args(["--security-opt", &option, "echo", "made"])
                .run()
        };
        let nobody = again()?.expect_error(125, &["listenerPath"])?;
        expect_eq("what was printed", nobody.stdout.as_str(), "")?;
        // It has gone when the descriptor is handed over.
        let agent = Agent::deaf(&path)?;
        let gone = again()?.expect_error(125, &["listenerPath"])?;
        expect_eq("what was printed", gone.stdout.as_str(), "")?;
        agent.end()?;
        Ok(())
    });
}

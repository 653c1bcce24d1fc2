//! CPU time, shares and sets of CPUs, and the number of processes.

use std::fs;
use std::time::Duration;

use check::prelude::*;

use crate::common::{computing, cpu_ticks, groups, kill, last_cpu, number, own_groups};

#[test]
fn cpus_are_a_share_of_time() {
    check(|c| {
        let mut held = c.step().args(["--cpus", "0.25"]).hold()?;
        let set = groups(&held)?.read("cpu.cfs_quota_us", "cpu.max")?;
        let quota = set.split(' ').next().unwrap_or_default().to_owned();
        expect_eq("the quota of a period of 100000", quota.as_str(), "25000")?;
        let burnt: Attempt = held.ask(&["burn", "2000"])?;
        let used = number("the CPU time", &burnt.text)?;
        expect(
            (150..900).contains(&used),
            "about 500 ms of CPU time in 2000 ms",
            format!("{used} ms"),
        )?;
        let stat = groups(&held)?.read("cpu.stat", "cpu.stat")?;
        let throttled = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "))
            .unwrap_or("0");
        expect(
            number("nr_throttled", throttled)? > 0,
            "a group that was throttled",
            &stat,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn shares_divide_what_there_is() {
    check(|c| {
        for (shares, weight) in [("1024", "100"), ("2", "1"), ("262144", "10000")] {
            let held = c.step().args(["--cpu-shares", shares]).hold()?;
            let groups = groups(&held)?;
            let set = groups.read("cpu.shares", "cpu.weight")?;
            let expected = if groups.on_v1("cpu") { shares } else { weight };
            expect_eq(
                &format!("what --cpu-shares {shares} sets"),
                set.as_str(),
                expected,
            )?;
            held.end()?.success()?;
        }
        // Both want all of one CPU, for longer than anybody looks.
        let burn = |shares: &str| {
            c.step()
                .args(["--cpuset-cpus", "0", "--cpu-shares", shares])
                .args(["probe", "burn", "60000"])
                .start()
        };
        let (little, much) = (burn("128")?, burn("2048")?);
        let (little_pid, much_pid) = (computing(&little)?, computing(&much)?);
        let before = (cpu_ticks(little_pid)?, cpu_ticks(much_pid)?);
        std::thread::sleep(Duration::from_millis(2500));
        let little_used = cpu_ticks(little_pid)? - before.0;
        let much_used = cpu_ticks(much_pid)? - before.1;
        for (held, pid) in [(little, little_pid), (much, much_pid)] {
            kill(pid)?;
            held.wait()?.expect_status(137)?;
        }
        expect(
            much_used > little_used * 2,
            "2048 shares to get several times what 128 get",
            format!("{much_used} clock ticks against {little_used}"),
        )
    });
}

#[test]
fn a_cpuset_keeps_it_on_its_cpus() {
    check(|c| {
        let cpu = last_cpu()?.to_string();
        let held = c
            .step()
            .args(["--cpuset-cpus", &cpu, "--cpuset-mems", "0"])
            .hold()?;
        let groups = groups(&held)?;
        expect_eq(
            "cpuset.cpus",
            groups.read("cpuset.cpus", "cpuset.cpus")?.as_str(),
            cpu.as_str(),
        )?;
        let allowed = host::status_field(held.pid()?, "Cpus_allowed_list").unwrap_or_default();
        expect_eq("the CPUs of the process", allowed.as_str(), cpu.as_str())?;
        held.end()?.success()?;
        for (option, id) in [("--cpuset-cpus", "4000"), ("--cpuset-mems", "900")] {
            c.step()
                .args([option, id, "true"])
                .run()?
                .expect_error(125, &[option, id])?;
        }
        Ok(())
    });
}

#[test]
fn a_v1_cpuset_has_cpus_and_nodes() {
    check(|c| {
        if !own_groups()?.on_v1("cpuset") {
            return Err(unsupported(
                "the cpuset controller is not in a v1 hierarchy",
            ));
        }
        for (option, other) in [
            ("--cpuset-cpus", "cpuset.mems"),
            ("--cpuset-mems", "cpuset.cpus"),
        ] {
            let held = c.step().args([option, "0"]).hold()?;
            let groups = groups(&held)?;
            let dir = groups.controller("cpuset").context("a cpuset group")?;
            for dir in [Some(dir), dir.parent()].into_iter().flatten() {
                let text = fs::read_to_string(dir.join(other)).context("read the cpuset")?;
                expect(
                    !text.trim().is_empty(),
                    format!("{other} to be set with {option} 0"),
                    "nothing in it: no process may enter such a group (ENOSPC)",
                )?;
            }
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn fork_fails_at_the_limit_on_pids() {
    check(|c| {
        let ran = c
            .step()
            .args(["--pids-limit", "10", "probe", "fork", "40"])
            .run()?;
        let attempt: Attempt = ran.success()?.json()?;
        let forked = number("the forks", &attempt.text)?;
        expect(
            !attempt.allowed && attempt.errno == "EAGAIN" && (4..10).contains(&forked),
            "fork(2) to fail with EAGAIN before there are 10 children",
            format!("{forked} children, {:?}", attempt.errno),
        )?;
        let held = c.step().args(["--pids-limit", "-1"]).hold()?;
        if let Some(dir) = groups(&held)?.controller("pids") {
            let most = fs::read_to_string(dir.join("pids.max")).context("read pids.max")?;
            expect_eq("pids.max with --pids-limit -1", most.trim(), "max")?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

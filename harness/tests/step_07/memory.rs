//! Limits on memory and swap, the OOM killer, reservations.

use std::fs;
use std::path::Path;

use check::prelude::*;

use crate::common::{Loop, MIB, Made, groups, kill, number};

#[test]
fn memory_limits_are_in_the_files() {
    check(|c| {
        let held = c
            .step()
            .args(["-m", "128m", "--memory-reservation", "32m"])
            .hold()?;
        let groups = groups(&held)?;
        let limit = groups.read("memory.limit_in_bytes", "memory.max")?;
        expect_eq("the limit", number("the limit", &limit)?, 128 * MIB)?;
        let kept = groups.read("memory.soft_limit_in_bytes", "memory.low")?;
        expect_eq(
            "the reservation",
            number("the reservation", &kept)?,
            32 * MIB,
        )?;
        let usage = groups.read("memory.usage_in_bytes", "memory.current")?;
        let usage = number("the usage", &usage)?;
        expect(
            usage > 0 && usage <= 128 * MIB,
            "a usage between 0 and the limit",
            usage,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn swap_is_limited_with_memory() {
    check(|c| {
        for (option, v1, v2) in [
            (None, 128 * MIB, "67108864"),
            (Some("64m"), 64 * MIB, "0"),
            (Some("96m"), 96 * MIB, "33554432"),
            (Some("-1"), u64::MAX, "max"),
        ] {
            let mut args = vec!["-m", "64m"];
            args.extend(option.iter().flat_map(|swap| ["--memory-swap", swap]));
            let held = c.step().args(&args).hold()?;
            let groups = groups(&held)?;
            let dir = groups.controller("memory").map(Path::to_owned);
            let has = |name: &str| dir.as_ref().is_some_and(|dir| dir.join(name).exists());
            if !has("memory.memsw.limit_in_bytes") && !has("memory.swap.max") {
                return Err(unsupported("the kernel does not account for swap"));
            }
            let said = groups.read("memory.memsw.limit_in_bytes", "memory.swap.max")?;
            let what = format!("the limit on swap with {}", args.join(" "));
            if !groups.on_v1("memory") {
                expect_eq(&what, said.as_str(), v2)?;
            } else if v1 == u64::MAX {
                expect(number(&what, &said)? > 1 << 60, format!("no {what}"), said)?;
            } else {
                expect_eq(&what, number(&what, &said)?, v1)?;
            }
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn beyond_its_memory_it_is_killed() {
    check(|c| {
        for (limit, asked) in [("100m", "200"), ("50m", "60")] {
            let ran = c
                .step()
                .args(["-m", limit, "--memory-swap", limit, "probe", "alloc", asked])
                .run()?;
            expect(
                ran.status == 137,
                format!("{asked} MiB in a group of {limit} to be killed"),
                format!(
                    "status {}: {}{}",
                    ran.status,
                    ran.stdout.trim(),
                    ran.stderr.trim()
                ),
            )?;
        }
        let ran = c
            .step()
            .args(["-m", "100m", "probe", "alloc", "60"])
            .run()?;
        let attempt: Attempt = ran.success()?.json()?;
        expect_eq("what fits under the limit", attempt.text.as_str(), "60 MiB")
    });
}

#[test]
fn the_oom_killer_is_named() {
    check(|c| {
        let killed = c
            .step()
            .args(["-m", "48m", "--memory-swap", "48m", "probe", "alloc", "80"])
            .run()?
            .expect_status(137)?;
        for word in ["memory", "48m"] {
            expect(
                killed.stderr.contains(word),
                format!("the launcher to say why the command was killed: {word}"),
                format!(
                    "{:?}: 137 alone could be anybody's SIGKILL",
                    killed.stderr.trim()
                ),
            )?;
        }
        let held = c.step().args(["-m", "48m"]).hold()?;
        kill(held.pid()?)?;
        let ran = held.wait()?.expect_status(137)?;
        expect(
            !ran.stderr.contains("memory"),
            "nothing about memory where somebody else sent SIGKILL",
            format!("{:?}", ran.stderr.trim()),
        )
    });
}

#[test]
fn a_reservation_is_kept() {
    check(|c| {
        // Room for 80 MiB, and page cache for more than that.
        let scarce = Made::in_v2(&c.word("scarce"))?;
        if !scarce.0.join("memory.max").exists() {
            return Err(unsupported(
                "the memory controller is not on in the root group of v2",
            ));
        }
        for (file, value) in [
            ("memory.max", "83886080"),
            ("memory.low", "83886080"),
            ("cgroup.subtree_control", "+memory"),
        ] {
            fs::write(scarce.0.join(file), value).with_context(|| format!("write {file}"))?;
        }
        let name = scarce.0.file_name().unwrap_or_default();
        let open = |disk: &Loop| fs::File::open(&disk.0).context("open the disk");
        let start = |disk: &Loop, more: &[&str]| {
            c.step()
                .args(["--cgroup-parent".as_ref(), name])
                .args(["--device", &disk.0])
                .args(more)
                .hold()
        };
        let left = |more: &[&str]| -> Result<u64> {
            // Disks of its own: what is cached already is charged to whoever
            // read it first.
            let (own, others) = (Loop::new(c, 36)?, Loop::new(c, 120)?);
            // The cache of a disk is dropped when nobody has it open any more.
            let _cached = (open(&own)?, open(&others)?);
            let mut one = start(&own, more)?;
            one.ask::<Attempt>(&["read-all", &own.0])?;
            let mut other = start(&others, &[])?;
            other.ask::<Attempt>(&["read-all", &others.0])?;
            let usage = groups(&one)?.read("memory.usage_in_bytes", "memory.current")?;
            one.end()?.success()?;
            other.end()?.success()?;
            Ok(number("the usage", &usage)? / MIB)
        };
        let (without, with) = (left(&[])?, left(&["--memory-reservation", "40m"])?);
        expect(
            with >= 28 && with > without + 8,
            "36 MiB of cache to stay where 40 MiB are reserved",
            format!("{with} MiB left of them, and {without} without a reservation"),
        )?;
        // Below zero nothing is protected, and the group is not ours.
        fs::write(scarce.0.join("memory.low"), "0").context("write memory.low")?;
        c.step()
            .args(["--cgroup-parent".as_ref(), name])
            .args(["--memory-reservation", "40m", "true"])
            .run()?
            .expect_error(125, &["--memory-reservation", "memory.low"])?;
        Ok(())
    });
}

//! Checks of step 07: control groups, on v1, v2 and hosts that have both.

#[path = "step_07/common.rs"]
mod common;
#[path = "step_07/delegation.rs"]
mod delegation;
#[path = "step_07/devices.rs"]
mod devices;
#[path = "step_07/group.rs"]
mod group;
#[path = "step_07/lab.rs"]
mod lab;
#[path = "step_07/memory.rs"]
mod memory;
#[path = "step_07/processors.rs"]
mod processors;
#[path = "step_07/view.rs"]
mod view;

use check::prelude::*;
use common::{called_by, last_cpu, read_only};

#[test]
fn a_limit_that_cannot_be_set_is_an_error() {
    check(|c| {
        let uid = 20_000 + c.number(20_000) as u32;
        called_by(c, uid, None)?
            .args(["-m", "64m", "true"])
            .run()?
            .expect_error(125, &["--memory"])?;
        called_by(c, uid, None)?.args(["true"]).run()?.success()?;
        let said = called_by(c, uid, None)?
            .args(["-v", "true"])
            .run()?
            .success()?;
        expect(
            said.stderr.contains("warning"),
            "a warning under -v that there is no control group",
            said.stderr,
        )?;
        read_only(c, &["--pids-limit", "50", "true"])?
            .expect_error(125, &["--pids-limit 50", "read-only"])?;
        Ok(())
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    check(|c| {
        let cpus = (last_cpu()? + 2).to_string();
        for (args, words) in [
            (vec!["-m", "1m"], ["--memory 1m", "6m"]),
            (
                vec!["-m", "64m", "--memory-swap", "32m"],
                ["--memory-swap 32m", "64m"],
            ),
            (vec!["--memory-swap", "64m"], ["--memory-swap", "--memory"]),
            (
                vec!["-m", "64m", "--memory-reservation", "65m"],
                ["--memory-reservation", "64m"],
            ),
            (vec!["--cpus", &cpus], ["--cpus", &cpus]),
            (vec!["--cpus", "0.001"], ["--cpus", "0.001"]),
            (vec!["--cpu-shares", "1"], ["--cpu-shares", "2"]),
            (vec!["--blkio-weight", "5"], ["--blkio-weight", "10"]),
            (vec!["--cgroup-parent", "../x"], ["--cgroup-parent", "../x"]),
        ] {
            c.step()
                .args(&args)
                .args(["true"])
                .run()?
                .expect_error(125, &words)?;
        }
        for args in [["-m", "much"], ["--cpus", "half"], ["--cpuset-cpus", "0-"]] {
            let ran = c
                .step()
                .args(args)
                .args(["true"])
                .run()?
                .expect_status(125)?;
            expect(
                ran.stderr.contains(args[1]),
                format!("the value {:?} to be named", args[1]),
                ran.stderr,
            )?;
        }
        Ok(())
    });
}

#[test]
fn zero_is_no_limit() {
    check(|c| {
        for options in [
            &["-m", "0"][..],
            &["-m", "64m", "--memory-swap", "0"],
            &["-m", "0", "--memory-swap", "-1"],
            &["--memory-reservation", "0"],
            &["--cpus", "0"],
            &["--cpu-shares", "0"],
            &["--cpu-quota", "0", "--cpu-period", "0"],
            &["--cpu-quota", "-1"],
            &["--cpuset-cpus", ""],
            &["--pids-limit", "0"],
            &["--blkio-weight", "0"],
        ] {
            let ran = c.step().args(options).args(["true"]).run()?;
            expect(
                ran.status == 0,
                format!("{options:?} to mean no limit, as compose files write it"),
                ran.stderr.trim(),
            )?;
        }
        c.step()
            .args(["-m", "0", "--memory-swap", "64m", "true"])
            .run()?
            .expect_error(125, &["--memory-swap"])?;
        Ok(())
    });
}

//! Groups that belong to others: delegated ones, and those that are left alone.

use std::fs;
use std::path::Path;

use check::prelude::*;

use crate::common::{Made, called_by, groups};

#[test]
fn a_delegated_subtree_is_enough() {
    check(|c| {
        let uid = 20_000 + c.number(20_000) as u32;
        let given = Made::in_v2(&c.word("given"))?;
        given.delegate(uid)?;
        let has = fs::read_to_string(given.0.join("cgroup.controllers")).context("read")?;
        if !has.split_whitespace().any(|word| word == "memory") {
            return Err(unsupported(
                "the memory controller is not on in the root group of v2",
            ));
        }
        let held = called_by(c, uid, Some(&given.0))?
            .args(["-m", "64m"])
            .hold()?;
        let groups = groups(&held)?;
        let limit = groups.read("memory.limit_in_bytes", "memory.max")?;
        expect_eq(
            "the limit of an ordinary user's container",
            limit.as_str(),
            "67108864",
        )?;
        let dir = groups.v2().map(Path::to_owned).unwrap_or_default();
        expect(
            dir.starts_with(&given.0) && dir != given.0,
            format!("the group below {}", given.0.display()),
            dir.display(),
        )?;
        held.end()?.success()?;
        let left = given.groups_in_it()?;
        expect(
            left.is_empty(),
            "the subtree as it was",
            format!("{left:?} in it"),
        )?;
        let on = given.subtree_control()?;
        expect(
            on.is_empty(),
            "no controller enabled in it any more",
            format!("{on:?} in cgroup.subtree_control"),
        )
    });
}

#[test]
fn foreign_groups_are_left_alone() {
    check(|c| {
        let theirs = Made::in_v2(&c.word("theirs"))?;
        let name = theirs
            .0
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ran = c
            .step()
            .args(["--cgroup-parent", &name, "--pids-limit", "50", "true"])
            .run()?;
        let on = theirs.subtree_control()?;
        expect(
            on.is_empty(),
            "cgroup.subtree_control of another manager's group untouched",
            format!("{on:?} in it"),
        )?;
        ran.expect_error(125, &["pids", &name])?;
        let has = fs::read_to_string(theirs.0.join("cgroup.controllers")).context("read")?;
        if has.split_whitespace().any(|word| word == "pids") {
            fs::write(theirs.0.join("cgroup.subtree_control"), "+pids").context("+pids")?;
            let held = c
                .step()
                .args(["--cgroup-parent", &name, "--pids-limit", "50"])
                .hold()?;
            let dir = groups(&held)?.v2().map(Path::to_owned).unwrap_or_default();
            expect_eq(
                "the group above the container's",
                dir.parent(),
                Some(theirs.0.as_path()),
            )?;
            held.end()?.success()?;
            expect_eq(
                "what is on in it",
                theirs.subtree_control()?.as_str(),
                "pids",
            )?;
        }
        Ok(())
    });
}

//! Hierarchies and rules to play with.

use std::collections::BTreeSet;
use std::fs;

use check::prelude::*;

use crate::common::number;

#[test]
fn a_hierarchy_can_be_made_without_a_controller() {
    check(|c| {
        let name = c.word("learn");
        let run = |args: &[&str]| -> Result<String> {
            Ok(c.step()
                .args(["hierarchy"])
                .args(args)
                .run()?
                .success()?
                .stdout)
        };
        let place = |pid: i32| -> Result<String> {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("read cgroup")?;
            let named = format!(":name={name}:");
            let line = text.lines().find_map(|line| line.split_once(&named));
            Ok(line.map_or("none", |(_, path)| path).to_owned())
        };
        // Started before it is made: a mount namespace that is made later would
        // have it too, and keep it.
        let mut held = c.step().args(["--pid", "host"]).hold()?;
        let pid = held.pid()?;
        let made = c.step().args(["hierarchy", "make", &name]).run()?;
        if made.stderr.contains("cgroup_no_v1") {
            return Err(unsupported("v1 hierarchies are disabled (cgroup_no_v1)"));
        }
        made.success()?;
        expect_eq(
            "the group of every process in a new hierarchy",
            place(pid)?.as_str(),
            "/",
        )?;
        run(&["group", &name, "a/b"])?;
        run(&["move", &name, "a", &pid.to_string()])?;
        expect_eq("where the process is", place(pid)?.as_str(), "/a")?;
        let child: Attempt = held.ask(&["sleeper"])?;
        let child = number("the child's PID", &child.text)? as i32;
        expect_eq("where its child begins", place(child)?.as_str(), "/a")?;
        run(&["move", &name, "/a/b", &child.to_string(), "--thread"])?;
        expect_eq(
            "the group to which its child is moved",
            place(child)?.as_str(),
            "/a/b",
        )?;
        expect_eq(
            "the group in which the process still is",
            place(pid)?.as_str(),
            "/a",
        )?;
        let listed = run(&["ls", &name])?;
        expect(
            listed.lines().any(|line| line == format!("/a/b: {child}")),
            "the groups with their processes",
            listed,
        )?;
        run(&["rm", &name])?;
        expect_eq(
            "the hierarchy of the process afterwards",
            place(pid)?.as_str(),
            "none",
        )?;
        expect(
            host::process(child).is_some(),
            "the process to live on",
            "none",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_four_rules_are_tried() {
    check(|c| {
        let before = fs::read_to_string("/proc/cgroups").context("read /proc/cgroups")?;
        let text = c
            .step()
            .args(["hierarchy", "rules"])
            .run()?
            .success()?
            .stdout;
        for rule in ["rule 1", "rule 2", "rule 3", "rule 4"] {
            expect(text.contains(rule), format!("{rule} to be tried"), &text)?;
        }
        for answer in ["allowed", "refused: EBUSY"] {
            expect(
                text.contains(answer),
                format!("the kernel's answer {answer:?}"),
                &text,
            )?;
        }
        let free = |text: &str| -> BTreeSet<String> {
            text.lines()
                .filter(|line| line.split_whitespace().nth(1) == Some("0"))
                .filter_map(|line| line.split_whitespace().next().map(String::from))
                .collect()
        };
        let after = wait_for(|| {
            let now = fs::read_to_string("/proc/cgroups").ok()?;
            (free(&now) == free(&before)).then_some(())
        });
        expect(
            after.is_some(),
            "the controllers to be free again",
            fs::read_to_string("/proc/cgroups").unwrap_or_default(),
        )?;
        let groups = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let left: Vec<&str> = groups
            .lines()
            .filter(|line| line.contains("rules"))
            .collect();
        expect(
            left.is_empty(),
            "no hierarchy left behind",
            format!("{left:?}"),
        )?;
        let listed = c
            .step()
            .args(["hierarchy", "controllers"])
            .run()?
            .success()?
            .stdout;
        // Not memory: a kernel may have it for v2 only.
        for controller in ["pids", "cpu"] {
            expect(
                listed.contains(controller),
                format!("{controller} in the list"),
                &listed,
            )?;
        }
        Ok(())
    });
}

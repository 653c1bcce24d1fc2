//! Limits that change, and what is used of them.

use std::fs;

use check::prelude::*;
use serde_json::Value;

use crate::Life;

/// The limits of a container's groups: memory, processes.
fn limits(life: &Life<'_>, name: &str) -> Result<(String, String)> {
    let (pid, _) = life.pids(name)?;
    let groups = check::cgroup::of(pid)?;
    Ok((
        groups.read("memory.limit_in_bytes", "memory.max")?,
        groups.read("pids.max", "pids.max")?,
    ))
}

/// The same, of its record.
fn recorded(life: &Life<'_>, name: &str) -> Result<(i64, i64)> {
    let record = life.record(name)?;
    let number = |name: &str| record["HostConfig"][name].as_i64().unwrap_or(0);
    Ok((number("Memory"), number("PidsLimit")))
}

#[test]
fn limits_change_in_the_group_and_in_the_record() {
    check(|c| {
        let life = Life::new(c)?;
        life.detached("box", &["-m", "64m"], "exec sleep 1000")?;
        let update = ["update", "-m", "100m", "--pids-limit", "9", "box"];
        expect_eq("what update prints", &*life.said(&update)?, "box")?;
        let mega = |mega: u64| (mega << 20).to_string();
        let expected = (mega(100), "9".to_owned());
        expect_eq(
            "the limits of its groups",
            limits(&life, "box")?,
            expected.clone(),
        )?;
        expect_eq(
            "those of its record",
            recorded(&life, "box")?,
            (100 << 20, 9),
        )?;

        // All of it, or nothing.
        for (options, words) in [
            (&["-m", "200m"][..], "memoryswap"),
            (&["-m", "80m", "--cpu-quota", "1"], "--cpu-quota"),
            (
                &["--pids-limit", "5", "-m", "90m", "--cpuset-cpus", "4000"],
                "--cpuset-cpus",
            ),
        ] {
            let words_of = [&["update"][..], options, &["box"]].concat();
            life.call(&words_of).run()?.expect_error(1, &[words])?;
            let what = format!("the limits after update {}", options.join(" "));
            expect_eq(&what, limits(&life, "box")?, expected.clone())?;
            expect_eq(&what, recorded(&life, "box")?, (100 << 20, 9))?;
        }
        life.call(&["update", "box"])
            .run()?
            .expect_error(1, &["you must provide one or more flags"])?;

        // The next start has them.
        life.said(&["restart", "-t", "0", "box"])?;
        expect_eq(
            "the limits after a restart",
            limits(&life, "box")?,
            expected,
        )?;
        life.said(&["stop", "-t", "0", "box"])?;
        life.said(&["update", "-m", "80m", "--pids-limit", "-1", "box"])?;
        life.said(&["start", "box"])?;
        let expected = (mega(80), "max".to_owned());
        expect_eq(
            "the limits of a stopped container",
            limits(&life, "box")?,
            expected,
        )?;
        life.said(&["rm", "-f", "box"]).map(drop)
    });
}

#[test]
fn stats_show_what_is_used() {
    check(|c| {
        let life = Life::new(c)?;
        let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; touch /ready; \
                      while :; do :; done";
        life.detached("busy", &["-m", "64m", "--pids-limit", "9"], script)?;
        life.detached("idle", &[], "exec sleep 1000")?;
        life.said(&[
            "create",
            "--name",
            "made",
            "--network",
            "none",
            &life.image,
            "true",
        ])?;
        let ready = wait_for(|| life.said(&["exec", "busy", "cat", "/ready"]).ok());
        expect(ready.is_some(), "20 MiB to be written", "not yet")?;
        let table = life.said(&["stats", "--no-stream"])?;
        let head = table.lines().next().unwrap_or("");
        let columns: Vec<&str> = head
            .split("   ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        expect_eq(
            "the columns",
            columns,
            vec![
                "CONTAINER ID",
                "NAME",
                "CPU %",
                "MEM USAGE / LIMIT",
                "MEM %",
                "NET I/O",
                "BLOCK I/O",
                "PIDS",
            ],
        )?;
        expect_eq("the containers", table.lines().count(), 3)?;
        let of = |name: &str, options: &[&str]| -> Result<Value> {
            let words = ["stats", "--no-stream", "--format", "json"];
            let text = life.said(&[&words[..], options].concat())?;
            let all = text.lines().map(serde_json::from_str::<Value>);
            let all: Vec<Value> = all.collect::<Result<_, _>>().context("lines of JSON")?;
            let found = all.into_iter().find(|one| one["Name"] == name);
            found.ok_or_else(|| failed(format!("{name} in the list"), text))
        };
        let busy = of("busy", &[])?;
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("").to_owned();
        let usage = text(&busy, "MemUsage");
        let (used, limit) = usage.split_once(" / ").unwrap_or(("", ""));
        expect_eq("the limit of memory", limit, "64MiB")?;
        let number = |text: &str| {
            text.trim_end_matches(|c: char| !c.is_ascii_digit())
                .parse::<f64>()
        };
        let mega = number(used).unwrap_or(0.0);
        expect(
            used.ends_with("MiB") && (20.0..40.0).contains(&mega),
            "20 MiB of memory, and a little more",
            used,
        )?;
        let share = number(&text(&busy, "MemPerc")).unwrap_or(0.0);
        expect(
            (30.0..65.0).contains(&share),
            "20 of 64 MiB in percent",
            share,
        )?;
        let cpu = number(&text(&busy, "CPUPerc")).unwrap_or(0.0);
        expect((1.0..250.0).contains(&cpu), "a busy processor", cpu)?;
        let idle = of("idle", &["idle"])?;
        let cpu = number(&text(&idle, "CPUPerc")).unwrap_or(100.0);
        expect(cpu < 1.0, "an idle one", cpu)?;
        let memory = fs::read_to_string("/proc/meminfo").context("read")?;
        expect(
            !memory.is_empty() && !text(&idle, "MemUsage").ends_with("/ 0B"),
            "the machine's memory as limit, without one",
            text(&idle, "MemUsage"),
        )?;
        expect_eq("its processes", &*text(&idle, "PIDs"), "1")?;
        let made = of("made", &["-a"])?;
        let all = text(&made, "MemUsage") + " " + &text(&made, "PIDs");
        expect_eq("one that does not run", &*all, "0B / 0B 0")?;
        life.call(&["stats", "--no-stream", "none"])
            .run()?
            .expect_status(1)?;
        life.said(&["rm", "-f", "busy", "idle", "made"]).map(drop)
    });
}

#[test]
fn what_has_ended_is_pruned() {
    check(|c| {
        let life = Life::new(c)?;
        let create = ["create", "--network", "none", "--name"];
        for (name, label) in [("one", "keep=no"), ("two", "keep"), ("three", "other")] {
            life.said(&[&create[..], &[name, "--label", label, &life.image, "true"]].concat())?;
        }
        life.detached("runs", &[], "exec sleep 1000")?;
        let names = || -> Result<String> {
            let text = life.said(&["container", "ls", "-a", "--format", "{{.Names}}"])?;
            let mut names: Vec<&str> = text.lines().collect();
            names.sort_unstable();
            Ok(names.join(" "))
        };
        expect_eq("all", &*names()?, "one runs three two")?;
        // Nobody has said yes.
        life.call(&["container", "prune"]).run()?.success()?;
        expect_eq("all, still", &*names()?, "one runs three two")?;
        let prune = ["container", "prune", "-f", "--filter"];
        life.said(&[&prune[..], &["until=1h"]].concat())?;
        expect_eq("the young ones", &*names()?, "one runs three two")?;
        let id = life.record("one")?["Id"].as_str().unwrap_or("").to_owned();
        let text = life.said(&[&prune[..], &["label=keep=no"]].concat())?;
        let expected = format!("Deleted Containers:\n{id}\n\nTotal reclaimed space: ");
        expect(text.starts_with(&expected), expected, &text)?;
        life.said(&[&prune[..], &["label!=keep"]].concat())?;
        expect_eq("those with the label", &*names()?, "runs two")?;
        life.call(&[&prune[..], &["colour=red"]].concat())
            .run()?
            .expect_error(1, &["colour"])?;
        life.said(&["container", "prune", "-f"])?;
        expect_eq("what runs", &*names()?, "runs")?;
        let df = life.said(&[
            "system",
            "df",
            "--format",
            "{{.Type}} {{.TotalCount}} {{.Active}}",
        ])?;
        expect(
            df.contains("Containers 1 1"),
            "one container, which runs",
            &df,
        )?;
        life.said(&["container", "rm", "-f", "runs"])?;
        life.expect_nothing_left()
    });
}

#[test]
fn an_update_finds_the_next_start() {
    check(|c| {
        let life = Life::new(c)?;
        let options = ["--restart", "always", "--pids-limit", "40"];
        life.detached("box", &options, "exec sleep 1000")?;
        for most in 41..44 {
            // Dead, or about to be started, or just started.
            let (pid, monitor) = life.pids("box")?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)
                .context("kill")?;
            let text = most.to_string();
            life.said(&["update", "--pids-limit", &text, "box"])?;
            let again = wait_for(|| {
                let (next, same) = life.pids("box").ok()?;
                (next > 0 && next != pid && same == monitor).then_some(())
            });
            expect(
                again.is_some(),
                "the container to be started again",
                "it is not",
            )?;
            let what = format!("the limit of processes after update --pids-limit {most}");
            expect_eq(&what, limits(&life, "box")?.1, text)?;
            expect_eq(
                &format!("{what}, in the record"),
                recorded(&life, "box")?.1,
                most,
            )?;
        }
        life.said(&["rm", "-f", "box"]).map(drop)
    });
}

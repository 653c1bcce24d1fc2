//! Is a container healthy?

use check::prelude::*;
use serde_json::Value;

use crate::Life;

/// Waits until the health of a container fits, and returns it.
fn health(life: &Life<'_>, name: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let look = || Some(life.record(name).ok()?["State"]["Health"].clone());
    match wait_for(|| look().filter(|health| fits(health))) {
        Some(health) => Ok(health),
        None => Err(failed(
            format!("another health of {name}"),
            look().unwrap_or_default()["Status"].to_string(),
        )),
    }
}

fn status(life: &Life<'_>, name: &str, wanted: &str) -> Result<Value> {
    health(life, name, |health| health["Status"] == wanted)
}

#[test]
fn a_container_says_whether_it_is_healthy() {
    check(|c| {
        let life = Life::new(c)?;
        let word = c.word("words");
        let command = format!("echo {word} $TWO; test -e /ok");
        let often = ["--health-interval", "100ms", "--health-retries", "3"];
        let options = [&["-e", "TWO=2", "--health-cmd", &command][..], &often].concat();
        life.detached("box", &options, "exec sleep 1000")?;
        life.expect_status("box", "Up")?;

        // Three in a row must fail.
        let ill = status(&life, "box", "unhealthy")?;
        let streak = ill["FailingStreak"].as_u64().unwrap_or(0);
        expect(streak >= 3, "three failures in a row", streak)?;
        let last = &ill["Log"][0];
        expect_eq(
            "the probe's exit status",
            last["ExitCode"].as_i64(),
            Some(1),
        )?;
        let output = last["Output"].as_str().unwrap_or("");
        expect_eq("the probe's output", output, &format!("{word} 2\n"))?;
        let shown = life.said(&["ps", "--format", "{{.Status}}"])?;
        expect(shown.ends_with("(unhealthy)"), "(unhealthy) in ps", &shown)?;

        // One that succeeds is enough.
        life.said(&["exec", "box", "touch", "/ok"])?;
        let well = status(&life, "box", "healthy")?;
        expect_eq("failures in a row", well["FailingStreak"].as_u64(), Some(0))?;
        health(&life, "box", |health| {
            let log = health["Log"].as_array();
            log.is_some_and(|log| log.len() == 5 && log.iter().all(|one| one["ExitCode"] == 0))
        })?;
        for (filter, names) in [("health=healthy", "box"), ("health=unhealthy", "")] {
            let found = life.said(&["ps", "--filter", filter, "--format", "{{.Names}}"])?;
            expect_eq(filter, &*found, names)?;
        }

        // Nothing is started in a container that is paused.
        life.said(&["pause", "box"])?;
        let quiet = |_: &()| {
            life.record("box")
                .ok()
                .map(|all| all["State"]["Health"]["Log"][4].clone())
        };
        let before = quiet(&());
        life.said(&["unpause", "box"])?;
        health(&life, "box", |health| {
            Some(&health["Log"][4]) != before.as_ref()
        })?;
        status(&life, "box", "healthy")?;

        life.said(&["stop", "-t", "0", "box"])?;
        life.said(&["start", "box"])?;
        let (first, _) = life.pids("box")?;
        expect(first > 0, "that it runs again", first)?;
        status(&life, "box", "healthy")?;
        life.said(&["rm", "-f", "box"])?;
        life.expect_nothing_left()
    });
}

#[test]
fn a_probe_that_hangs_is_killed() {
    check(|c| {
        let life = Life::new(c)?;
        let often = ["--health-interval", "100ms", "--health-timeout", "300ms"];
        // Its first process is the probe's; the shell replaces itself.
        let options = [
            &often[..],
            &["--health-retries", "1", "--health-cmd", "exec sleep 999"],
        ]
        .concat();
        life.detached("box", &options, "exec sleep 1000")?;
        let ill = status(&life, "box", "unhealthy")?;
        expect_eq(
            "its exit status",
            ill["Log"][0]["ExitCode"].as_i64(),
            Some(-1),
        )?;
        let output = ill["Log"][0]["Output"].as_str().unwrap_or("");
        expect(output.contains("exceeded timeout"), "why it failed", output)?;
        // At most the one that runs now.
        let count = life.said(&[
            "exec",
            "box",
            "sh",
            "-c",
            "grep -c '^sleep.999' /proc/[0-9]*/cmdline | grep -c ':1$' || true",
        ])?;
        expect(
            count.parse::<u32>().is_ok_and(|count| count <= 1),
            "at most one probe in the container",
            &count,
        )?;

        // More output than is kept does not block the probe, and is cut.
        let loud = [
            "--health-interval",
            "400ms",
            "--health-cmd",
            "grep SigBlk /proc/self/status; yes | head -c 200000",
        ];
        life.detached("loud", &loud, "exec sleep 1000")?;
        let well = status(&life, "loud", "healthy")?;
        let kept = well["Log"][0]["Output"].as_str().map(str::len);
        expect_eq("bytes that are kept", kept, Some(4096))?;
        let output = well["Log"][0]["Output"].as_str().unwrap_or("");
        let none = "SigBlk:\t0000000000000000\n";
        expect(
            output.starts_with(none),
            "a probe that blocks no signal",
            output.get(..24).unwrap_or(output),
        )?;

        // Neither does a probe that cannot be started end the container: its
        // monitor has no descriptor left for one.
        let (first, monitor) = life.pids("loud")?;
        let monitor_pid = rustix::process::Pid::from_raw(monitor);
        let limit = |most| {
            let limit = rustix::process::Rlimit {
                current: Some(most),
                maximum: Some(1024),
            };
            rustix::process::prlimit(monitor_pid, rustix::process::Resource::Nofile, limit)
                .context("prlimit(RLIMIT_NOFILE)")
        };
        let turns = || {
            let turns = host::status_field(monitor, "voluntary_ctxt_switches");
            turns.and_then(|turns| turns.parse::<u64>().ok())
        };
        // Of the first eight one is free, and a pipe has two ends. Fewer would
        // be too few for poll(2): EINVAL while a probe runs.
        limit(8)?;
        let before = turns().unwrap_or(0);
        wait_for(|| turns().is_none_or(|now| now > before + 3).then_some(()));
        let alive = host::process(monitor).is_some_and(|process| process.state != 'Z');
        expect(
            alive,
            "the monitor to outlive a probe that it cannot start",
            "it has ended",
        )?;
        // What has failed stands among the last five of the log, for two seconds.
        limit(1024)?;
        health(&life, "loud", |health| {
            let log = health["Log"].as_array();
            log.is_some_and(|log| {
                log.iter().any(|one| {
                    let output = one["Output"].as_str().unwrap_or_default();
                    output.contains("not started")
                })
            })
        })?;
        expect_eq("its first process", life.pids("loud")?.0, first)?;

        // What contradicts itself is refused before anything is made.
        let both = [
            "create",
            "--no-healthcheck",
            "--health-cmd",
            "true",
            &life.image,
            "true",
        ];
        life.call(&both)
            .run()?
            .expect_error(1, &["--no-healthcheck"])?;
        life.said(&["rm", "-f", "box", "loud"])?;
        life.expect_nothing_left()
    });
}

//! What happens to containers, told to those who ask.

use std::collections::BTreeMap;
use std::fs::{self, File};

use check::check::wait_or_kill;
use check::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Life, is_gone};

/// All that has happened to a container, with what each event is about.
fn told(life: &Life<'_>, name: &str) -> Result<Vec<String>> {
    let format = "{{.Action}}{{range $k, $v := .Actor.Attributes}}{{if ne $k \"image\"}}{{if ne $k \
                  \"name\"}}{{if ne $k \"execID\"}} {{$k}}={{$v}}{{end}}{{end}}{{end}}{{end}}";
    let filter = format!("container={name}");
    let words = [
        "events", "--since", "1", "--until", "0s", "--filter", &filter, "--format",
    ];
    let text = life.said(&[&words[..], &[format]].concat())?;
    Ok(text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect())
}

fn expect_told(life: &Life<'_>, name: &str, expected: &[&str]) -> Result<()> {
    let found = told(life, name)?.join(", ");
    expect_eq(
        &format!("what happened to {name}"),
        &*found,
        &*expected.join(", "),
    )
}

#[test]
fn what_happens_is_told_once_and_in_order() {
    check(|c| {
        let life = Life::new(c)?;
        let image = &life.image;
        let run = ["run", "--network", "none", "--name"];
        // Somebody who follows from the beginning, through a pipe.
        let output = c.dir().join("followed");
        let mut follower = life
            .call(&[
                "events",
                "--filter",
                "event=die",
                "--format",
                "{{.Actor.Attributes.name}}",
            ])
            .command()
            .stdout(File::create(&output).context("create")?)
            .spawn()
            .context("run events")?;
        let events = life.root.join("containers/events");
        let follows = wait_for(|| events.exists().then_some(()));
        expect(
            follows.is_some(),
            "events to watch its directory",
            "not yet",
        )?;

        life.call(
            &[
                &run[..],
                &["one", "--label", "a=b", image, "sh", "-c", "exit 3"],
            ]
            .concat(),
        )
        .run()?
        .expect_status(3)?;
        life.said(&["rm", "one"])?;
        expect_told(
            &life,
            "one",
            &[
                "create a=b",
                "attach a=b",
                "start a=b",
                "die a=b exitCode=3",
                "destroy a=b",
            ],
        )?;
        life.call(&[&run[..], &["two", "--rm", image, "/no/such"]].concat())
            .run()?
            .expect_status(127)?;
        expect_told(&life, "two", &["create", "attach", "destroy"])?;

        life.detached(
            "three",
            &[],
            "trap 'exit 0' USR1; while :; do sleep 1; done",
        )?;
        life.call(&["exec", "three", "sh", "-c", "exit 5"])
            .run()?
            .expect_status(5)?;
        life.said(&["pause", "three"])?;
        life.said(&["unpause", "three"])?;
        life.said(&["rename", "three", "four"])?;
        life.said(&["update", "--restart", "no", "four"])?;
        life.said(&["stop", "-t", "0", "four"])?;
        life.said(&["start", "four"])?;
        life.said(&["restart", "-t", "0", "four"])?;
        life.said(&["kill", "four"])?;
        life.said(&["rm", "four"])?;
        expect_told(
            &life,
            "three",
            &[
                "create",
                "start",
                "exec_create: sh -c exit 5",
                "exec_start: sh -c exit 5",
                "exec_die exitCode=5",
                "pause",
                "unpause",
            ],
        )?;
        let ended = [
            "kill signal=15",
            "kill signal=9",
            "die exitCode=137",
            "stop",
        ];
        let first = ["rename oldName=/three", "update"];
        let last = ["restart", "kill signal=9", "die exitCode=137", "destroy"];
        let all = [&first[..], &ended, &["start"], &ended, &["start"], &last].concat();
        expect_told(&life, "four", &all)?;

        // Whoever finds a killed launcher's container tells its end, once.
        life.detached("five", &[], "exec sleep 1000")?;
        let (first, monitor) = life.pids("five")?;
        let id = life.record("five")?["Id"].as_str().unwrap_or("").to_owned();
        let path = life.root.join("containers").join(format!("{id}.json"));
        let record = fs::read(&path).context("read the record")?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL).context("kill the monitor")?;
        let gone = wait_for(|| (is_gone(first) && is_gone(monitor)).then_some(()));
        expect(gone.is_some(), "both to be gone", "not yet")?;
        life.said(&["ps", "-a"])?;
        // Now the record is as if the monitor had been killed after it had told
        // the end, and before it wrote it down.
        fs::write(&path, record).context("write the record")?;
        for _ in 0..2 {
            life.said(&["ps", "-a"])?;
        }
        life.said(&["rm", "five"])?;
        let expected = ["create", "start", "die exitCode=137", "destroy"];
        expect_told(&life, "five", &expected)?;

        // The next start removes the groups.
        life.call(&[&run[..], &["six", "--rm", image, "true"]].concat())
            .run()?
            .success()?;

        // The follower has heard of every end, and of nothing else.
        let expected = "one\nfour\nfour\nfour\nfive\nsix\n";
        let heard = wait_for(|| {
            let text = fs::read_to_string(&output).ok()?;
            (text == expected).then_some(())
        });
        if heard.is_none() {
            let text = fs::read_to_string(&output).unwrap_or_default();
            return Err(failed(
                format!("a follower to hear {expected:?}"),
                format!("{text:?}"),
            ));
        }
        follower.kill().context("kill events")?;
        follower.wait().context("wait")?;
        // --until ends by itself, when the time has come and not before.
        let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        let at = soon
            .duration_since(std::time::UNIX_EPOCH)
            .context("the time")?;
        let until = format!("{}.{:09}", at.as_secs(), at.subsec_nanos());
        let mut last = life.call(&["events", "--until", &until]).command();
        let mut last = last
            .stdout(std::process::Stdio::null())
            .spawn()
            .context("run events")?;
        expect_eq(
            "the status of events --until",
            wait_or_kill(&mut last)?,
            Some(0),
        )?;
        expect(
            std::time::SystemTime::now() >= soon,
            "it to wait until then",
            "earlier",
        )?;
        Ok(())
    });
}

#[test]
fn events_that_cannot_be_written_stop_nothing() {
    check(|c| {
        let life = Life::new(c)?;
        let events = life.root.join("containers/events");
        life.detached("box", &[], "exec sleep 1000")?;
        let path = events.join("now");
        // In the middle of a line, as a full disk or a killed writer leaves it.
        let mut text = fs::read_to_string(&path).context("read the events")?;
        text.push_str("{\"status\":\"paus");
        fs::write(&path, text).context("write")?;
        life.said(&["pause", "box"])?;
        life.said(&["unpause", "box"])?;
        let found = life.said(&[
            "events",
            "--since",
            "1",
            "--until",
            "0s",
            "--filter",
            "type=container",
            "--format",
            "json",
        ])?;
        let actions = |text: &str| -> Result<Vec<String>> {
            text.lines()
                .map(|line| {
                    let event: Value = serde_json::from_str(line).context("a line of JSON")?;
                    Ok(event["Action"].as_str().unwrap_or("").to_owned())
                })
                .collect()
        };
        expect_eq(
            "the events around half a line",
            actions(&found)?.join(" "),
            "create start pause unpause".to_owned(),
        )?;
        // There is no place for any.
        fs::remove_dir_all(&events).context("rm -r")?;
        fs::write(&events, "").context("write")?;
        life.said(&["exec", "box", "true"])?;
        life.said(&["stop", "-t", "0", "box"])?;
        life.said(&["start", "box"])?;
        life.expect_status("box", "Up")?;
        life.said(&["rm", "-f", "box"])?;
        fs::remove_file(&events).context("unlink")?;

        // They do not take more and more room.
        fs::create_dir(&events).context("mkdir")?;
        let line = found.lines().next().unwrap_or("").to_owned() + "\n";
        let long = line.repeat((1 << 20) / line.len());
        fs::write(&path, &long).context("write")?;
        fs::write(events.join("before"), &long).context("write")?;
        life.detached("box", &[], "exec sleep 1000")?;
        life.said(&["rm", "-f", "box"])?;
        let entries = fs::read_dir(&events).context("list")?.flatten();
        let sizes: BTreeMap<_, _> = entries
            .map(|entry| {
                (
                    entry.file_name(),
                    entry.metadata().map_or(0, |stat| stat.len()),
                )
            })
            .collect();
        let total: u64 = sizes.values().sum();
        expect(
            total < 3 << 20,
            "at most two files of a mebibyte",
            format!("{sizes:?}"),
        )?;
        let found = life.said(&[
            "events",
            "--since",
            "1",
            "--until",
            "0s",
            "--filter",
            "container=box",
            "--format",
            "{{.Action}}",
        ])?;
        let last: Vec<&str> = found.lines().rev().take(3).collect();
        expect_eq("the last events", last, vec!["destroy", "die", "kill"])
    });
}

#[test]
fn what_happens_to_networks_and_volumes_is_told() {
    check(|c| {
        let life = Life::new(c)?;
        let net = life.said(&["network", "create", "net"])?;
        life.said(&["volume", "create", "vol"])?;
        let run = [
            "run",
            "-d",
            "--network",
            "net",
            "--name",
            "box",
            "-v",
            "vol:/data:ro",
        ];
        let id = life.said(&[&run[..], &[&life.image, "sleep", "1000"]].concat())?;
        life.said(&["network", "create", "other"])?;
        life.said(&["network", "connect", "other", "box"])?;
        life.said(&["network", "disconnect", "other", "box"])?;
        life.said(&["stop", "-t", "0", "box"])?;
        life.said(&["rm", "box"])?;
        life.said(&["network", "rm", "net", "other"])?;
        life.said(&["volume", "rm", "vol"])?;
        let told = |filters: &[&str], format: &str| -> Result<Vec<String>> {
            let mut words = vec![
                "events", "--since", "1", "--until", "0s", "--format", format,
            ];
            words.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
            let text = life.said(&words)?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let all = told(&[], "{{.Type}} {{.Action}}")?.join(", ");
        let expected = "network create, volume create, container create, network connect, volume \
                        mount, container start, network create, network connect, network \
                        disconnect, container kill, container kill, container die, network \
                        disconnect, volume unmount, container stop, container destroy, network destroy, network \
                        destroy, volume destroy";
        expect_eq("what happened, in order", &*all, expected)?;
        let format = "{{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}";
        let of_net = told(&["type=network", "network=net", "event=connect"], format)?;
        let expected = format!(
            "connect {net} {{\"container\":\"{id}\",\"name\":\"net\",\"type\":\"bridge\"}}"
        );
        expect_eq("the events of the network", of_net, vec![expected])?;
        let of_vol = told(&["volume=vol", "event=mount"], format)?;
        let expected = format!(
            "mount vol {{\"container\":\"{id}\",\"destination\":\"/data\",\"driver\":\"local\",\
             \"propagation\":\"\",\"read/write\":\"false\"}}"
        );
        expect_eq("the events of the volume", of_vol, vec![expected])?;
        let kinds = told(&["type=volume"], "{{.Type}}")?;
        expect(
            kinds.len() == 4 && kinds.iter().all(|kind| kind == "volume"),
            "four events of type=volume",
            format!("{kinds:?}"),
        )?;
        // A killed monitor: whoever finds it tells all of its end, once.
        let run = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            "two",
            "-v",
            "v2:/data",
        ];
        life.said(&[&run[..], &[&life.image, "sleep", "1000"]].concat())?;
        let (_, monitor) = life.pids("two")?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL).context("kill the monitor")?;
        life.expect_status("two", "Exited")?;
        life.said(&["ps", "-a"])?;
        let end = told(&["volume=v2", "event=unmount"], "{{.Action}}")?;
        expect_eq("how often its volume is given back", end.len(), 1)?;
        // Its next launcher removes what is left of its groups.
        life.said(&["start", "two"])?;
        life.said(&["rm", "-f", "two"])?;
        life.said(&["volume", "rm", "v2"]).map(drop)
    });
}

#[test]
fn a_kill_for_want_of_memory_is_told_at_once() {
    check(|c| {
        let life = Life::new(c)?;
        // The first process goes on when a child of it was killed.
        let script = "test -e /once || { touch /once; tail /dev/zero; }; exec sleep 1000";
        let limits = ["-m", "16m", "--memory-swap", "16m"];
        life.detached("box", &limits, script)?;
        let oom = |told: Vec<String>| told.iter().any(|one| one == "oom").then_some(());
        let heard = wait_for(|| oom(told(&life, "box").ok()?));
        expect(
            heard.is_some(),
            "the event `oom` while the container runs",
            told(&life, "box")?.join(", "),
        )?;
        let state = |what: &str| {
            let format = format!("{{{{.State.{what}}}}}");
            life.said(&["inspect", "-f", &format, "box"])
        };
        expect_eq("State.Running", &*state("Running")?, "true")?;
        expect_eq("State.OOMKilled", &*state("OOMKilled")?, "true")?;
        life.said(&["kill", "box"])?;
        life.said(&["wait", "box"])?;
        expect_eq("State.OOMKilled at its end", &*state("OOMKilled")?, "true")?;
        // Once, and not once more at the end.
        let all = [
            "create",
            "start",
            "oom",
            "kill signal=9",
            "die exitCode=137",
        ];
        expect_told(&life, "box", &all)?;
        life.said(&["start", "box"])?;
        expect_eq(
            "State.OOMKilled after a start",
            &*state("OOMKilled")?,
            "false",
        )?;
        life.said(&["rm", "-f", "box"])?;

        // The first process itself: before it ends.
        let words = ["run", "-d", "--network", "none", "--name", "two"];
        let command = [&life.image, "tail", "/dev/zero"];
        life.said(&[&words[..], &limits, &command].concat())?;
        expect_eq("its exit status", &*life.said(&["wait", "two"])?, "137")?;
        let found = life.said(&["inspect", "-f", "{{.State.OOMKilled}}", "two"])?;
        expect_eq("State.OOMKilled of the first process", &*found, "true")?;
        let all = ["create", "start", "oom", "die exitCode=137"];
        expect_told(&life, "two", &all)?;
        life.said(&["rm", "two"]).map(drop)
    });
}

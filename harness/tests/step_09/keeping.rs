//! What outlives a container: volumes, records, layers.

use std::collections::BTreeSet;
use std::fs;

use check::prelude::*;
use nix::sys::signal::Signal;

use crate::engine::Engine;

/// The entries of the state directory's parts that hold containers.
fn left(engine: &Engine<'_>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for part in [
        "overlay2",
        "containers",
        "containers/names",
        "volumes",
        "run/overlay2",
    ] {
        let Ok(entries) = fs::read_dir(engine.root.join(part)) else {
            continue;
        };
        for entry in entries {
            let name = entry.context("read a directory")?.file_name();
            let name = format!("{part}/{}", name.to_string_lossy());
            // What is locked while something is made there stays, and is empty.
            if !["overlay2/l", "containers/names"].contains(&&*name) && !name.ends_with("/.lock") {
                left.push(name);
            }
        }
    }
    left.sort();
    Ok(left)
}

#[test]
fn a_volume_is_filled_once_and_shared() {
    check(|c| {
        let engine = Engine::new(c)?;
        let data = engine.image.join("data/sub");
        fs::create_dir_all(&data).context("mkdir")?;
        fs::write(data.join("seed"), "of the image").context("write")?;
        let name = c.word("vol");
        let volume = format!("{name}:/data");
        let mut one = engine.run(&["-v", &volume]).args([engine.image()]).hold()?;
        let mut two = engine
            .run(&["--mount", &format!("src={name},dst=/other,readonly")])
            .args([engine.image()])
            .hold()?;
        let seed: Attempt = two.ask(&["read", "/other/sub/seed"])?;
        expect(
            seed.text == "of the image",
            "the image's files in the volume, at its first use",
            format!("{seed:?}"),
        )?;
        let word = c.word("shared");
        let written: Attempt = one.ask(&["write", "/data/new", &word])?;
        expect(
            written.allowed,
            "the volume to be written to",
            &written.errno,
        )?;
        let read: Attempt = two.ask(&["read", "/other/new"])?;
        expect_eq("what the other container reads", read.text, word)?;
        let refused: Attempt = two.ask(&["write", "/other/x", "y"])?;
        expect_eq(
            "writing to a read-only one",
            refused.errno.as_str(),
            "EROFS",
        )?;
        engine
            .tool(["volume", "rm", &name])
            .run()?
            .expect_error(125, &[&name, "used"])?;
        one.end()?.success()?;
        two.end()?.success()?;
        // Not filled again: what was removed stays away.
        engine
            .run(&["-v", &volume])
            .args([engine.image(), "rm", "-r", "/data/sub"])
            .run()?
            .success()?;
        let ran = engine
            .run(&["-v", &volume])
            .args([engine.image(), "ls", "/data"])
            .run()?
            .success()?;
        expect_eq("what is in the volume", ran.stdout.trim(), "new")?;
        engine.tool(["volume", "rm", &name]).run()?.success()?;
        let listed = engine.tool(["volume", "ls", "-q"]).run()?.success()?;
        expect_eq("the volumes", listed.stdout.as_str(), "")
    });
}

#[test]
fn an_anonymous_volume_goes_with_its_container() {
    check(|c| {
        let engine = Engine::new(c)?;
        let list =
            || Ok::<_, anyhow::Error>(engine.tool(["volume", "ls", "-q"]).run()?.success()?.stdout);
        let run = engine
            .run(&["-v", "/data"])
            .args([engine.image(), "touch", "/data/x"]);
        run.run()?.success()?;
        expect_eq("the volumes after --rm", list()?.as_str(), "")?;
        let name = c.word("kept");
        engine
            .tool(["run", "--network", "none", "--name", &name, "-v", "/data"])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        expect_eq("the volumes while it is kept", list()?.lines().count(), 1)?;
        engine.tool(["rm", &name]).run()?.success()?;
        expect_eq("the volumes after rm", list()?.as_str(), "")
    });
}

#[test]
fn a_directory_of_the_host_is_shown() {
    check(|c| {
        let engine = Engine::new(c)?;
        let made = c.dir().join("made/here");
        let bind = format!("{}:/in", made.display());
        let run = engine.run(&["-v", &bind]);
        run.args([engine.image(), "sh", "-c", "echo from inside > /in/file"])
            .run()?
            .success()?;
        let text = fs::read_to_string(made.join("file")).unwrap_or_default();
        expect_eq("what is on the host", text.as_str(), "from inside\n")?;
        let missing = c.dir().join("missing");
        let mount = format!("type=bind,src={},dst=/in", missing.display());
        engine
            .run(&["--mount", &mount])
            .args([engine.image(), "true"])
            .run()?
            .expect_error(125, &["missing"])?;
        let ran = engine
            .run(&["--read-only", "--tmpfs", "/tmp:size=1m"])
            .args([
                engine.image(),
                "sh",
                "-c",
                "touch /tmp/x && ! touch /x 2>&-",
            ])
            .run()?;
        ran.success()?;
        let ran = engine
            .run(&["--read-only", "-w", "/made/for/it"])
            .args([engine.image(), "pwd"])
            .run()?
            .success()?;
        expect_eq("the directory", ran.stdout.trim(), "/made/for/it")?;
        // What means nothing here is taken, and the mounts below can be omitted.
        let host = c.dir().display().to_string();
        let volume = format!("{host}:/in:z,cached");
        let mount = format!(r#"Type=bind,"src={host}",dst=/two,bind-recursive=disabled"#);
        engine
            .run(&["-v", &volume, "-v", &volume, "--mount", &mount])
            .args([
                engine.image(),
                "test",
                "-d",
                "/in/made",
                "-a",
                "-d",
                "/two/made",
            ])
            .run()?
            .success()?;
        Ok(())
    });
}

#[test]
fn a_container_has_a_record() {
    check(|c| {
        let engine = Engine::new(c)?;
        let name = c.word("box");
        let held = engine
            .run(&["--name", &name, "-l", "color=blue"])
            .args([engine.image()])
            .hold()?;
        let listed = engine.tool(["ps"]).run()?.success()?.stdout;
        expect(
            listed.contains(&name) && listed.contains("up "),
            "the container in the list",
            format!("{listed:?}"),
        )?;
        let record: serde_json::Value = engine.tool(["inspect", &name]).run()?.success()?.json()?;
        let record = &record[0];
        expect_eq("its PID", record["pid"].as_i64(), Some(held.pid()?.into()))?;
        expect_eq("its status", record["status"].as_str(), Some("running"))?;
        expect_eq(
            "its label",
            record["labels"]["color"].as_str(),
            Some("blue"),
        )?;
        engine
            .run(&["--name", &name])
            .args([engine.image(), "true"])
            .run()?
            .expect_error(125, &[&name])?;
        engine
            .tool(["rm", &name])
            .run()?
            .expect_error(125, &[&name, "running"])?;
        held.end()?.success()?;
        let listed = engine.tool(["ps", "-aq"]).run()?.success()?.stdout;
        expect_eq("the containers after --rm", listed.as_str(), "")
    });
}

#[test]
fn what_is_kept_is_kept_until_it_is_removed() {
    check(|c| {
        let engine = Engine::new(c)?;
        engine
            .run(&[])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        let before = left(&engine)?;
        let name = c.word("kept");
        engine
            .tool(["run", "--network", "none", "--name", &name])
            .args([engine.image(), "probe", "exit", "3"])
            .run()?
            .expect_status(3)?;
        let listed = engine.tool(["ps", "-a"]).run()?.success()?.stdout;
        let row = listed.lines().find(|line| line.contains(&name));
        let status = row.and_then(|row| row.split_once("exited ("));
        let status = status.and_then(|(_, rest)| rest.split(')').next());
        expect(
            status == Some("3"),
            "ps -a to list the container as exited (3)",
            match (row, status) {
                (None, _) => "it is not listed".to_owned(),
                (_, Some(status)) => format!("exited ({status})"),
                (Some(row), None) => row.to_owned(),
            },
        )?;
        expect(left(&engine)? != before, "its layers to be kept", "none")?;
        engine.tool(["rm", &name]).run()?.success()?;
        expect_eq("what is left after rm", left(&engine)?, before)
    });
}

#[test]
fn a_dead_launcher_is_noticed() {
    check(|c| {
        let engine = Engine::new(c)?;
        engine
            .run(&[])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        let before = left(&engine)?;
        let name = c.word("box");
        let kill = |held: Held| -> Result<()> {
            let pid = held.pid()?;
            held.signal(Signal::SIGKILL)?;
            held.wait()?;
            let gone = wait_for(|| {
                host::process(pid)
                    .is_none_or(|p| p.state == 'Z')
                    .then_some(())
            });
            expect(
                gone.is_some(),
                "the container to end with its launcher",
                "it alive",
            )
        };
        let removed = || engine.run(&["-v", "/data"]).args([engine.image()]).hold();
        kill(removed()?)?;
        let kept = engine
            .tool(["run", "-i", "--network", "none", "--name", &name])
            .args([engine.image()])
            .hold()?;
        kill(kept)?;
        let listed = engine.tool(["ps", "-a"]).run()?.success()?.stdout;
        let lines: Vec<&str> = listed.lines().skip(1).collect();
        expect(
            lines.len() == 1 && lines[0].contains(&name) && !lines[0].contains("up "),
            "one container in the list, that without --rm, and that it does not run",
            match lines.iter().filter(|line| line.contains("up ")).count() {
                0 => format!("{} in the list", lines.len()),
                up => format!(
                    "{} in the list, {up} of them up: their launchers are dead",
                    lines.len()
                ),
            },
        )?;
        engine.tool(["rm", &name]).run()?.success()?;
        // The next container takes away what nobody has looked for, and what
        // the network and the groups hold.
        kill(removed()?)?;
        engine
            .run(&[])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        let after = left(&engine)?;
        let more = after.iter().filter(|one| !before.contains(one));
        let places: BTreeSet<String> = more
            .filter_map(|one| Some(one.rsplit_once('/')?.0.to_owned()))
            .collect();
        expect(
            places.is_empty(),
            "the next run to remove everything that a killed launcher has left",
            format!("something of it in {places:?}"),
        )?;
        expect_eq("what is left", after, before)
    });
}

#[test]
fn stop_asks_and_then_kills() {
    check(|c| {
        let engine = Engine::new(c)?;
        let script = |signal: &str, then: &str| {
            format!("trap '{then}' {signal}; echo '\"ready\"'; while :; do sleep 0.1; done")
        };
        for (options, script, status) in [
            (
                &["--stop-signal", "USR1"][..],
                script("USR1", "exit 21"),
                21,
            ),
            (&["--stop-timeout", "1"], script("TERM", ":"), 137),
        ] {
            let name = c.word("box");
            let mut held = engine
                .run(options)
                .args(["--name", &name, engine.image(), "sh", "-c", &script])
                .start()?;
            let ready: String = held.read()?;
            expect_eq("the word of a script with its trap set", &*ready, "ready")?;
            engine.tool(["stop", &name]).run()?.success()?;
            held.wait()?.expect_status(status)?;
        }
        Ok(())
    });
}

#[test]
fn an_environment_file_is_read_as_docker_does() {
    check(|c| {
        let engine = Engine::new(c)?;
        let file = c.dir().join("env");
        let name = file.to_string_lossy().into_owned();
        let run = |file: &str, content: Option<&[u8]>| {
            if let Some(content) = content {
                std::fs::write(file, content).context("write a file")?;
            }
            let script = "echo \"[$FOO][$BAR][$QUX]\"";
            let run = engine.run(&["--env-file", file]);
            run.args([engine.image(), "sh", "-c", script]).run()
        };
        let content = "\u{feff}FOO=one\n # BAR=no\n\n  BAR='two' \r\nQUX=a=b # c";
        let ran = run(&name, Some(content.as_bytes()))?.success()?;
        expect_eq(
            "the variables",
            ran.stdout.trim_end(),
            "[one]['two' ][a=b # c]",
        )?;
        for (content, word) in [
            (&b"export FOO=bar\n"[..], "blank"),
            (b"FOO =bar\n", "blank"),
            (b"=bar\n", "name"),
            (b"FOO=\xff\n", "UTF-8"),
        ] {
            run(&name, Some(content))?.expect_error(125, &["--env-file", word])?;
        }
        run("/dev/zero", None)?.expect_error(125, &["--env-file", "/dev/zero", "longer than"])?;
        Ok(())
    });
}

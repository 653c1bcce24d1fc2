//! What users, and their scripts, read: `ps`, `inspect` and templates.

use check::prelude::*;

use crate::Life;

#[test]
fn listings_are_filtered_and_formatted() {
    check(|c| {
        let life = Life::new(c)?;
        let label = c.word("label");
        let one = format!("colour={label}");
        life.detached("one", &["-l", &one, "-l", "both"], "exec sleep 1000")?;
        life.detached("two", &["-l", "both"], "exit 3")?;
        life.said(&["create", "--name", "three", &life.image, "true"])?;
        life.expect_status("two", "Exited (3)")?;
        let ps = |words: &[&str]| -> Result<Vec<String>> {
            let all = [&["ps", "--format", "{{.Names}}"], words].concat();
            Ok(life.said(&all)?.lines().map(str::to_owned).collect())
        };
        for (words, names) in [
            (&[][..], &["one"][..]),
            (&["-a"], &["three", "two", "one"]),
            (&["-n", "2"], &["three", "two"]),
            (&["-l"], &["three"]),
            (&["-f", "status=exited"], &["two"]),
            (
                &["-f", "status=created", "-f", "status=running"],
                &["three", "one"],
            ),
            (&["-f", "exited=3"], &["two"]),
            (&["-f", "exited=0"], &[]),
            (&["-a", "-f", "label=both"], &["two", "one"]),
            (
                &["-a", "-f", "label=both", "-f", &format!("label={one}")],
                &["one"],
            ),
            (&["-a", "-f", "label=colour=none"], &[]),
            (&["-a", "-f", "name=t"], &["three", "two"]),
            (&["-a", "-f", "name=^/?two$"], &["two"]),
            (&["-a", "-f", "name=o", "-f", "label=colour"], &["one"]),
            (&["-a", "-f", "before=two"], &["one"]),
            (&["-a", "-f", "since=two"], &["three"]),
            (&["-a", "-f", "network=bridge"], &["three"]),
            (&["-a", "-f", "health=healthy"], &[]),
        ] {
            expect_eq(
                &format!("ps {words:?}"),
                ps(words)?,
                names.iter().map(ToString::to_string).collect(),
            )?;
        }
        for (filter, word) in [
            ("status=odd", "status=odd"),
            ("colour=red", "colour"),
            ("name", "name=value"),
            ("before=nobody", "nobody"),
        ] {
            life.call(&["ps", "-f", filter])
                .run()?
                .expect_error(1, &[word])?;
        }

        let labelled = life.said(&["ps", "--format", "{{.Label \"colour\"}} {{upper .State}}"])?;
        expect_eq("a template", labelled, format!("{label} RUNNING"))?;
        let table = life.said(&["ps", "--format", "table {{.Names}}\\t{{.Image}}"])?;
        let head = table.lines().next().unwrap_or("");
        expect(
            head.split_whitespace().eq(["NAMES", "IMAGE"]),
            "a head",
            head,
        )?;
        let json = life.call(&["ps", "--format", "json"]).run()?.success()?;
        expect_eq(
            "a line of JSON",
            json.json::<serde_json::Value>()?["Names"].as_str(),
            Some("one"),
        )?;
        life.call(&["ps", "--format", "{{.Nothing}}"])
            .run()?
            .expect_error(1, &["Nothing"])?;
        life.call(&["ps", "--format", "{{"])
            .run()?
            .expect_error(1, &["template"])?;
        Ok(())
    });
}

#[test]
fn inspect_speaks_dockers_language() {
    check(|c| {
        let life = Life::new(c)?;
        let word = c.word("word");
        let variable = format!("WORD={word}");
        let options = [
            "-e",
            &variable,
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--restart",
            "on-failure:3",
            "-v",
            "/data",
            "--stop-timeout",
            "3",
        ];
        life.detached("box", &options, "echo x > /new; exec sleep 1000")?;
        life.said(&["exec", "box", "cat", "/new"])?;
        let show = |template: &str| life.said(&["inspect", "-f", template, "box"]);
        for (template, text) in [
            (
                "{{.Name}} {{.State.Status}} {{.State.Running}}",
                "/box running true",
            ),
            (
                "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}",
                "67108864 134217728 500000000",
            ),
            (
                "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
                "on-failure 3",
            ),
            (
                "{{.HostConfig.NetworkMode}} {{json .Config.Entrypoint}} {{index .Config.Cmd 0}}",
                "none null sh",
            ),
            (
                "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}",
                "volume /data true",
            ),
            (
                "{{.State.FinishedAt}} {{.Config.StopTimeout}}",
                "0001-01-01T00:00:00Z 3",
            ),
        ] {
            expect_eq(template, &*show(template)?, text)?;
        }
        let env = show("{{range .Config.Env}}{{println .}}{{end}}")?;
        expect(
            env.lines().any(|line| line == variable),
            "the environment",
            &env,
        )?;
        // It is where the text says: its layer, and its process.
        if show("{{.GraphDriver.Name}}")? == "overlay2" {
            let upper = show("{{.GraphDriver.Data.UpperDir}}")?;
            let new = std::fs::read_to_string(format!("{upper}/new"));
            expect_eq("a file in the layer", new.ok().as_deref(), Some("x\n"))?;
        }
        let pid = show("{{.State.Pid}}")?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        expect_eq("the process of State.Pid", &*line, "sleep\x001000\0")?;

        life.call(&["inspect", "-f", "{{", "box"])
            .run()?
            .expect_error(64, &["template"])?;
        life.call(&["inspect", "-f", "{{.Nothing}}", "box"])
            .run()?
            .expect_error(1, &["Nothing"])?;
        // Those that there are, and the status of what is missing.
        let both = life
            .call(&["inspect", "-f", "{{.Name}}", "box", "nobody"])
            .run()?;
        expect_eq("what is there", both.stdout.trim(), "/box")?;
        both.expect_status(1)?;
        life.said(&["stop", "-t", "0", "box"])?;
        expect_eq(
            "after its end",
            &*show("{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}")?,
            "exited 137 0",
        )
    });
}

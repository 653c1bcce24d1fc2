//! Defaults from a file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use check::prelude::*;

use crate::{Life, Ordinary, wait_for_monitors};

#[test]
fn a_file_has_the_defaults() {
    check(|c| {
        let life = Life::new(c)?;
        let path = c.dir().join("drydock.toml");
        let file = path.display().to_string();
        let write = |text: &str| fs::write(&path, text).context("write");
        let call = |words: &[&str]| life.call(&[&["--config-file", &file], words].concat());
        write(
            "no-new-privileges = true\nlog-opts = { max-size = \"2k\" }\n\
             [limits]\nmemory = \"64m\"\npids-limit = 33\n\
             [default-ulimits.nofile]\nSoft = 100\nHard = 200\n",
        )?;
        let show = "ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status; exec sleep 1000";
        let run = ["run", "-d", "--network", "none", "--name", "box"];
        let command = [&life.image, "sh", "-c", show];
        call(&[&run[..], &["--pids-limit", "44"], &command].concat())
            .run()?
            .success()?;
        let shown = wait_for(|| {
            let text = life.said(&["logs", "box"]).ok()?;
            (text.lines().count() == 3).then_some(text)
        });
        expect_eq(
            "what the command has",
            shown.as_deref(),
            Some("100\n200\nNoNewPrivs:\t1"),
        )?;
        let of = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{json .HostConfig.LogConfig.Config}}";
        expect_eq(
            "what the file says, unless an option does",
            &*life.said(&["inspect", "-f", of, "box"])?,
            "67108864 44 {\"max-file\":\"1\",\"max-size\":\"2k\"}",
        )?;
        // It is started again with what it was made with.
        write("[limits]\nmemory = \"32m\"\n")?;
        life.said(&["stop", "-t", "0", "box"])?;
        call(&["start", "box"]).run()?.success()?;
        let memory = life.said(&["inspect", "-f", "{{.HostConfig.Memory}}", "box"])?;
        expect_eq("its limit", &*memory, "67108864")?;

        // What is wrong is refused, by line, before anything is made.
        for (text, words) in [
            ("init = true\ncolour = \"red\"\n", &["line 2", "colour"][..]),
            ("[limits]\nmemory = \"much\"\n", &["line 2", "much"]),
            ("storage-driver = \"floppy\"\n", &["line 1", "floppy"]),
            ("init = \n", &["line 1"]),
        ] {
            write(text)?;
            let words = [&[file.as_str()][..], words].concat();
            call(&["create", &life.image, "true"])
                .run()?
                .expect_error(125, &words)?;
        }
        write("init = true\n")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666)).context("chmod")?;
        call(&["ps"])
            .run()?
            .expect_error(125, &["others may write"])?;
        fs::remove_file(&path).context("unlink")?;
        call(&["ps"]).run()?.expect_error(125, &["no such file"])?;
        life.said(&["rm", "-f", "box"])?;
        life.expect_nothing_left()
    });
}

#[test]
fn what_runs_reads_no_file_of_defaults() {
    check(|c| {
        let life = Life::new(c)?;
        // An ordinary user's file is below the home directory.
        let user = Ordinary::new(&life)?;
        let run = ["run", "-d", "--network", "none", "--name", "box"];
        let probed = ["--health-cmd", "test -e /ok", "--health-interval", "100ms"];
        let command = [&user.image, "sleep", "1000"];
        user.said(&[&run[..], &probed, &command].concat())?;
        let directory = c.dir().join("rootless/.config/drydock");
        fs::create_dir_all(&directory).context("mkdir")?;
        let path = directory.join("drydock.toml");
        fs::write(&path, "colour = \"red\"\n").context("write")?;
        chown(&path, Some(1000), Some(1000)).context("chown")?;
        let good = c.dir().join("good.toml");
        fs::write(&good, "").context("write")?;
        chown(&good, Some(1000), Some(1000)).context("chown")?;
        let good = good.display().to_string();
        let call = |words: &[&str]| user.call(&[&["--config-file", &good], words].concat());
        let ran = user.call(&["ps"]).run()?;
        ran.expect_error(125, &["line 1", "colour"])?;

        // The commands that it executes itself: a probe, a further process in the
        // background, the monitor of another container.
        call(&["exec", "box", "touch", "/ok"]).run()?.success()?;
        let status = || -> Result<String> {
            let ran = call(&["ps", "--format", "{{.Status}}"]).run()?.success()?;
            Ok(ran.stdout.trim_end().to_owned())
        };
        let well = wait_for(|| status().ok()?.ends_with("(healthy)").then_some(()));
        expect(
            well.is_some(),
            "(healthy) in ps, though the file of defaults is broken",
            match status()?.contains("unhealthy") {
                true => "(unhealthy)",
                false => "neither",
            },
        )?;
        call(&["exec", "-d", "box", "touch", "/further"])
            .run()?
            .success()?;
        let further = wait_for(|| {
            let ran = call(&["exec", "box", "test", "-e", "/further"])
                .run()
                .ok()?;
            (ran.status == 0).then_some(())
        });
        expect(further.is_some(), "a further process to run", "it does not")?;
        let run = ["run", "-d", "--network", "none", "--name", "two"];
        call(&[&run[..], &command].concat()).run()?.success()?;
        call(&["rm", "-f", "box", "two"]).run()?.success()?;
        wait_for_monitors();
        Ok(())
    });
}

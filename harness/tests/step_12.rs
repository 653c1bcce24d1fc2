//! Checks of step 12: containers that stay.

#[path = "step_12/bounds.rs"]
mod bounds;
#[path = "step_12/config.rs"]
mod config;
#[path = "step_12/copy.rs"]
mod copy;
#[path = "step_12/engines.rs"]
mod engines;
#[path = "step_12/events.rs"]
mod events;
#[path = "step_12/health.rs"]
mod health;
#[path = "step_12/limits.rs"]
mod limits;
#[path = "step_12/listing.rs"]
mod listing;
#[path = "step_12/network.rs"]
mod network;
#[path = "step_12/sizes.rs"]
mod sizes;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use check::check::wait_or_kill;
use check::prelude::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

/// An engine with a state directory and an image of its own. Whatever is left of
/// its containers is removed at the end.
struct Life<'a> {
    c: &'a Check,
    root: PathBuf,
    image: String,
}

impl<'a> Life<'a> {
    fn new(c: &'a Check) -> Result<Self> {
        let root = c.dir().join("root");
        fs::create_dir(&root).context("mkdir")?;
        let image = c.rootfs()?.to_string_lossy().into_owned();
        Ok(Life { c, root, image })
    }

    /// A command of the engine.
    fn call(&self, words: &[&str]) -> Step {
        self.c
            .step()
            .env("DRYDOCK_STATE", self.c.dir().join("net"))
            .args(["--root".as_ref(), self.root.as_os_str()])
            .args(words)
    }

    /// A command that succeeds, and what it prints.
    fn said(&self, words: &[&str]) -> Result<String> {
        let ran = self.call(words).run()?.success()?;
        Ok(ran.stdout.trim_end().to_owned())
    }

    /// `run -d` of a script, without a network.
    fn detached(&self, name: &str, options: &[&str], script: &str) -> Result<String> {
        let base = ["run", "-d", "--network", "none", "--name", name];
        let words = [&base[..], options, &[&self.image, "sh", "-c", script]].concat();
        self.said(&words)
    }

    /// What `inspect` says of a container.
    fn record(&self, name: &str) -> Result<Value> {
        let all: Value = self.call(&["inspect", name]).run()?.success()?.json()?;
        Ok(all[0].clone())
    }

    /// The PIDs of a running container's first process and of its monitor.
    fn pids(&self, name: &str) -> Result<(i32, i32)> {
        let pid = self.record(name)?["State"]["Pid"].as_i64().unwrap_or(0) as i32;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let parent = parent.and_then(|parent| parent.trim().parse().ok());
        Ok((pid, parent.unwrap_or(0)))
    }

    /// What `ps -a` says of a container's status.
    fn status(&self, name: &str) -> Result<String> {
        let text = self.said(&["ps", "-a"])?;
        let line = text
            .lines()
            .find(|line| line.ends_with(&format!(" {name}")));
        let line = line.ok_or_else(|| failed(format!("{name} in ps -a"), &text))?;
        let words = ["Up", "Exited", "Created", "Restarting"];
        let at = words.iter().filter_map(|word| line.find(word)).min();
        Ok(at.map_or("", |at| &line[at..]).to_owned())
    }

    fn expect_status(&self, name: &str, begins: &str) -> Result<()> {
        let reached = wait_for(|| {
            let status = self.status(name).ok()?;
            status.starts_with(begins).then_some(())
        });
        match reached {
            Some(()) => Ok(()),
            None => Err(failed(
                format!("{name} to be {begins:?} in ps -a"),
                self.status(name)?,
            )),
        }
    }

    /// The names of what is left in a directory of the state.
    fn left_in(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory));
        let names = entries.into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.') && name != "names" && name != "events")
            .collect()
    }

    fn expect_nothing_left(&self) -> Result<()> {
        for directory in ["containers", "containers/names", "run/overlay2"] {
            expect_eq(
                &format!("what is left in {directory}"),
                self.left_in(directory),
                Vec::<String>::new(),
            )?;
        }
        Ok(())
    }
}

/// An ordinary user with a directory, and an image in it.
struct Ordinary<'a> {
    c: &'a Check,
    root: String,
    image: String,
}

impl<'a> Ordinary<'a> {
    fn new(life: &Life<'a>) -> Result<Self> {
        let root = life.c.dir().join("rootless");
        fs::create_dir(&root).context("mkdir")?;
        let image = root.join("image").display().to_string();
        for words in [
            &["cp", "-a", &life.image, &image][..],
            &["chown", "-R", "1000:1000", &root.display().to_string()],
        ] {
            let status = std::process::Command::new(words[0])
                .args(&words[1..])
                .status()
                .context(words[0].to_owned())?;
            expect(status.success(), "a copy of the image", status)?;
        }
        Ok(Ordinary {
            c: life.c,
            root: root.display().to_string(),
            image,
        })
    }

    fn call(&self, words: &[&str]) -> Step {
        let root = format!("{}/state", self.root);
        let step = self.c.step().user(1000).env("HOME", &self.root);
        step.args(["--root", &root]).args(words)
    }

    fn said(&self, words: &[&str]) -> Result<String> {
        let ran = self.call(words).run()?.success()?;
        Ok(ran.stdout.trim_end().to_owned())
    }
}

/// Waits for the processes that stay with containers. `rm -f` returns when
/// everything is cleaned up, and they end right after. A check adopts all of its
/// orphans.
fn wait_for_monitors() {
    let own = std::process::id() as i32;
    let alone = wait_for(|| {
        let mut children = host::children(own).ok()?.into_iter();
        let any = children.any(|child| child.comm == "drydock" && child.state != 'Z');
        (!any).then_some(())
    });
    if alone.is_none() {
        eprintln!("a monitor is left");
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let names = self.left_in("containers/names");
        let words: Vec<&str> = ["rm", "-f"]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .collect();
        if !names.is_empty()
            && let Err(error) = self.call(&words).run()
        {
            eprintln!("{error:#}");
        }
        wait_for_monitors();
    }
}

fn is_gone(pid: i32) -> bool {
    host::process(pid).is_none_or(|process| process.state == 'Z')
}

#[test]
fn a_detached_container_has_left_its_caller() {
    check(|c| {
        let life = Life::new(c)?;
        let secret = c.word("secret");
        let variable = format!("SECRET={secret}");
        let base = ["run", "-d", "--network", "none", "--name", "box"];
        let rest = ["-e", &variable, "-e", "OTHER", &life.image, "sleep", "1000"];
        let output = c.dir().join("output");
        let file = File::create(&output).context("create")?;
        let status = life
            .call(&[&base[..], &rest].concat())
            .env("OTHER", &secret)
            .command()
            .stdout(file.try_clone().context("dup")?)
            .stderr(file)
            .status()
            .context("run -d")?;
        let id = fs::read_to_string(&output).context("read the output")?;
        expect(status.success(), "run -d to succeed", &id)?;
        expect_eq("the length of the id", id.trim_end().len(), 64)?;
        let (first, monitor) = life.pids("box")?;
        let alive = host::process(first).is_some() && host::process(monitor).is_some();
        expect(alive, "the container to run on", "it has ended")?;
        for (who, pid) in [("the container", first), ("its monitor", monitor)] {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).context("list fd")?;
            let open = entries
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|link| link == output);
            expect(
                !open,
                "the caller's output to be the caller's alone: who reads it waits for its end",
                format!("{who} has kept it open"),
            )?;
        }
        let session = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read stat")?;
            let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
            let words: Vec<i64> = rest
                .split_whitespace()
                .skip(1)
                .filter_map(|word| word.parse().ok())
                .collect();
            // ppid, pgrp, session, tty_nr
            Ok::<_, anyhow::Error>((words[2], words[3]))
        };
        let (own, _) = session(std::process::id() as i32)?;
        let (its, terminal) = session(monitor)?;
        expect(
            its != own,
            "the monitor in a session of its own",
            "the caller's",
        )?;
        expect(
            its != i64::from(monitor),
            "a monitor that leads no session, so that it can get no terminal",
            "it leads one",
        )?;
        expect_eq("the terminal of the monitor", terminal, 0)?;
        let cwd = fs::read_link(format!("/proc/{monitor}/cwd")).context("read the cwd")?;
        expect_eq("the directory of the monitor", cwd, PathBuf::from("/"))?;
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{monitor}/{file}")).context("read")?;
            expect(
                !String::from_utf8_lossy(&text).contains(&secret),
                format!("no variable of the container in the monitor's {file}"),
                "-e SECRET=… for everybody to read, as long as the container lives",
            )?;
        }
        life.said(&["rm", "-f", "box"])?;
        expect(
            is_gone(first) && wait_for(|| is_gone(monitor).then_some(())).is_some(),
            "neither container nor monitor after rm -f",
            "one of them",
        )?;
        life.expect_nothing_left()
    });
}

#[test]
fn a_failed_start_is_the_callers_error() {
    check(|c| {
        let life = Life::new(c)?;
        let run = ["run", "-d", "--network", "none"];
        for (command, status) in [("/no/such", 127), ("/etc/passwd", 126)] {
            let words = [&run[..], &["--rm", &life.image, command]].concat();
            life.call(&words).run()?.expect_error(status, &[command])?;
        }
        life.expect_nothing_left()?;
        // Without --rm it stays, and says why.
        let words = [&run[..], &["--name", "bad", &life.image, "/no/such"]].concat();
        life.call(&words).run()?.expect_status(127)?;
        let why = life.record("bad")?["State"]["Error"].to_string();
        expect(why.contains("/no/such"), "the error in the record", why)?;
        life.said(&["rm", "bad"]).map(drop)
    });
}

#[test]
fn what_it_prints_is_in_the_log() {
    check(|c| {
        let life = Life::new(c)?;
        let word = c.word("line");
        let script = format!(
            "printf '{word} '; touch /half; until [ -e /go ]; do sleep 0.01; done; echo 1; \
             echo {word} 2 >&2; printf '{word} 3'; touch /printed; exec sleep 1000"
        );
        life.detached("box", &[], &script)?;
        // A line that comes in two pieces.
        let half = wait_for(|| life.said(&["exec", "box", "cat", "/half"]).ok());
        expect(half.is_some(), "half a line to be printed", "not yet")?;
        life.said(&["exec", "box", "touch", "/go"])?;
        let second = format!("{word} 2\n");
        let logs = wait_for(|| {
            let ran = life.call(&["logs", "box"]).run().ok()?;
            (ran.stdout.contains(" 1") && ran.stderr == second).then_some(ran)
        });
        let logs = match logs {
            Some(logs) => logs,
            None => life.call(&["logs", "box"]).run()?,
        };
        expect_eq("its output", logs.stdout, format!("{word} 1\n"))?;
        expect_eq("its errors, apart", logs.stderr, second)?;
        let printed = wait_for(|| life.said(&["exec", "box", "cat", "/printed"]).ok());
        expect(printed.is_some(), "the last line to be printed", "not yet")?;
        life.said(&["stop", "-t", "0", "box"])?;
        // What had no newline is in the log at the end.
        let all = life.call(&["logs", "box"]).run()?.success()?;
        expect_eq(
            "the whole output",
            all.stdout,
            format!("{word} 1\n{word} 3"),
        )?;
        let tail = life.call(&["logs", "-n", "1", "box"]).run()?.success()?;
        expect_eq(
            "its last line",
            tail.stdout + &tail.stderr,
            format!("{word} 3"),
        )?;
        let ran = life.call(&["logs", "--details", "-n", "1", "box"]).run()?;
        expect_eq("it with details", ran.stdout, format!(" {word} 3"))?;
        let stamped = life.said(&["logs", "-t", "-n", "1", "box"])?;
        let at = stamped.split(' ').next().unwrap_or_default().to_owned();
        expect(
            at.len() > 20 && at.ends_with('Z') && at.contains('T'),
            "a time before the line",
            &stamped,
        )?;
        expect_eq(
            "lines since then",
            life.said(&["logs", "--since", &at, "box"])?,
            format!("{word} 3"),
        )?;
        let file = life.root.join("containers");
        let id = life.record("box")?["Id"].as_str().unwrap_or("").to_owned();
        let text = fs::read_to_string(file.join(id).join("json.log")).context("read the log")?;
        let first: Value =
            serde_json::from_str(text.lines().next().unwrap_or("")).context("a line of JSON")?;
        expect_eq("log", first["log"].as_str(), Some(&*format!("{word} 1\n")))?;
        expect_eq("stream", first["stream"].as_str(), Some("stdout"))?;
        Ok(())
    });
}

#[test]
fn a_log_that_is_followed_ends_with_the_container() {
    check(|c| {
        let life = Life::new(c)?;
        let script = "read -r go; for i in 1 2 3 4 5 6 7 8 9; do echo $i; done; read -r end";
        let base = ["run", "-d", "-i", "--network", "none", "--name", "box"];
        life.said(&[&base[..], &[&life.image, "sh", "-c", script]].concat())?;
        let output = c.dir().join("followed");
        let follower = life
            .call(&["logs", "-f", "box"])
            .command()
            .stdout(File::create(&output).context("create")?)
            .spawn()
            .context("run logs -f")?;
        let mut attached = life
            .call(&["attach", "box"])
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("run attach")?;
        let mut input = attached.stdin.take().context("no input")?;
        input.write_all(b"go\n").context("write")?;
        let nine = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let read = || fs::read_to_string(&output).unwrap_or_default();
        let came = wait_for(|| (read() == nine).then_some(()));
        expect(
            came.is_some(),
            "the lines as they come",
            format!("{:?}", read()),
        )?;
        input.write_all(b"end\n").context("write")?;
        let mut follower = follower;
        let ended = wait_or_kill(&mut follower)?;
        expect_eq("the end of logs -f", ended, Some(0))?;
        expect_eq("the end of attach", wait_or_kill(&mut attached)?, Some(0))?;
        expect_eq("every line, once", read(), nine.to_owned())
    });
}

#[test]
fn a_log_does_not_grow_for_ever() {
    check(|c| {
        let life = Life::new(c)?;
        let options = ["--log-opt", "max-size=2k", "--log-opt", "max-file=3"];
        let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done";
        let id = life.detached("box", &options, script)?;
        expect_eq("its exit status", life.said(&["wait", "box"])?, "0".into())?;
        let directory = life.root.join("containers").join(&id);
        let mut sizes = Vec::new();
        for name in ["json.log", "json.log.1", "json.log.2", "json.log.3"] {
            sizes.push(
                fs::metadata(directory.join(name))
                    .map(|stat| stat.len())
                    .ok(),
            );
        }
        let small = |size: &Option<u64>| size.is_some_and(|size| size < 2500);
        expect(
            sizes[..3].iter().all(small) && sizes[3].is_none(),
            "three files of 2 KiB each",
            format!("{sizes:?}"),
        )?;
        let text = life.said(&["logs", "box"])?;
        expect_eq("the last line", text.lines().last(), Some("line 199"))?;
        let numbers: Vec<u32> = text
            .lines()
            .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
            .collect();
        expect(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "the lines of all files, in their order",
            &text,
        )?;
        for (option, words) in [
            ("max-size=0", "at least 1"),
            ("max-file=2", "max-size"),
            ("colour=red", "unknown log opt"),
        ] {
            let words = (option, words);
            life.call(&["create", "--log-opt", words.0, &life.image, "true"])
                .run()?
                .expect_error(1, &[words.1])?;
        }
        Ok(())
    });
}

#[test]
fn a_further_process_is_in_the_same_container() {
    check(|c| {
        let life = Life::new(c)?;
        let options = [
            "-m",
            "64m",
            "--hostname",
            "inside",
            "-w",
            "/etc",
            "-e",
            "ONE=1",
        ];
        life.detached("box", &options, "exec sleep 1000")?;
        let (first, _) = life.pids("box")?;
        let exec = |options: &[&str], command: &[&str]| {
            life.call(&[&["exec"], options, &["box"], command].concat())
        };
        let seen = exec(&["-e", "TWO=2", "-i"], &[]).report::<&str>(&[])?;
        let its = host::namespaces(&first.to_string())?;
        for (kind, inode) in &its {
            let own = seen.namespaces.get(kind);
            expect_eq(&format!("the {kind} namespace"), own, Some(inode))?;
        }
        expect_eq("its host name", seen.hostname.as_str(), "inside")?;
        expect_eq("its directory", seen.cwd.as_str(), "/etc")?;
        let variable = |name: &str| seen.env.get(name).map(String::as_str);
        expect_eq("ONE, of the container", variable("ONE"), Some("1"))?;
        expect_eq("TWO, of exec", variable("TWO"), Some("2"))?;
        expect_eq("its parent inside", seen.ppid, 0)?;
        for field in ["CapBnd", "CapEff", "Seccomp", "NoNewPrivs"] {
            let script = format!("grep ^{field}: /proc/self/status /proc/1/status");
            let text = exec(&[], &["sh", "-c", &script]).run()?.success()?.stdout;
            let values: Vec<&str> = text
                .lines()
                .filter_map(|line| line.split(':').nth(2))
                .collect();
            expect(
                values.len() == 2 && values[0] == values[1],
                format!("the {field} of the container"),
                &text,
            )?;
        }
        // On the host: in its group, and nothing of it after its end.
        let group = check::cgroup::of(first)?;
        let dir = group.controller("memory").context("no group of memory")?;
        life.said(&["exec", "-d", "box", "sleep", "999"])?;
        let file = dir.join("cgroup.procs");
        let count = || {
            check::cgroup::pids(&file)
                .map(|pids| pids.len())
                .unwrap_or(0)
        };
        expect(
            wait_for(|| (count() == 2).then_some(())).is_some(),
            "the further process in the container's group",
            format!("{} processes there", count()),
        )?;
        life.said(&["rm", "-f", "box"])?;
        expect(
            !dir.exists(),
            "no group after rm -f",
            format!("{}", dir.display()),
        )
    });
}

#[test]
fn exec_says_what_went_wrong() {
    check(|c| {
        let life = Life::new(c)?;
        life.detached("box", &[], "exec sleep 1000")?;
        for (command, status) in [
            (&["sh", "-c", "exit 7"][..], 7),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["/no/such"], 127),
            (&["/etc/passwd"], 126),
        ] {
            let words = [&["exec", "box"], command].concat();
            life.call(&words).run()?.expect_status(status)?;
        }
        life.call(&["exec", "-w", "/no/such", "box", "true"])
            .run()?
            .expect_error(125, &["/no/such"])?;
        life.call(&["exec", "-u", "nobody-here", "box", "true"])
            .run()?
            .expect_error(125, &["nobody-here"])?;
        life.said(&["pause", "box"])?;
        expect(
            life.status("box")?.contains("(Paused)"),
            "(Paused) in ps",
            life.status("box")?,
        )?;
        life.call(&["exec", "box", "true"])
            .run()?
            .expect_error(1, &["paused"])?;
        life.said(&["unpause", "box"])?;
        life.said(&["exec", "box", "true"])?;
        life.said(&["stop", "-t", "0", "box"])?;
        life.call(&["exec", "box", "true"])
            .run()?
            .expect_error(1, &["not running"])?;
        life.call(&["exec", "nobody", "true"])
            .run()?
            .expect_error(1, &["nobody"])
            .map(drop)
    });
}

#[test]
fn a_stopped_container_keeps_its_files() {
    check(|c| {
        let life = Life::new(c)?;
        let word = c.word("kept");
        let script = format!(
            "cat /note; rm -rf /etc/group /var; mkdir -p /var/tmp; echo {word} >> /note; \
             exec sleep 1000"
        );
        let id = life.detached("box", &[], &script)?;
        let noted = |times: usize| {
            let text = wait_for(|| {
                let text = life.said(&["exec", "box", "cat", "/note"]).ok()?;
                (text.lines().count() == times).then_some(text)
            });
            expect(
                text.is_some(),
                format!("{times} lines in the file that it writes"),
                life.call(&["exec", "box", "cat", "/note"]).run()?.stdout,
            )
        };
        noted(1)?;
        life.said(&["stop", "-t", "0", "box"])?;
        life.expect_status("box", "Exited (137)")?;
        // A deletion is a whiteout in the container's own layer (step 08).
        let layer = life.root.join("overlay2").join(&id).join("diff/etc/group");
        expect(
            fs::symlink_metadata(&layer).is_ok(),
            "the whiteout of the file that was deleted, while nothing runs",
            format!("no {}", layer.display()),
        )?;
        let diff = life.said(&["diff", "box"])?;
        for line in ["D /etc/group", "C /var", "C /var/tmp", "D /var/log"] {
            expect(
                diff.lines().any(|found| found == line),
                format!("{line} in what diff says: /var was removed, and made again with tmp"),
                "no such line",
            )?;
        }
        life.said(&["start", "box"])?;
        noted(2)?;
        expect_eq(
            "the same id",
            life.record("box")?["Id"].as_str(),
            Some(&*id),
        )?;
        life.said(&["restart", "-t", "0", "box"])?;
        noted(3)?;
        life.said(&["rename", "box", "chest"])?;
        life.call(&["start", "box"])
            .run()?
            .expect_error(1, &["box"])?;
        expect_eq(
            "start of one that runs",
            life.said(&["start", "chest"])?,
            "chest".into(),
        )?;
        life.call(&["rm", "chest"])
            .run()?
            .expect_error(1, &["running"])?;
        life.said(&["rm", "-f", "chest"])?;
        life.expect_nothing_left()
    });
}

#[test]
fn it_is_started_again_as_asked() {
    check(|c| {
        let life = Life::new(c)?;
        life.detached("twice", &["--restart", "on-failure:2"], "echo ran; exit 4")?;
        let runs = |name: &str| -> usize {
            let ran = life.call(&["logs", name]).run();
            ran.map(|ran| ran.stdout.lines().count()).unwrap_or(0)
        };
        life.expect_status("twice", "Exited (4)")?;
        let thrice = wait_for(|| (runs("twice") == 3).then_some(()));
        expect(thrice.is_some(), "three runs", format!("{}", runs("twice")))?;
        life.expect_status("twice", "Exited (4)")?;
        let record = life.record("twice")?;
        expect_eq(
            "the restarts in the record",
            record["RestartCount"].as_u64(),
            Some(2),
        )?;

        life.detached("done", &["--restart", "on-failure"], "echo ran; exit 0")?;
        life.expect_status("done", "Exited (0)")?;
        expect_eq("runs of one that succeeds", runs("done"), 1)?;

        life.detached("always", &["--restart", "always"], "echo ran; exit 0")?;
        let again = wait_for(|| (runs("always") >= 3).then_some(()));
        expect(
            again.is_some(),
            "three runs at least",
            format!("{}", runs("always")),
        )?;
        // While it waits or runs: it is stopped for good.
        life.said(&["stop", "-t", "0", "always"])?;
        let ended = runs("always");
        life.expect_status("always", "Exited")?;
        let id = life.record("always")?["Id"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        let file = fs::read(life.root.join(format!("containers/{id}.json")))?;
        let record: Value = serde_json::from_slice(&file)?;
        expect_eq(
            "stopped, in the record",
            record["lifecycle"]["stopped"].as_bool(),
            Some(true),
        )?;
        life.detached("runs", &["--restart", "always"], "exec sleep 1000")?;
        life.said(&["stop", "-t", "0", "runs"])?;
        life.expect_status("runs", "Exited (137)")?;
        life.said(&["start", "always"])?;
        let again = wait_for(|| (runs("always") > ended).then_some(()));
        expect(
            again.is_some(),
            "another run after start",
            format!("{}", runs("always")),
        )?;
        life.said(&["update", "--restart", "no", "always"])?;
        life.expect_status("always", "Exited (0)")?;

        for (policy, word) in [("sometimes", "sometimes"), ("always:3", "on-failure")] {
            life.call(&["create", "--restart", policy, &life.image, "true"])
                .run()?
                .expect_status(125)?
                .stderr
                .contains(word)
                .then_some(())
                .ok_or_else(|| failed(format!("an error that names {word}"), "another"))?;
        }
        life.call(&["run", "--rm", "--restart", "always", &life.image, "true"])
            .run()?
            .expect_error(125, &["--restart", "--rm"])
            .map(drop)
    });
}

#[test]
fn who_attaches_is_no_burden() {
    check(|c| {
        let life = Life::new(c)?;
        let word = c.word("word");
        // In the foreground with a log: attached from the first byte.
        let script = "read -r word; echo $word; echo $word >&2; exit 5";
        let base = [
            "run",
            "-i",
            "--network",
            "none",
            "--log-driver",
            "json-file",
        ];
        let words = [
            &base[..],
            &["--name", "one", &life.image, "sh", "-c", script],
        ]
        .concat();
        let ran = life
            .call(&words)
            .stdin(format!("{word}\n"))
            .run()?
            .expect_status(5)?;
        expect_eq("its output", ran.stdout, format!("{word}\n"))?;
        expect_eq("its errors", ran.stderr, format!("{word}\n"))?;
        expect_eq("and in its log", life.said(&["logs", "one"])?, word.clone())?;
        let again = life
            .call(&["start", "-a", "-i", "one"])
            .stdin(format!("{word}2\n"));
        expect_eq(
            "its output, when it is started again",
            again.run()?.expect_status(5)?.stdout,
            format!("{word}2\n"),
        )?;

        // One who does not read is cut off; the container goes on, and its log
        // is whole.
        let script = "head -c 4000000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 1000";
        let base = ["run", "-d", "-i", "--network", "none", "--name", "many"];
        let script = format!("read -r go; {script}");
        life.said(&[&base[..], &[&life.image, "sh", "-c", &script]].concat())?;
        let mut deaf = life
            .call(&["attach", "many"])
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run attach")?;
        deaf.stdin
            .as_mut()
            .context("no input")?
            .write_all(b"go\n")
            .context("write")?;
        let ended = wait_for(|| {
            let last = life.said(&["logs", "-n", "1", "many"]).ok()?;
            (last == "done").then_some(())
        });
        deaf.kill().context("kill")?;
        deaf.wait().context("wait")?;
        expect(
            ended.is_some(),
            "the container to go on while one who is attached does not read",
            "it waits",
        )?;
        let bytes = life.call(&["logs", "many"]).run()?.success()?.stdout.len();
        expect_eq("the bytes in its log", bytes, 4_000_006)?;

        // Neither is one who has its output and goes on writing to it when the
        // command has ended.
        let (first, _) = life.pids("many")?;
        let output = format!("/proc/{first}/fd/1");
        let output = File::options().write(true).open(output).context("open")?;
        let mut ends = Vec::new();
        for _ in 0..2 {
            let mut output = output.try_clone().context("dup")?;
            // Until nobody reads it.
            ends.push(std::thread::spawn(move || {
                while output.write_all(&[b'\n'; 64 << 10]).is_ok() {}
            }));
        }
        drop(output);
        let killed = life.call(&["kill", "many"]).run()?.success();
        let ended = wait_for(|| {
            let state = life.record("many").ok()?["State"]["Status"].clone();
            (state == "exited").then_some(())
        });
        life.call(&["rm", "-f", "many"]).run()?.success()?;
        for end in ends {
            expect(end.join().is_ok(), "a writer to end", "it has panicked")?;
        }
        killed?;
        expect(
            ended.is_some(),
            "the end of a container whose output others hold",
            "none",
        )
    });
}

#[test]
fn a_killed_monitor_leaves_nothing() {
    check(|c| {
        let life = Life::new(c)?;
        for (name, options) in [("kept", &[][..]), ("gone", &["--rm"])] {
            life.detached(name, options, "exec sleep 1000")?;
            let (first, monitor) = life.pids(name)?;
            let groups = check::cgroup::of(first)?;
            let dir = groups.controller("pids").context("no group")?.to_owned();
            kill(monitor)?;
            let ended = wait_for(|| is_gone(first).then_some(()));
            expect(
                ended.is_some(),
                "the container to end with its monitor",
                "it runs on",
            )?;
            match name {
                "kept" => {
                    life.expect_status(name, "Exited")?;
                    life.call(&["exec", name, "true"])
                        .run()?
                        .expect_error(1, &["not running"])?;
                    expect_eq(
                        "start afterwards",
                        life.said(&["start", name])?,
                        name.into(),
                    )?;
                    life.said(&["rm", "-f", name])?;
                }
                _ => {
                    let all = life.said(&["ps", "-aq"])?;
                    expect_eq("containers after that", all.as_str(), "")?;
                    life.said(&["run", "--rm", "--network", "none", &life.image, "true"])?;
                }
            }
            expect(
                !dir.exists(),
                "its group gone",
                format!("{}", dir.display()),
            )?;
        }
        life.expect_nothing_left()?;
        // A full log is no reason to stop.
        life.detached("full", &[], "while :; do echo x; sleep 0.01; done")?;
        let id = life.record("full")?["Id"].as_str().unwrap_or("").to_owned();
        let log = life.root.join("containers").join(id).join("json.log");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).context("chmod")?;
        let (first, _) = life.pids("full")?;
        expect(!is_gone(first), "the container to run", "it has ended")?;
        life.said(&["rm", "-f", "full"])?;
        a_full_disk(&life)
    });
}

fn kill(pid: i32) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).context("kill")
}

/// A container that has filled the disk, and ends with its monitor.
fn a_full_disk(life: &Life<'_>) -> Result<()> {
    // Mounts of this thread and of what it starts.
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("mount(MS_PRIVATE)")?;
    let (tmpfs, size) = (Some("tmpfs"), Some("mode=755,size=4m"));
    mount(tmpfs, &life.root, tmpfs, MsFlags::empty(), size).context("mount(tmpfs)")?;
    let found = it_is_removed(life);
    umount2(&life.root, MntFlags::MNT_DETACH).context("umount2")?;
    // The next one removes the groups of the killed one.
    life.said(&["run", "--rm", "--network", "none", &life.image, "true"])?;
    found
}

/// A container that has filled the disk can be looked at, and removed.
fn it_is_removed(life: &Life<'_>) -> Result<()> {
    life.detached(
        "filler",
        &[],
        "dd if=/dev/zero of=/fill bs=4k; exec sleep 1000",
    )?;
    let full = wait_for(|| {
        let left = statvfs(&life.root).ok()?.blocks_available();
        (left == 0).then_some(())
    });
    expect(full.is_some(), "a full disk", "there is room")?;
    let (first, monitor) = life.pids("filler")?;
    kill(monitor)?;
    wait_for(|| is_gone(first).then_some(()));
    // Nobody can write that it has ended.
    let ran = life
        .call(&["ps", "-a", "--format", "{{.Status}}"])
        .run()?
        .expect_status(0)?;
    expect(
        ran.stdout.starts_with("Exited"),
        "a container that has ended, in ps on a full disk",
        &ran.stdout,
    )?;
    let ran = life.call(&["rm", "filler"]).run()?;
    expect(
        ran.status == 0,
        "the container that has filled the disk to be removed",
        &ran.stderr,
    )
}

#[test]
fn the_exit_status_is_for_those_who_wait() {
    check(|c| {
        let life = Life::new(c)?;
        let number = 2 + c.number(90);
        let script = format!("read -r go; exit {number}");
        for (name, options) in [("kept", &[][..]), ("gone", &["--rm"])] {
            let base = ["run", "-d", "-i", "--network", "none", "--name", name];
            let rest = [&life.image[..], "sh", "-c", &script];
            life.said(&[&base[..], options, &rest].concat())?;
            let waiting = life
                .call(&["wait", name])
                .command()
                .stdout(Stdio::piped())
                .spawn()
                .context("run wait")?;
            // Asleep in a call for an answer.
            let asleep = wait_for(|| {
                let process = host::process(waiting.id() as i32)?;
                (process.state == 'S').then_some(())
            });
            expect(asleep.is_some(), "wait to wait", "it does not")?;
            let mut attached = life
                .call(&["attach", name])
                .command()
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .context("run attach")?;
            attached
                .stdin
                .as_mut()
                .context("no input")?
                .write_all(b"go\n")
                .context("write")?;
            let ended = wait_or_kill(&mut attached)?;
            expect_eq("the exit status of attach", ended, Some(number as i32))?;
            let output = waiting.wait_with_output().context("wait")?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            expect(
                text == number.to_string(),
                "wait to print the exit status",
                format!("{text:?}"),
            )?;
        }
        life.expect_status("kept", &format!("Exited ({number})"))?;
        expect_eq(
            "what wait prints afterwards",
            life.said(&["wait", "kept"])?,
            number.to_string(),
        )?;
        life.said(&["rm", "kept"])?;
        life.expect_nothing_left()
    });
}

#[test]
fn none_of_it_needs_root() {
    check(|c| {
        let life = Life::new(c)?;
        let user = Ordinary::new(&life)?;
        let word = c.word("words");
        let script = format!("echo {word}; exec sleep 1000");
        let run = ["run", "-d", "--network", "none", "--name", "box"];
        let probed = ["--health-cmd", "test -e /ok", "--health-interval", "100ms"];
        let command = [&user.image, "sh", "-c", &script];
        user.said(&[&run[..], &probed, &command].concat())?;
        let logged = wait_for(|| {
            user.said(&["logs", "box"])
                .ok()
                .filter(|text| *text == word)
        });
        expect(logged.is_some(), "its log", user.said(&["logs", "box"])?)?;
        expect_eq(
            "who it is inside",
            &*user.said(&["exec", "box", "id", "-u"])?,
            "0",
        )?;
        let pid = user.said(&["inspect", "-f", "{{.State.Pid}}", "box"])?;
        let owner = fs::metadata(format!("/proc/{pid}")).context("stat")?;
        expect_eq(
            "who it is outside",
            std::os::unix::fs::MetadataExt::uid(&owner),
            1000,
        )?;
        user.said(&["exec", "box", "touch", "/ok"])?;
        let well = wait_for(|| {
            let status = user.said(&["ps", "--format", "{{.Status}}"]).ok()?;
            status.ends_with("(healthy)").then_some(())
        });
        expect(well.is_some(), "(healthy) in ps", user.said(&["ps"])?)?;
        user.said(&["stop", "-t", "0", "box"])?;
        expect_eq("its exit status", &*user.said(&["wait", "box"])?, "137")?;
        user.said(&["start", "box"])?;
        user.said(&["exec", "box", "ls", "/ok"])?;
        // What its user may not do is an error, and nothing else.
        let ran = user
            .call(&["run", "--rm", "--network", "bridge", &user.image, "true"])
            .run()?;
        expect(
            ran.status == 125,
            "status 125 for a bridge without root",
            ran.status,
        )?;
        user.said(&["rm", "-f", "box"])?;
        wait_for_monitors();
        let left = fs::read_dir(format!("{}/state/containers/names", user.root));
        expect_eq("names that are left", left.context("list")?.count(), 0)
    });
}

//! The fold: stages, commands, the cache, secrets, and what is left of builds that
//! were killed.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use check::check::wait_or_kill;
use check::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::yard::Yard;

/// Builds of stages.
struct Site<'a>(Yard<'a>);

impl<'a> Deref for Site<'a> {
    type Target = Yard<'a>;

    fn deref(&self) -> &Yard<'a> {
        &self.0
    }
}

impl<'a> Site<'a> {
    fn new(c: &'a Check) -> Result<Self> {
        Yard::new(c, |_| Ok(())).map(Site)
    }

    /// `build` of a Dockerfile as the image `made`, without a network.
    fn step(&self, options: &[&str], dockerfile: &str) -> Result<Step> {
        self.file("Dockerfile", dockerfile)?;
        let context = self.context.display().to_string();
        let base = [
            "build",
            "--progress",
            "plain",
            "--network",
            "none",
            "-t",
            "made",
        ];
        Ok(self.call(&[&base, options, &[&*context]].concat()))
    }

    fn build(&self, options: &[&str], dockerfile: &str) -> Result<Ran> {
        self.step(options, dockerfile)?.run()
    }

    /// A build that is left to itself.
    fn begun(&self, dockerfile: &str) -> Result<Child> {
        let mut command = self.step(&[], dockerfile)?.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().context("start the program")
    }

    /// The ID of the image `made`.
    fn id(&self) -> Result<String> {
        Ok(self.image()?["Id"].as_str().unwrap_or_default().to_owned())
    }

    fn image(&self) -> Result<Value> {
        let ran = self.call(&["image", "inspect", "made"]).run()?.success()?;
        let images: Value = ran.json()?;
        Ok(images[0].clone())
    }

    /// What a command in the image `made` prints.
    fn inside(&self, script: &str) -> Result<String> {
        let words = [
            "run",
            "--rm",
            "--network",
            "none",
            "made",
            "sh",
            "-c",
            script,
        ];
        Ok(self.call(&words).run()?.success()?.stdout)
    }

    /// The files below the state directory whose content has these bytes.
    fn with(&self, bytes: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).context("readdir")? {
                let path = entry.context("readdir")?.path();
                let kind = path.symlink_metadata().context("stat")?;
                if kind.is_dir() {
                    directories.push(path);
                } else if kind.is_file() {
                    let content = fs::read(&path).context("read")?;
                    let needle = bytes.as_bytes();
                    if content.windows(needle.len()).any(|window| window == needle) {
                        found.push(path);
                    }
                }
            }
        }
        Ok(found)
    }

    /// What is there of containers: records, names, notes, and layers that are no
    /// image's.
    fn remains(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for part in ["containers", "containers/names", "run/overlay2", "overlay2"] {
            let directory = self.root.join(part);
            if !directory.exists() {
                continue;
            }
            for entry in fs::read_dir(&directory).context("readdir")? {
                let name = entry.context("readdir")?.file_name();
                let name = name.to_string_lossy().into_owned();
                let usual = matches!(&*name, "names" | "events" | "l" | ".lock")
                    || name.starts_with("sha256-");
                if !usual {
                    found.push(format!("{part}/{name}"));
                }
            }
        }
        Ok(found)
    }
}

/// Expects that a build has failed, and says so.
fn says(ran: &Ran, words: &str) -> Result<()> {
    expect(
        ran.status == 1 && ran.stderr.contains(words),
        format!("the build to exit with 1 and to say {words:?}"),
        format!("{}: {}", ran.status, ran.stderr),
    )
}

/// The lines of the plain view that say what became of an instruction.
fn became(ran: &Ran, instruction: &str) -> String {
    let title = |line: &&str| line.contains("] ") && line.ends_with(instruction);
    let Some(line) = ran.stderr.lines().find(title) else {
        return format!("(no line about {instruction})");
    };
    let number = line.split(' ').next().unwrap_or_default();
    let begins = format!("{number} ");
    let lines = ran.stderr.lines();
    let lines: Vec<&str> = lines.filter(|line| line.starts_with(&begins)).collect();
    lines.join("\n")
}

#[test]
fn an_image_is_a_fold_over_instructions() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        yard.build(
            &["--build-arg", "WHO=caller", "--label", "given=yes"],
            &format!(
                "ARG BASE=box\nFROM $BASE\nARG WHO=nobody\nARG WHAT=default\nENV A={word} B=$WHO\n\
                 ENV A=later C=$A\nRUN echo \"hello world\" > /tmp/newfile\nRUN echo $WHO $WHAT $A \
                 $B $C > /seen\nWORKDIR /w\nWORKDIR x\nRUN pwd > /where\nENTRYPOINT [\"sh\", \
                 \"-c\"]\nCMD [\"cat /seen /where\"]\nLABEL l=$WHO\nEXPOSE 80 53/udp\nVOLUME \
                 /data\nUSER 7:8\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK --interval=3s CMD true\n"
            ),
        )?
        .success()?;
        let ran = yard
            .call(&["run", "--rm", "--network", "none", "made"])
            .run()?;
        expect_eq(
            "what the image prints of the variables that its RUN saw",
            ran.success()?.stdout,
            format!("caller default later caller {word}\n/w/x\n"),
        )?;
        let image = yard.image()?;
        let config = &image["Config"];
        for (path, expected) in [
            ("/User", "7:8"),
            ("/WorkingDir", "/w/x"),
            ("/StopSignal", "SIGQUIT"),
            ("/Labels/l", "caller"),
            ("/Labels/given", "yes"),
            ("/Healthcheck/Test/1", "true"),
            ("/Entrypoint/0", "sh"),
        ] {
            let found = config.pointer(path).and_then(Value::as_str);
            expect_eq(&format!("Config{path}"), found, Some(expected))?;
        }
        expect(
            config["ExposedPorts"]["53/udp"].is_object() && config["Volumes"]["/data"].is_object(),
            "a port and a volume",
            config,
        )?;
        // The documents' own example: a layer of one file with twelve bytes.
        let words = [
            "history",
            "--no-trunc",
            "--format",
            "{{.Size}}\t{{.CreatedBy}}",
            "made",
        ];
        let history = yard.call(&words).run()?.success()?.stdout;
        let line = history.lines().find(|line| line.contains("newfile"));
        expect(
            line.is_some_and(|line| {
                line.starts_with("12B\tRUN |2 WHO=caller WHAT=default /bin/sh -c echo")
            }),
            "history to show the layer of a RUN with its 12 bytes and its arguments",
            &history,
        )?;
        let layers = image["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
        expect_eq("the number of layers of five steps on a base", layers, 6)?;
        // Twice the same is the same image, and nothing of a container is left.
        expect_eq("what is left of containers", yard.remains()?, Vec::new())
    });
}

#[test]
fn a_command_that_fails_is_shown() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        let ran = yard.build(
            &[],
            &format!("FROM box\nRUN true\nRUN echo {word} && \\\n  exit 3\nRUN touch /never\n"),
        )?;
        let said = format!(
            "process \"/bin/sh -c echo {word} &&   exit 3\" did not complete successfully: exit code: 3"
        );
        expect(
            ran.status == 1
                && ran.stderr.contains(&said)
                && ran.stderr.contains(&format!(">>> RUN echo {word}"))
                && ran.stderr.contains(">>>   exit 3"),
            format!("exit status 1, {said:?}, and both lines with a marker"),
            format!("{}: {}", ran.status, ran.stderr),
        )?;
        let left = yard.call(&["images", "-q", "made"]).run()?.success()?;
        expect_eq("images of a build that failed", &*left.stdout, "")?;
        expect_eq("what is left of containers", yard.remains()?, Vec::new())?;
        // And the next time: there is no layer of a command that has failed.
        let failing = "FROM box\nRUN touch /half; false\n";
        for turn in ["first", "second"] {
            let ran = yard.build(&[], failing)?;
            expect(
                ran.status == 1,
                format!("the {turn} build of a command that fails to exit with 1"),
                format!("{}: {}", ran.status, ran.stderr),
            )?;
        }
        // A command that is not there is the same.
        let ran = yard.build(&[], "FROM box\nRUN [\"/no/such\"]\n")?;
        says(
            &ran,
            "process \"/no/such\" did not complete successfully: exit code: 127",
        )
    });
}

#[test]
fn stages_run_side_by_side() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        // Each waits for the other: by a cache that both mount.
        let stage = |own: &str, other: &str| {
            format!(
                "FROM box AS {own}\nRUN --mount=type=cache,id={word},target=/c touch /c/{own}; n=0; \
                 until [ -e /c/{other} ]; do n=$((n+1)); [ $n -lt 300 ] || exit 9; usleep 50000; \
                 done; echo {word}-{own} > /{own}\n"
            )
        };
        let unused = "FROM box AS unused\nRUN exit 7\n";
        let last = "FROM scratch AS last\nCOPY --from=one /one /\nCOPY --from=two /two /out/\nCMD \
                    [\"x\"]\n";
        let dockerfile =
            stage("one", "two") + &stage("two", "one") + unused + last + "FROM unused\n";
        let ran = yard.build(&["--target", "last"], &dockerfile)?;
        // Its last line: what stands above comes from stages in an order of their own.
        expect(
            ran.status == 0,
            "two stages that wait for one another to be built, and the one that nobody needs not",
            ran.stderr.lines().last().unwrap_or_default(),
        )?;
        let archive = c.dir().join("made.tar");
        let image = yard.image()?;
        let layers = image["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
        expect_eq("the layers of two COPYs on scratch", layers, 2)?;
        let words = ["create", "--name", "look", "made"];
        yard.call(&words).run()?.success()?;
        let ran = yard.call(&["cp", "look:/out/two", "-"]).run()?.success()?;
        expect(
            ran.stdout.contains(&format!("{word}-two")) && !archive.exists(),
            "the file of a stage in the image",
            ran.stdout.len(),
        )?;
        yard.call(&["rm", "look"]).run()?.success().map(drop)
    });
}

#[test]
fn the_cache_knows_what_it_depends_on() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        let dockerfile =
            "FROM box\nARG V=1\nCOPY src /src\nRUN cat /src/* > /all; echo $V >> /all\n";
        yard.file("src/one", &word)?;
        yard.file("src/two", "two\n")?;
        yard.build(&[], dockerfile)?.success()?;
        let first = yard.id()?;
        // Times are no content.
        let path = yard.context.join("src/one");
        let later = std::time::SystemTime::now() + Duration::from_secs(90);
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .context("open")?;
        file.set_modified(later).context("futimens")?;
        let ran = yard.build(&[], dockerfile)?.success()?;
        expect(
            became(&ran, "COPY src /src").contains("CACHED"),
            "a COPY to be cached whose files have another time only",
            &ran.stderr,
        )?;
        expect_eq(
            "the image of a build from the cache",
            yard.id()?,
            first.clone(),
        )?;
        // An argument changes the RUN that sees it, not the COPY before it.
        let ran = yard.build(&["--build-arg", "V=2"], dockerfile)?.success()?;
        let run = became(&ran, "RUN cat /src/* > /all; echo $V >> /all");
        expect(
            became(&ran, "COPY src /src").contains("CACHED")
                && run.contains("not cached: variable V changed"),
            "another value of V to be the reason why RUN is not cached",
            &ran.stderr,
        )?;
        expect_eq(
            "what the RUN saw",
            yard.inside("tail -n 1 /all")?,
            "2\n".into(),
        )?;
        // A mode is content.
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("chmod")
        };
        mode(0o600)?;
        let ran = yard.build(&[], dockerfile)?.success()?;
        let copy = became(&ran, "COPY src /src");
        expect(
            copy.contains("not cached") && copy.contains("one changed"),
            "a COPY to run again whose file has another mode, and to name the file",
            &ran.stderr,
        )?;
        let shown = yard.inside("stat -c %a /src/one")?;
        expect_eq("the mode in the image", shown, "600\n".into())?;
        yard.file("src/three", "3\n")?;
        let ran = yard.build(&[], dockerfile)?.success()?;
        expect(
            became(&ran, "COPY src /src").contains("three is new"),
            "a new file to be named",
            &ran.stderr,
        )?;
        let ran = yard.build(&["--no-cache"], dockerfile)?.success()?;
        expect(
            !ran.stderr.contains("[2/3] COPY src /src\n#4 CACHED"),
            "--no-cache to use no cache",
            &ran.stderr,
        )?;
        expect(yard.id()? != first, "another image", "the same")
    });
}

#[test]
fn what_is_kept_is_kept_until_it_is_pruned() {
    check(|c| {
        let yard = Site::new(c)?;
        let dockerfile = "FROM box\nRUN echo 1 > /one\nRUN echo 2 > /two\n";
        yard.build(&[], dockerfile)?.success()?;
        yard.call(&["rmi", "made"]).run()?.success()?;
        let ran = yard.build(&[], dockerfile)?.success()?;
        expect(
            became(&ran, "RUN echo 2 > /two").contains("CACHED"),
            "layers to outlive their image",
            &ran.stderr,
        )?;
        let df = yard.call(&["system", "df"]).run()?.success()?.stdout;
        let row = df.lines().find(|line| line.starts_with("Build Cache"));
        let row: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
        expect_eq("records in system df", row.get(2).copied(), Some("2"))?;
        // What images have stays, even though all is forgotten.
        let ran = yard.call(&["builder", "prune", "-f"]).run()?.success()?;
        expect(
            ran.stdout.contains("Total reclaimed space: 0B"),
            "nothing to be dangling",
            &ran.stdout,
        )?;
        yard.call(&["rmi", "made"]).run()?.success()?;
        let ran = yard.call(&["builder", "prune", "-f"]).run()?.success()?;
        expect(
            ran.stdout.contains("Total reclaimed space: 4B"),
            "the four bytes of both layers to be freed",
            &ran.stdout,
        )?;
        let layers = fs::read_dir(yard.root.join("overlay2")).context("readdir")?;
        let layers = layers.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let layers: Vec<String> = layers
            .filter(|name| name.starts_with("sha256-") && !name.ends_with("-init"))
            .collect();
        expect_eq(
            "layers after the removal: that of the base",
            layers.len(),
            1,
        )?;
        let ran = yard.build(&[], dockerfile)?.success()?;
        expect(
            became(&ran, "RUN echo 1 > /one").contains("not cached"),
            "a layer that was pruned to be built again",
            &ran.stderr,
        )
    });
}

#[test]
fn a_secret_is_nowhere_afterwards() {
    check(|c| {
        let yard = Site::new(c)?;
        let secret = c.word("hush").repeat(3);
        let file = c.dir().join("secret");
        fs::write(&file, &secret).context("write")?;
        let option = format!("id=key,src={}", file.display());
        // The command proves that it saw it, without printing it.
        let ran = yard.build(
            &["--secret", &option],
            "FROM box\nRUN --mount=type=secret,id=key md5sum < /run/secrets/key | cut -c 1-32 > \
             /sum; stat -c %a /run/secrets/key; grep secrets /proc/mounts | cut -d ' ' -f 3\n\
             RUN --mount=type=secret,id=key,env=KEY printf %s \"$KEY\" | md5sum | cut -c 1-32 >> \
             /sum; sleep 0\n",
        )?;
        let ran = ran.success()?;
        let shown = yard.inside("cat /sum; ls -A /run")?;
        let sums: Vec<&str> = shown.lines().collect();
        expect(
            sums.len() == 2 && sums[0] == sums[1] && sums[0].len() == 32,
            "both RUNs to have read the same secret, and nothing of it in /run",
            &shown,
        )?;
        expect(
            ran.stderr.contains(" 400\n") && ran.stderr.contains(" tmpfs\n"),
            "a file of mode 400 in memory",
            &ran.stderr,
        )?;
        let found = yard.with(&secret)?;
        expect_eq(
            "files of the engine with the secret in them",
            found,
            Vec::new(),
        )?;
        let history = ["history", "--no-trunc", "made"];
        let history = yard.call(&history).run()?.success()?.stdout;
        expect(
            !ran.stderr.contains(&secret) && !history.contains(&secret),
            "no secret in what the build shows",
            &ran.stderr,
        )?;
        // While it runs, neither.
        let running = yard.step(
            &["--secret", &option],
            "FROM box\nRUN --mount=type=secret,id=key,env=KEY echo up > /dev/null; sleep 600 # seen\n",
        )?;
        let mut command = running.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("start the program")?;
        let seen = wait_for(|| sleeping(&yard.root).then_some(()));
        let found = yard.with(&secret);
        let words = command_lines(&secret);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).context("kill")?;
        wait_or_kill(&mut child)?;
        expect(seen.is_some(), "the command to run", "it does not")?;
        expect_eq(
            "files with the secret while a RUN sees it",
            found?,
            Vec::new(),
        )?;
        expect_eq("command lines with the secret", words, Vec::new())?;
        let ran = yard.build(
            &[],
            "FROM box\nRUN --mount=type=secret,id=none,required=true true\n",
        )?;
        says(&ran, "secret none: not found")?;
        let ran = yard.build(&[], "FROM box\nRUN --mount=type=ssh true\n")?;
        says(&ran, ">>> RUN --mount=type=ssh")?;
        says(&ran, "ssh")
    });
}

/// Whether a process sleeps for a container of this engine.
fn sleeping(root: &Path) -> bool {
    let state = fs::read_dir(root.join("containers"));
    let records = state.into_iter().flatten().flatten();
    let mut records = records.map(|entry| entry.path());
    records.any(|path| {
        path.extension().is_some_and(|end| end == "json")
            && fs::read_to_string(&path).is_ok_and(|text| {
                let record: Value = serde_json::from_str(&text).unwrap_or_default();
                let pid = record["pid"].as_i64().unwrap_or(0);
                let children = format!("/proc/{pid}/task/{pid}/children");
                fs::read_to_string(children).is_ok_and(|text| !text.trim().is_empty())
                    || fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| name.trim() == "sleep")
            })
    })
}

/// The command lines of processes that have these bytes in them.
fn command_lines(bytes: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains(bytes)).collect()
}

#[test]
fn mounts_leave_no_trace() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        yard.file("files/a", &word)?;
        yard.file("files/b", "no\n")?;
        yard.file(".dockerignore", "files/b\n")?;
        let dockerfile = |n: u32| {
            format!(
                "FROM box AS other\nRUN mkdir /dir; echo {word}-o > /dir/o; ln -s /etc /dir/out; \
                 echo {word}-e > /etc/mark\nFROM box\nRUN --mount=type=cache,target=/c/d \
                 --mount=type=tmpfs,target=/t --mount=source=files,target=/f,rw \
                 --mount=from=other,source=/dir,target=/o {{ echo {n} >> /c/d/n; ls /f; cat /f/a; \
                 cat /o/o; touch /f/new /t/new; touch /o/new 2>/dev/null || echo ro; }} > \
                 /seen\nRUN --mount=type=cache,target=/c/d cp /c/d/n /n\nRUN \
                 --mount=from=other,source=/dir/out,target=/p cat /p/mark > /mark\n"
            )
        };
        yard.build(&[], &dockerfile(1))?.success()?;
        // The second RUN is in the cache, which does not see what is in a mount.
        yard.build(&["--no-cache"], &dockerfile(2))?.success()?;
        let shown = yard.inside("cat /seen; ls -d /c /t /f /o 2>/dev/null; cat /n /mark")?;
        let expected = format!("a\n{word}{word}-o\nro\n1\n2\n{word}-e\n");
        expect(
            shown == expected,
            "caches that stay, files of context and stage, a link that stays in its image, and no \
             mount point in the image",
            format!("{shown:?}, not {expected:?}"),
        )?;
        expect(
            !yard.context.join("files/new").exists(),
            "what is written to a mount to be lost",
            "it is in the context",
        )
    });
}

#[test]
fn a_cache_begins_with_what_it_is_given() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        let dockerfile = |seed: &str, n: u32| {
            format!(
                "FROM box AS seed\nRUN mkdir -p /seed/below; echo {seed} > /seed/below/first; chown \
                 7:8 /seed/below; chmod 2750 /seed/below\nFROM box\nRUN \
                 --mount=type=cache,id=c,target=/c,from=seed,source=/seed/below {{ stat -c '%a \
                 %u:%g' /c; cat /c/*; echo {n} > /c/{n}; }} > /seen\n"
            )
        };
        yard.build(&[], &dockerfile(&word, 1))?.success()?;
        expect_eq(
            "what a new cache holds",
            yard.inside("cat /seen")?,
            format!("2750 7:8\n{word}\n"),
        )?;
        // What was written stays, and nothing is copied again.
        yard.build(&[], &dockerfile(&word, 2))?.success()?;
        expect_eq(
            "what it holds the next time",
            yard.inside("cat /seen")?,
            format!("2750 7:8\n1\n{word}\n"),
        )?;
        // Another beginning is another cache, also for a RUN that is the same.
        yard.build(&[], &dockerfile("other", 2))?.success()?;
        expect_eq(
            "what a cache with another beginning holds",
            yard.inside("cat /seen")?,
            "2750 7:8\nother\n".into(),
        )?;
        let ran = yard.build(
            &[],
            "FROM box\nRUN --mount=type=cache,target=/c,from=box,source=/none true\n",
        )?;
        says(&ran, "\"/none\": not found")?;
        let ran = yard.build(
            &[],
            "FROM box\nRUN --mount=type=cache,target=/c,source=/etc true\n",
        )?;
        says(&ran, "source=/etc without from")
    });
}

#[test]
fn a_filter_names_the_stages_that_are_not_cached() {
    check(|c| {
        let yard = Site::new(c)?;
        let dockerfile = "FROM box AS one\nRUN echo 1 > /one\nFROM box AS two\nRUN echo 2 > \
                          /two\nFROM box\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
        yard.build(&[], dockerfile)?.success()?;
        let steps = ["RUN echo 1 > /one", "RUN echo 2 > /two"];
        for (filter, expected) in [
            ("one", [false, true]),
            ("two", [true, false]),
            ("one,two", [false, false]),
            ("other", [true, true]),
        ] {
            let ran = yard
                .build(&["--no-cache-filter", filter], dockerfile)?
                .success()?;
            let cached = steps.map(|step| became(&ran, step).contains("CACHED"));
            expect_eq(
                &format!("whether the RUNs of stages one and two are cached with {filter}"),
                cached,
                expected,
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_system_is_pruned_of_what_nobody_uses() {
    check(|c| {
        let yard = Site::new(c)?;
        let prune = |options: &[&str]| -> Result<String> {
            let words = [&["system", "prune", "-f"], options].concat();
            Ok(yard.call(&words).run()?.success()?.stdout)
        };
        // A build is at work: the layer of its first stage belongs to no image yet,
        // and to no container any more; its cache is mounted.
        yard.build(&[], "FROM box\nRUN echo old > /old\n")?
            .success()?;
        yard.call(&["rmi", "made"]).run()?.success()?;
        let mut build = yard.begun(
            "FROM box AS first\nRUN echo layer > /layer\nFROM box\nRUN \
             --mount=type=cache,target=/c echo > /c/began; until test -e /c/go; do sleep 0.02; \
             done\nCOPY --from=first /layer /seen\n",
        )?;
        let below = |path: &str| {
            let entries = fs::read_dir(yard.root.join(path)).into_iter().flatten();
            entries.flatten().map(|entry| entry.path())
        };
        let data = wait_for(|| {
            let first = below("images/keep").any(|path| {
                let text = fs::read_to_string(path).unwrap_or_default();
                text.contains("echo layer")
            });
            let mut data = below("build/cache").map(|path| path.join("data"));
            data.find(|data| first && data.join("began").exists())
        });
        let done = (|| {
            for name in ["used", "ended"] {
                let words = [
                    "create",
                    "--network",
                    "none",
                    "-v",
                    "/anonymous",
                    "--name",
                    name,
                ];
                yard.call(&[&words[..], &["box", "sleep", "600"]].concat())
                    .run()?
                    .success()?;
            }
            yard.call(&["volume", "create", "named"]).run()?.success()?;
            let volume = yard.call(&["volume", "create"]).run()?.success()?.stdout;
            yard.call(&["start", "used"]).run()?.success()?;
            let asked = yard
                .call(&["system", "prune", "--volumes", "--filter", "label=x"])
                .stdin("n\n")
                .run()?
                .success()?
                .stdout;
            expect(
                asked.contains("WARNING! This will remove:\n  - all stopped containers\n")
                    && asked.contains("\n  - all anonymous volumes not used")
                    && asked.contains("\n  - all dangling images\n  - unused build cache\n")
                    && asked.contains("will be filtered with:\n  - label=x\n")
                    && !asked.contains("Total"),
                "Docker's question, and nothing to be done without a yes",
                &asked,
            )?;
            let first = prune(&["--filter", "label=x"])?;
            expect_eq(
                "what is removed of what has the label x",
                first,
                "Total reclaimed space: 0B\n".into(),
            )?;
            let first = prune(&[])?;
            expect(
                first.contains("Deleted Containers:\n")
                    && first.contains("\n\nDeleted build cache objects:\n")
                    && first.contains("\n\nTotal reclaimed space: ")
                    && !first.contains("Deleted Volumes"),
                "a container and a record to be removed, and no volume",
                &first,
            )?;
            let names = yard
                .call(&["ps", "-a", "--format", "{{.Names}}"])
                .run()?
                .success()?;
            // The build has one, too.
            let names: Vec<&str> = names.stdout.lines().collect();
            expect(
                names.contains(&"used") && !names.contains(&"ended"),
                "the container that has ended to be gone, and no other",
                format!("{names:?}"),
            )?;
            let first = prune(&["--all", "--volumes"])?;
            expect(
                first.contains(&format!("Deleted Volumes:\n{volume}")),
                "the anonymous volume that no container has",
                &first,
            )?;
            let left = yard.call(&["volume", "ls", "-q"]).run()?.success()?.stdout;
            expect(
                left.contains("named") && left.lines().count() == 2,
                "the named volume and that of the container that runs to stay",
                left,
            )
        })();
        if let Some(data) = &data {
            fs::write(data.join("go"), "").context("write")?;
        }
        let status = wait_or_kill(&mut build)?;
        yard.call(&["rm", "-f", "-v", "used"]).run()?;
        done?;
        expect(
            data.is_some(),
            "the build to be at its second stage",
            "it is not",
        )?;
        expect_eq(
            "the exit status of a build during which all was pruned",
            status,
            Some(0),
        )?;
        expect_eq(
            "what its image holds",
            yard.inside("cat /seen")?,
            "layer\n".into(),
        )?;
        prune(&["-a"])?;
        let df = yard.call(&["system", "df"]).run()?.success()?.stdout;
        let count = |what: &str| {
            let row = df.lines().find_map(|line| line.strip_prefix(what));
            row.and_then(|row| row.split_whitespace().next())
                .map(str::to_owned)
        };
        expect_eq(
            "images and records in the end",
            [count("Images"), count("Build Cache")],
            [Some("0".to_owned()), Some("0".to_owned())],
        )
    });
}

#[test]
fn a_build_that_is_killed_leaves_nothing() {
    check(|c| {
        let yard = Site::new(c)?;
        let dockerfile = "FROM box\nRUN sleep 600\n";
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let mut build = yard.begun(dockerfile)?;
            let runs = wait_for(|| sleeping(&yard.root).then_some(()));
            kill(Pid::from_raw(build.id() as i32), signal).context("kill")?;
            let status = wait_or_kill(&mut build)?;
            expect(runs.is_some(), "the command to run", "it does not")?;
            if signal == Signal::SIGTERM {
                expect_eq("the exit status", status, Some(1))?;
            }
            // Its processes have seen that it is gone, and have cleaned up.
            let clean = wait_for(|| yard.remains().ok()?.is_empty().then_some(()));
            expect(
                clean.is_some(),
                format!("nothing left of containers after {signal}"),
                format!("{:?}", yard.remains()?),
            )?;
        }
        // If those are killed as well, the next command cleans up.
        let mut build = yard.begun(dockerfile)?;
        let runs = wait_for(|| sleeping(&yard.root).then_some(()));
        let workers = check::host::children(build.id() as i32)?;
        for worker in &workers {
            kill(Pid::from_raw(worker.pid), Signal::SIGKILL).context("kill")?;
        }
        build.kill().context("kill")?;
        wait_or_kill(&mut build)?;
        expect(
            runs.is_some() && !workers.is_empty(),
            "a process of its own for the container",
            "there is none",
        )?;
        yard.build(&[], "FROM box\nRUN true\n")?.success()?;
        expect_eq(
            "what is left after the next build",
            yard.remains()?,
            Vec::new(),
        )
    });
}

#[test]
fn the_same_is_the_same_everywhere() {
    check(|c| {
        let yard = Site::new(c)?;
        yard.file("src/a", "a\n")?;
        let dockerfile = "FROM box\nCOPY src /src\nWORKDIR /w\nRUN echo x > /x; mkdir -p /d/e; ln \
                          /x /d/hard; rm /linuxrc\n";
        let mut ids = Vec::new();
        for driver in ["overlay2", "overlay2", "vfs"] {
            let options = ["--no-cache", "--storage-driver", driver];
            let step = yard.step(&options, dockerfile)?;
            step.env("SOURCE_DATE_EPOCH", "1700000000")
                .run()?
                .success()?;
            ids.push(yard.id()?);
        }
        expect(
            ids[0] == ids[1] && ids[0] == ids[2],
            "the same image twice, and on another driver, with SOURCE_DATE_EPOCH",
            format!("{ids:?}"),
        )?;
        let time = yard.inside("stat -c %Y /x")?;
        expect_eq("the time of a file", time, "1700000000\n".into())
    });
}

#[test]
fn a_build_hands_over_what_it_has_made() {
    check(|c| {
        let yard = Site::new(c)?;
        let word = c.word("word");
        let dockerfile = format!("FROM box\nRUN echo {word} > /one\nRUN echo 2 > /two\n");
        let at = |name: &str| c.dir().join(name).display().to_string();
        let (id, metadata) = (at("id"), at("metadata"));
        yard.build(
            &["--iidfile", &id, "--metadata-file", &metadata],
            &dockerfile,
        )?
        .success()?;
        let written = fs::read_to_string(&id).context("read the file of --iidfile")?;
        expect_eq("the file of --iidfile", written, yard.id()?)?;
        let text = fs::read_to_string(&metadata).context("read the file of --metadata-file")?;
        let said: Value = serde_json::from_str(&text).context("the file of --metadata-file")?;
        expect_eq(
            "the image in the file of --metadata-file",
            said["containerimage.config.digest"].as_str(),
            Some(&*yard.id()?),
        )?;
        let (tree, tar) = (at("tree"), at("out.tar"));
        for output in [
            format!("type=local,dest={tree}"),
            format!("type=tar,dest={tar}"),
        ] {
            yard.build(&["--output", &output], &dockerfile)?.success()?;
        }
        let found = fs::read_to_string(c.dir().join("tree/one")).context("read tree/one")?;
        expect_eq("a file of --output type=local", found, format!("{word}\n"))?;
        let bytes = fs::read(&tar).context("read the archive")?;
        let names = archive_names(&bytes)?;
        expect(
            names.iter().any(|name| name == "two"),
            "a file of --output type=tar",
            format!("{names:?}"),
        )?;
        // Another store knows nothing but the image, which brings its keys along
        // if it is to.
        let inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1"];
        yard.build(&inline, &dockerfile)?.success()?;
        let saved = at("saved.tar");
        yard.call(&["save", "-o", &saved, "made", "box"])
            .run()?
            .success()?;
        let other = Site(Yard {
            c,
            root: c.dir().join("other"),
            context: yard.context.clone(),
        });
        fs::create_dir(&other.root).context("mkdir")?;
        other.call(&["load", "-q", "-i", &saved]).run()?.success()?;
        other.call(&["tag", "made", "known"]).run()?.success()?;
        let ran = other
            .build(&["--cache-from", "known"], &dockerfile)?
            .success()?;
        expect(
            became(&ran, "RUN echo 2 > /two").contains("CACHED"),
            "layers of the image of --cache-from to be found",
            &ran.stderr,
        )
    });
}

/// The names in an archive.
fn archive_names(bytes: &[u8]) -> Result<Vec<String>> {
    let mut archive = tar::Archive::new(bytes);
    let mut names = Vec::new();
    for entry in archive.entries().context("read the archive")? {
        let entry = entry.context("read the archive")?;
        let path = entry.path().context("a name")?;
        names.push(
            path.display()
                .to_string()
                .trim_start_matches("./")
                .to_owned(),
        );
    }
    Ok(names)
}

//! Checks of step 09: the engine, all steps at once.

#[path = "step_09/archives.rs"]
mod archives;
#[path = "step_09/documents.rs"]
mod documents;
#[path = "step_09/engine.rs"]
mod engine;
#[path = "step_09/hostile_images.rs"]
mod hostile_images;
#[path = "step_09/images.rs"]
mod images;
#[path = "step_09/inherited.rs"]
mod inherited;
#[path = "step_09/keeping.rs"]
mod keeping;
#[path = "step_09/keeping_images.rs"]
mod keeping_images;
#[path = "step_09/layouts.rs"]
mod layouts;
#[path = "step_09/paced.rs"]
mod paced;
#[path = "step_09/safety.rs"]
mod safety;
#[path = "step_09/screen.rs"]
mod screen;
#[path = "step_09/state.rs"]
mod state;
#[path = "step_09/streams.rs"]
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use check::lan::Lan;
use check::prelude::*;
use engine::Engine;

#[test]
fn everything_at_once() {
    check(|c| {
        let engine = Engine::new(c)?;
        let before = host::namespaces("self")?;
        let name = c.word("box");
        let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "50"];
        let options = ["--hostname", &name, "--domainname", "dock"];
        let held = engine
            .run(&[&options[..], &limits].concat())
            .args([engine.image()])
            .hold()?;
        let seen = held.seen();
        for kind in ["uts", "ipc", "pid", "mnt", "net", "cgroup"] {
            expect_new(seen, &before, kind)?;
        }
        expect_eq("the PID inside", seen.pid, 1)?;
        expect_eq("the host name", seen.hostname.as_str(), name.as_str())?;
        expect_eq("the domain name", seen.domainname.as_str(), "dock")?;
        let root = seen.mount("/").map(|mount| mount.fstype.clone());
        expect_eq("the file system of the root", root, Some("overlay".into()))?;
        let memory = check::cgroup::of(held.pid()?)?.read("memory.limit_in_bytes", "memory.max")?;
        expect_eq("the limit on memory", memory.as_str(), "67108864")?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_container_is_named_after_itself() {
    check(|c| {
        let engine = Engine::new(c)?;
        let file = c.dir().join("cid");
        let held = engine
            .run(&["--cidfile", &file.to_string_lossy()])
            .args([engine.image()])
            .hold()?;
        let id = fs::read_to_string(&file).context("read the cidfile")?;
        expect_eq("the length of the id", id.len(), 64)?;
        expect_eq(
            "the host name",
            held.seen().hostname.as_str(),
            id.get(..12).unwrap_or_default(),
        )?;
        held.end()?.success()?;
        engine
            .run(&["--cidfile", &file.to_string_lossy()])
            .args([engine.image(), "true"])
            .run()?
            .expect_error(125, &["cidfile", "exists"])?;
        Ok(())
    });
}

#[test]
fn the_environment_is_not_the_callers() {
    check(|c| {
        let engine = Engine::new(c)?;
        let (secret, passed) = (c.word("secret"), c.word("passed"));
        let file = c.dir().join("env");
        fs::write(&file, "# none\nONE=file\nTWO=\"two\"\n").context("write the file")?;
        let seen = engine
            .run(&["-e", "PASSED", "-e", "ONE=last"])
            .args(["--env-file", &file.to_string_lossy(), engine.image()])
            .env("SECRET", &secret)
            .env("PASSED", &passed)
            .env("HOME", "/nowhere")
            .probe()?;
        expect(
            !seen.env.values().any(|value| *value == secret),
            "only those variables of the caller that were asked for",
            "SECRET: the environment of the launcher was handed on",
        )?;
        let found = |name: &str| seen.env.get(name).cloned().unwrap_or_default();
        expect_eq("PASSED", found("PASSED"), passed)?;
        expect_eq("ONE, said twice", found("ONE"), "last".into())?;
        expect_eq(
            "TWO, with quotes in the file",
            found("TWO"),
            "\"two\"".into(),
        )?;
        expect_eq("HOME of root", found("HOME"), "/root".into())?;
        expect(found("PATH").contains("/usr/sbin"), "a PATH", found("PATH"))?;
        let name = c.word("first");
        let first = engine.run(&["--hostname", &name, engine.image()]).hold()?;
        let joins = format!("container:{}", first.pid()?);
        let second = engine.run(&["--uts", &joins, engine.image()]).probe()?;
        expect_eq(
            "HOSTNAME in the joined UTS namespace",
            second.env.get("HOSTNAME").cloned(),
            Some(name),
        )?;
        first.end()?.success().map(drop)
    });
}

#[test]
fn user_workdir_and_entrypoint() {
    check(|c| {
        let engine = Engine::new(c)?;
        let passwd = engine.image.join("etc/passwd");
        let line = "ada:x:1234:1234::/home/ada:/bin/sh\n";
        let text = fs::read_to_string(&passwd).context("read passwd")? + line;
        fs::write(&passwd, text).context("write passwd")?;
        let seen: Seen = engine
            .run(&["-u", "ada", "-w", "/made/for/it", "--entrypoint", "probe"])
            .args([engine.image(), "report", "--", "-x"])
            .run()?
            .success()?
            .json()?;
        expect_eq("the user IDs", seen.uids, [1234; 3])?;
        expect_eq("the working directory", seen.cwd.as_str(), "/made/for/it")?;
        expect_eq(
            "HOME of ada",
            seen.env.get("HOME").cloned(),
            Some("/home/ada".into()),
        )?;
        expect_eq("the arguments", seen.args, vec!["-x".to_owned()])
    });
}

#[test]
fn the_end_is_passed_on() {
    check(|c| {
        let engine = Engine::new(c)?;
        let run = |words: &[&str]| engine.run(&[]).args([engine.image()]).args(words).run();
        run(&["probe", "exit", "42"])?.expect_status(42)?;
        run(&["no-such-command"])?.expect_error(127, &["no-such-command"])?;
        run(&["/etc"])?.expect_error(126, &["/etc"])?;
        run(&["sh", "-c", "kill -9 $$; sleep 1; exit 3"])?.expect_status(3)?;
        engine
            .run(&["--no-such-option"])
            .args([engine.image(), "true"])
            .run()?
            .expect_status(125)?;
        // What comes after the image is the command's.
        let ran = run(&["echo", "--rm", "-it"])?.success()?;
        expect_eq("the command's arguments", ran.stdout.trim(), "--rm -it")
    });
}

#[test]
fn memory_is_limited_and_its_end_is_said() {
    check(|c| {
        let engine = Engine::new(c)?;
        let ran = engine
            .run(&["-m", "24m"])
            .args([engine.image(), "tail", "/dev/zero"])
            .run()?
            .expect_status(137)?;
        expect(
            ran.stderr.contains("memory"),
            "a line that says why it was killed",
            format!("{:?}", ran.stderr),
        )
    });
}

#[test]
fn a_port_leads_into_the_container() {
    check(|c| {
        let engine = Engine::new(c)?;
        let lan = Lan::enter(c)?;
        let port = 20_000 + c.number(9_000) as u16;
        let word = c.word("hello");
        let publish = format!("127.0.0.1:{port}:80");
        let mut held = engine
            .bridged(&["-p", &publish])
            .args([engine.image(), "probe", "serve", "80", &word])
            .start()?;
        held.read::<Attempt>()?;
        let answer = lan.ask("tcp", [127, 0, 0, 1], port)?;
        expect(
            answer.text.starts_with(&word),
            "the container's answer at the published port",
            format!("{answer:?}"),
        )?;
        held.end()?;
        Ok(())
    });
}

#[test]
fn ten_containers_take_the_images_space_once() {
    check(|c| {
        let engine = Engine::new(c)?;
        // Something to be seen in bytes.
        let big = engine.image.join("big");
        fs::write(&big, vec![7; 16 << 20]).context("write a big file")?;
        engine
            .run(&[])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        let one = engine.space()?;
        let held = (0..10)
            .map(|_| engine.run(&["-m", "32m"]).args([engine.image()]).hold())
            .collect::<Result<Vec<_>>>()?;
        let eleven = engine.space()?;
        for held in held {
            held.end()?.success()?;
        }
        expect(
            eleven < one + (8 << 20),
            "ten containers to take next to nothing beside their image",
            format!(
                "{} KiB, and {} KiB with them: the image was copied",
                one >> 10,
                eleven >> 10
            ),
        )
    });
}

#[test]
fn an_ordinary_user_runs_the_same() {
    check(|c| {
        const USER: u32 = 12_345;
        let before = host::namespaces("self")?;
        let engine = Engine::new(c)?;
        let home = c.dir().join("home");
        fs::create_dir(&home).context("mkdir")?;
        for dir in [&home, &engine.root] {
            chown(dir, Some(USER), Some(USER)).context("chown")?;
        }
        give(&engine.image, USER)?;
        let secret = c.dir().join("secret");
        fs::write(&secret, "x").context("write")?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).context("chmod")?;
        let volume = format!("{}:/secret", secret.display());
        let mut held = engine
            .run(&["-v", &volume, "-v", "data:/data"])
            .args([engine.image()])
            .user(USER)
            .env("HOME", &home)
            .env("DRYDOCK_STATE", &home)
            .hold()?;
        for kind in ["user", "uts", "ipc", "pid", "mnt", "net", "cgroup"] {
            expect_new(held.seen(), &before, kind)?;
        }
        expect_eq("the user inside", held.seen().uids, [0; 3])?;
        expect_eq("the PID inside", held.seen().pid, 1)?;
        expect_eq(
            "the user outside",
            host::status_field(held.pid()?, "Uid").unwrap_or_default(),
            ["12345"; 4].join(" "),
        )?;
        let written: Attempt = held.ask(&["write", "/data/x", "y"])?;
        expect(written.allowed, "a volume to write to", &written.errno)?;
        let read: Attempt = held.ask(&["read", "/secret"])?;
        expect(!read.allowed, "root's file to stay out of reach", "it read")?;
        let ended = held.end()?.success()?;
        expect_eq(
            "what it says when nothing is wrong",
            ended.stderr.as_str(),
            "",
        )?;
        let bridge = engine
            .bridged(&["-p", "80:80"])
            .args([engine.image(), "true"])
            .user(USER)
            .env("HOME", &home)
            .env("DRYDOCK_STATE", &home)
            .run()?;
        bridge.expect_error(125, &["bridge", "root"])?;
        Ok(())
    });
}

fn expect_new(seen: &Seen, before: &BTreeMap<String, u64>, kind: &str) -> Result<()> {
    expect(
        seen.namespaces.get(kind) != before.get(kind),
        format!("a new {kind} namespace"),
        "the host's",
    )
}

/// Gives a tree to a user.
fn give(tree: &std::path::Path, user: u32) -> Result<()> {
    let owner = format!("{user}:{user}");
    let done = std::process::Command::new("chown")
        .args(["-R", &owner])
        .arg(tree)
        .status()
        .context("run chown -R")?;
    expect(done.success(), "chown -R to work", done)
}

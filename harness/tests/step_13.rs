//! Checks of step 13: registries.

#[path = "step_13/ahead.rs"]
mod ahead;
#[path = "step_13/events.rs"]
mod events;
#[path = "step_13/full.rs"]
mod full;
#[path = "step_13/hostile.rs"]
mod hostile;
#[path = "step_13/server.rs"]
mod server;
#[path = "step_13/site.rs"]
mod site;
#[path = "step_13/unpacking.rs"]
mod unpacking;
#[path = "step_13/who.rs"]
mod who;

use std::fs;
use std::process::Command;

use check::prelude::*;
use serde_json::{Value, json};

use server::{INDEX, MANIFEST, Server, digest};
use site::{Site, architecture, archive, build, small_root};

#[test]
fn a_name_leads_where_it_says() {
    check(|c| {
        let site = Site::new(c)?;
        let word = c.word("app");
        // Nobody has said where such a name leads.
        let ran = site.call(&["pull", "-q", &word]).run()?;
        ran.expect_error(1, &[&word, "DRYDOCK_REGISTRY"])?;
        site.configure(&format!("default = \"{}\"\n", site.server.host()))?;
        let hex = "0".repeat(64);
        for (name, path) in [
            (word.clone(), format!("/v2/library/{word}/manifests/latest")),
            (
                format!("{word}:1.2"),
                format!("/v2/library/{word}/manifests/1.2"),
            ),
            (
                format!("team/{word}"),
                format!("/v2/team/{word}/manifests/latest"),
            ),
            (
                format!("{word}:x@sha256:{hex}"),
                format!("/v2/library/{word}/manifests/sha256:{hex}"),
            ),
            (
                site.server.name(&word),
                format!("/v2/{word}/manifests/latest"),
            ),
        ] {
            site.server.asked();
            site.call(&["pull", "-q", &name])
                .run()?
                .expect_error(1, &[&word])?;
            let asked = site.server.asked();
            let asked: Vec<&str> = asked
                .iter()
                .map(|one| &*one.path)
                .filter(|path| path.contains("manifests"))
                .collect();
            expect_eq(
                &format!("what a pull of {name} asks for"),
                asked,
                vec![&*path],
            )?;
        }
        // What is written as a host is one, also where there is a default.
        let ran = site
            .call(&["pull", "-q", &format!("localhost:1/{word}")])
            .run()?;
        ran.expect_error(1, &["localhost:1"])?;
        for bad in ["A", "a:", "a//b", "-a", "a/../b", "a@sha256:00", &hex] {
            site.server.asked();
            let ran = site.call(&["pull", "-q", "--", bad]).run()?;
            let asked = site.server.asked().len();
            expect(
                ran.status != 0 && asked == 0,
                format!("{bad:?} to be refused before anybody is asked"),
                format!("status {}, {asked} requests", ran.status),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_pull_brings_an_image_that_runs() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("team/app", "1")?;
        let name = site.server.name("team/app:1");
        let text = site.said(&["pull", &name])?;
        for line in [format!("Digest: {}", image.digest()), name.clone()] {
            expect(
                text.lines().any(|one| one == line),
                format!("the line {line:?} of pull"),
                &text,
            )?;
        }
        expect(
            !text.contains('\x1b'),
            "no escape codes in a pipe",
            format!("{text:?}"),
        )?;
        site.expect_runs(&name, &image.word)?;
        // By a part of its name, its ID and its digest.
        let by_digest = format!("{}@{}", site.server.name("team/app"), image.digest());
        for other in ["app:1", &image.id()[7..19], &by_digest] {
            site.expect_runs(other, &image.word)?;
        }
        // What is here is not fetched again.
        site.server.asked();
        let text = site.said(&["pull", &name])?;
        let blobs = site.server.count(|one| one.is_blob());
        expect_eq("the blobs that a second pull asks for", blobs, 0)?;
        expect(
            text.contains("Image is up to date"),
            "`Image is up to date`",
            &text,
        )?;
        // The policies of run.
        site.server.asked();
        site.run_image(&[], &name)?.success()?;
        expect_eq(
            "the requests of run for an image that is here",
            site.server.asked().len(),
            0,
        )?;
        let newer = site.image("team/app", "1")?;
        let ran = site
            .run_image(&["--pull", "always", "-q"], &name)?
            .success()?;
        expect_eq(
            "what run --pull always prints",
            ran.stdout.trim(),
            &*newer.word,
        )?;
        let missing = site.image("team/other", "2")?;
        let other = site.server.name("team/other:2");
        let ran = site.run_image(&["--pull", "never"], &other)?;
        expect_eq("the status of run --pull never", ran.status, 125)?;
        let ran = site.run_image(&[], &other)?.success()?;
        expect_eq(
            "what run prints after its pull",
            ran.stdout.trim(),
            &*missing.word,
        )?;
        // In its group, too.
        let third = site.image("team/third", "3")?;
        let name = site.server.name("team/third:3");
        let words = ["container", "run", "--rm", "-q", "--network", "none", &name];
        let ran = site.call(&words).run()?.success()?;
        expect_eq("what container run prints", ran.stdout.trim(), &*third.word)?;
        let fourth = site.server.name("team/fourth:4");
        site.put("team/fourth", "4", &third);
        site.said(&["container", "create", "-q", "--name", "box", &fourth])?;
        site.said(&["container", "rm", "box"]).map(drop)
    });
}

#[test]
fn the_image_for_this_machine_is_chosen() {
    check(|c| {
        let site = Site::new(c)?;
        let other = match architecture() {
            "amd64" => "arm64",
            _ => "amd64",
        };
        let mut index = Vec::new();
        let mut words = Vec::new();
        for platform in [
            ("linux", other),
            ("plan9", architecture()),
            ("linux", architecture()),
        ] {
            let image = site.image("app", &format!("x-{}-{}", platform.0, platform.1))?;
            let mut entry = json!({
                "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
            });
            entry["platform"] = json!({"os": platform.0, "architecture": platform.1});
            index.push(entry);
            words.push(image.word);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": index}).to_string();
        site.server.manifest("app", "1", INDEX, index.as_bytes());
        let name = site.server.name("app:1");
        let text = site.said(&["pull", &name])?;
        let line = format!("Digest: {}", digest(index.as_bytes()));
        expect(
            text.contains(&line),
            format!("{line:?}, that of the index"),
            &text,
        )?;
        site.expect_runs(&name, &words[2])?;
        // Asked for, another one comes.
        let platform = format!("linux/{other}");
        site.said(&["pull", "-q", "--platform", &platform, &name])?;
        site.expect_runs(&name, &words[0])?;
        let ran = site
            .call(&["pull", "-q", "--platform", "linux/mips", &name])
            .run()?;
        ran.expect_error(1, &["no matching manifest", "linux/mips", &platform])?;
        Ok(())
    });
}

#[test]
fn a_push_gives_back_the_same_digest() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("team/app", "1")?;
        let name = site.server.name("team/app:1");
        site.said(&["pull", "-q", &name])?;
        let other = Server::start()?;
        let there = other.name("copy/app:2");
        site.said(&["tag", &name, &there])?;
        let text = site.said(&["push", &there])?;
        let line = format!(
            "2: digest: {} size: {}",
            image.digest(),
            image.manifest.len()
        );
        expect(
            text.contains(&line),
            format!("the line {line:?} of push"),
            &text,
        )?;
        let (kind, bytes) = other
            .stored("copy/app", "2")
            .context("no manifest has come")?;
        expect_eq("the type of the manifest", &*kind, MANIFEST)?;
        expect(
            bytes == image.manifest,
            "the manifest as it came",
            String::from_utf8_lossy(&bytes),
        )?;
        for blob in image.layers.iter().chain([&image.config]) {
            let digest = digest(blob);
            expect(
                other.has("copy/app", &digest),
                format!("blob {digest} to be there"),
                "it is not",
            )?;
        }
        // The manifest names blobs, so it is the last.
        let asked = other.asked();
        let last = asked
            .last()
            .map(|one| format!("{} {}", one.method, one.path));
        expect_eq(
            "the last request of a push",
            last.unwrap_or_default(),
            "PUT /v2/copy/app/manifests/2".to_owned(),
        )?;
        // What is there is not sent again, and what is next door is mounted.
        site.said(&["push", "-q", &there])?;
        let bodies = |asked: &[server::Request]| {
            asked
                .iter()
                .filter(|one| !one.path.contains("manifests"))
                .map(|one| one.body.len())
                .sum::<usize>()
        };
        expect_eq(
            "the bytes of blobs that a second push sends",
            bodies(&other.asked()),
            0,
        )?;
        let beside = other.name("beside:3");
        site.said(&["tag", &name, &beside])?;
        let text = site.said(&["push", &beside])?;
        expect(
            text.contains("Mounted from copy/app"),
            "the layers to be mounted",
            &text,
        )?;
        let asked = other.asked();
        let sent = bodies(&asked);
        expect(
            sent <= image.config.len() && other.has("beside", &digest(&image.layers[0])),
            "no layer to be sent again",
            format!("{sent} bytes"),
        )?;
        // Made here, it comes back from there.
        fs::write(c.dir().join("tar"), small_root()?).context("write a tar")?;
        let tar = c.dir().join("tar").to_string_lossy().into_owned();
        let made = other.name("made:1");
        site.said(&["import", &tar, &made])?;
        site.said(&["push", "-q", &made])?;
        let again = c.dir().join("again");
        site.at(&again, &["pull", "-q", &made]).run()?.success()?;
        let ids = |root| -> Result<String> {
            Ok(site
                .at(root, &["images", "-q", "--no-trunc", &made])
                .run()?
                .success()?
                .stdout)
        };
        expect_eq(
            "the ID of an image that was pushed and pulled",
            ids(&again)?,
            ids(&site.root)?,
        )
    });
}

#[test]
fn an_interrupted_push_goes_on() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let name = site.server.name("app:1");
        site.said(&["pull", "-q", &name])?;
        let (large, half) = (&image.layers[0], image.layers[0].len() / 2);
        // What the registry says of a half of it: the truth; nothing; nonsense.
        for (n, says) in [None, Some((404, "")), Some((204, "0-99999999"))]
            .into_iter()
            .enumerate()
        {
            let other = Server::start()?;
            let there = other.name(&format!("copy{n}:1"));
            site.said(&["tag", &name, &there])?;
            if let Some((status, range)) = says {
                other.rule(move |request, answer| {
                    match request.method == "GET" && request.path.contains("/uploads/") {
                        true => server::Answer { status, ..answer }.with("range", range),
                        false => answer,
                    }
                });
            }
            other.tear(half);
            let text = site.said(&["push", &there])?;
            let line = format!("digest: {} size:", image.digest());
            expect(text.contains(&line), format!("{line:?} of push"), &text)?;
            let sent: Vec<usize> = other
                .asked()
                .iter()
                .filter(|one| matches!(&*one.method, "PATCH" | "PUT"))
                .filter(|one| one.path.contains("/uploads/") && one.body.len() > half - 1000)
                .map(|one| one.body.len())
                .collect();
            let again = match says {
                None => large.len() - half,
                Some(_) => large.len(),
            };
            expect_eq(
                "the bytes of the layer that are sent: all, and after half of them the rest",
                sent,
                vec![large.len(), again],
            )?;
            expect(
                other.has(&format!("copy{n}"), &digest(large)),
                "the layer to be there",
                "it is not",
            )?;
        }
        Ok(())
    });
}

#[test]
fn an_interrupted_pull_goes_on() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let name = site.server.name("app:1");
        let large = digest(&image.layers[0]);
        let half = image.layers[0].len() / 2;
        let ends = large.clone();
        // Cut off once, in the middle.
        site.server.rule(move |request, answer| {
            match request.path.ends_with(&ends) && request.header("range").is_empty() {
                true => answer.sent(server::How::Cut(half)),
                false => answer,
            }
        });
        site.said(&["pull", "-q", &name])?;
        let ranges: Vec<String> = site
            .server
            .asked()
            .iter()
            .filter(|one| one.is_blob() && one.path.ends_with(&large))
            .map(|one| one.header("range").to_owned())
            .collect();
        expect_eq(
            "what is asked for after a cut",
            ranges,
            vec![String::new(), format!("bytes={half}-")],
        )?;
        site.expect_runs(&name, &image.word)?;
        // Registries that have no such part, or send the whole instead.
        for status in [200, 416] {
            site.said(&["rmi", &name])?;
            let whole = image.layers[0].clone();
            let (ends, first) = (large.clone(), std::sync::atomic::AtomicBool::new(true));
            site.server.rule(move |request, answer| {
                if !request.path.ends_with(&ends) {
                    return answer;
                }
                let range = request.header("range").to_owned();
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    return answer.sent(server::How::Cut(half));
                }
                match (status, range.is_empty()) {
                    (_, true) => answer,
                    (200, false) => server::Answer::new(200, whole.clone()),
                    (_, false) => server::Answer::new(416, ""),
                }
            });
            let ran = site.call(&["pull", "-q", &name]).run()?;
            expect_eq(
                &format!("the status of a pull with {status} in answer to a range"),
                ran.status,
                0,
            )?;
            site.expect_runs(&name, &image.word)?;
        }
        Ok(())
    });
}

#[test]
fn a_killed_pull_leaves_a_whole_store() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let name = site.server.name("app:1");
        let large = digest(&image.layers[0]);
        let half = image.layers[0].len() / 2;
        let ends = large.clone();
        site.server
            .rule(move |request, answer| match request.path.ends_with(&ends) {
                true => answer.sent(server::How::Held(half)),
                false => answer,
            });
        let mut pull = site.begun(&["pull", "-q", &name])?;
        let partial = site.root.join("images/blobs/partial").join(&large[7..]);
        let arrived = wait_for(|| {
            let length = fs::metadata(&partial).ok()?.len();
            (length >= half as u64).then_some(())
        });
        pull.kill().context("kill")?;
        pull.wait().context("wait")?;
        expect(arrived.is_some(), "half a layer to arrive", "it does not")?;
        site.server.go_on();
        site.server.honest();
        site.expect_no_image("a pull that was killed")?;
        let whole = site.left_in("images/blobs/sha256");
        expect(
            !whole.contains(&large[7..].to_owned()),
            "no blob that is half",
            format!("{whole:?}"),
        )?;
        site.server.asked();
        site.said(&["pull", "-q", &name])?;
        let asked = site.server.asked();
        let range = asked
            .iter()
            .find(|one| one.path.ends_with(&large))
            .map(|one| one.header("range").to_owned());
        expect_eq(
            "what the next pull asks for",
            range,
            Some(format!("bytes={half}-")),
        )?;
        site.expect_runs(&name, &image.word)
    });
}

#[test]
fn two_pulls_share_the_work() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let name = site.server.name("app:1");
        let large = digest(&image.layers[0]);
        let ends = large.clone();
        site.server
            .rule(move |request, answer| match request.path.ends_with(&ends) {
                true => answer.sent(server::How::Held(1000)),
                false => answer,
            });
        let mut first = site.begun(&["pull", "-q", &name])?;
        let of_layer = |one: &server::Request| one.is_blob() && one.path.ends_with(&large);
        let asked = wait_for(|| (site.server.count(of_layer) > 0).then_some(()));
        expect(
            asked.is_some(),
            "the first pull to ask for the layer",
            "it does not",
        )?;
        let mut second = site.begun(&["pull", "-q", &name])?;
        // It knows the manifest, and then waits.
        let manifests = wait_for(|| {
            let known = site.server.count(|one| one.is_manifest()) >= 2;
            let sleeps = host::process(second.id() as i32)?.state == 'S';
            (known && sleeps).then_some(())
        });
        expect(
            manifests.is_some(),
            "the second pull to ask for the manifest",
            "it does not",
        )?;
        site.server.go_on();
        for (which, pull) in [("first", &mut first), ("second", &mut second)] {
            let status = wait_or_kill(pull)?;
            expect_eq(&format!("the status of the {which} pull"), status, Some(0))?;
        }
        expect_eq(
            "how often the layer was asked for",
            site.server.count(of_layer),
            1,
        )?;
        site.expect_runs(&name, &image.word)
    });
}

#[test]
fn a_commit_keeps_what_it_does_not_know() {
    check(|c| {
        let site = Site::new(c)?;
        let (word, mark) = (c.word("word"), c.word("mark"));
        let config = json!({
            "Cmd": ["cat", "/etc/word"], "Env": ["PATH=/bin", "A=1"],
            "Shell": ["/bin/sh", "-e"], "OnBuild": ["RUN true"],
            "x-note": &mark, "workingdir": "/etc",
        });
        let image = site.image_of("app", "1", &[small_root()?], config, &word)?;
        let name = site.server.name("app:1");
        site.said(&["pull", "-q", &name])?;
        let script = format!("echo {word} > /etc/word; rm /bin/env");
        site.said(&[
            "run",
            "--network",
            "none",
            "--name",
            "box",
            &name,
            "sh",
            "-c",
            &script,
        ])?;
        let new = site.server.name("app:2");
        let words = [
            "commit",
            "-a",
            "me",
            "-m",
            &mark,
            "-c",
            "CMD [\"cat\", \"/etc/word\"]",
            "-c",
            "ENV A=2",
            "box",
            &new,
        ];
        let id = site.said(&words)?;
        site.expect_runs(&new, &word)?;
        let removed = site
            .call(&["run", "--rm", "--network", "none", &new, "ls", "/bin/env"])
            .run()?;
        expect_eq("the status of ls of what was removed", removed.status, 1)?;
        let all: Value = site
            .call(&["image", "inspect", &new])
            .run()?
            .success()?
            .json()?;
        let now = &all[0];
        expect_eq("its ID", now["Id"].as_str().unwrap_or_default(), &*id)?;
        for (path, value) in [
            ("/Config/x-note", json!(mark)),
            ("/Config/WorkingDir", json!("/etc")),
            ("/Config/Env", json!(["PATH=/bin", "A=2"])),
            ("/Author", json!("me")),
            ("/RootFS/Layers/0", json!(digest(&small_root()?))),
        ] {
            expect_eq(
                &format!("{path} of image inspect"),
                now.pointer(path),
                Some(&value),
            )?;
        }
        for path in ["/Config/OnBuild", "/Config/Shell"] {
            expect_eq(
                &format!("{path}, which is for builds on the image below"),
                now.pointer(path),
                None,
            )?;
        }
        commits_the_options(&site, &name)?;
        let history = site.said(&["history", "--no-trunc", &new])?;
        let lines: Vec<&str> = history.lines().collect();
        expect(
            lines.len() == 3
                && lines[1].starts_with(&id)
                && lines[1].contains(&mark)
                && lines[2].starts_with("<missing>")
                && lines[2].contains("layer 0"),
            "the history of both layers, the newest first, the older as <missing>",
            &history,
        )?;
        // And it can be pushed: the layer below is the one that was pulled.
        site.said(&["push", "-q", &new])?;
        let (_, manifest) = site
            .server
            .stored("app", "2")
            .context("no manifest has come")?;
        let manifest: Value = serde_json::from_slice(&manifest).context("the manifest")?;
        expect_eq(
            "the lower layer of what is pushed",
            manifest["layers"][0]["digest"].as_str().unwrap_or_default(),
            &*digest(&image.layers[0]),
        )?;
        let tar = c.dir().join("export.tar");
        let path = tar.to_string_lossy().into_owned();
        site.said(&["export", "-o", &path, "box"])?;
        let listed = Command::new("tar")
            .args(["-xOf", &path, "etc/word"])
            .output()
            .context("run tar")?;
        expect_eq(
            "the file in the export",
            String::from_utf8_lossy(&listed.stdout).trim(),
            &*word,
        )?;
        site.said(&["rm", "box"]).map(drop)
    });
}

/// The options of a container, and `--change` on top of them, become the
/// defaults of the image that is made of it.
fn commits_the_options(site: &Site, image: &str) -> Result<()> {
    let options = [
        "create",
        "--name",
        "made",
        "-u",
        "1000:7",
        "--expose",
        "99",
        "-v",
        "/vol",
        "--stop-signal",
        "SIGINT",
        "--health-cmd",
        "x",
        "-e",
        "HOME=/x",
        "--entrypoint",
        "sh",
        image,
        "-c",
        "id -u",
    ];
    site.said(&options)?;
    let change = "LABEL a=$A\nEXPOSE 80-81\nWORKDIR /${A}";
    site.said(&["commit", "-c", change, "made", "made"])?;
    let all: Value = site
        .call(&["image", "inspect", "made"])
        .run()?
        .success()?
        .json()?;
    for (field, value) in [
        ("User", json!("1000:7")),
        (
            "ExposedPorts",
            json!({"80/tcp": {}, "81/tcp": {}, "99/tcp": {}}),
        ),
        ("Volumes", json!({"/vol": {}})),
        ("StopSignal", json!("SIGINT")),
        ("Healthcheck", json!({"Test": ["CMD-SHELL", "x"]})),
        ("Env", json!(["PATH=/bin", "A=1", "HOME=/x"])),
        ("Entrypoint", json!(["sh"])),
        ("Cmd", json!(["-c", "id -u"])),
        ("Labels", json!({"a": "1"})),
        ("WorkingDir", json!("/1")),
    ] {
        expect_eq(
            &format!("/Config/{field} of an image of a container with options"),
            &all[0]["Config"][field],
            &value,
        )?;
    }
    site.said(&["rm", "made"]).map(drop)
}

#[test]
fn garbage_goes_and_nothing_else() {
    check(|c| {
        let site = Site::new(c)?;
        let base = small_root()?;
        let (one, two) = (c.word("one"), c.word("two"));
        let mut built = Vec::new();
        for (tag, word) in [("1", &one), ("2", &two)] {
            let top = archive(&[("etc/word", word.as_bytes())])?;
            let config = json!({"Cmd": ["cat", "/etc/word"]});
            built.push(site.image_of("app", tag, &[base.clone(), top], config, word)?);
            site.said(&["pull", "-q", &site.server.name(&format!("app:{tag}"))])?;
        }
        let blobs = || site.left_in("images/blobs/sha256");
        expect_eq(
            "the blobs of two images that share a layer",
            blobs().len(),
            7,
        )?;
        site.said(&["rmi", &site.server.name("app:1")])?;
        expect_eq("the blobs after one is removed", blobs().len(), 4)?;
        site.expect_runs(&site.server.name("app:2"), &two)?;
        // Those of a pull that runs belong to no image yet.
        let word = c.word("late");
        let tars = [
            archive(&[("etc/first", word.as_bytes())])?,
            base.clone(),
            archive(&[("etc/word", word.as_bytes())])?,
        ];
        let config = json!({"Cmd": ["cat", "/etc/word"]});
        let late = site.image_of("late", "1", &tars, config, &word)?;
        let (first, last) = (digest(&late.layers[0]), digest(&late.layers[2]));
        let ends = last.clone();
        site.server
            .rule(move |request, answer| match request.path.ends_with(&ends) {
                true => answer.sent(server::How::Held(10)),
                false => answer,
            });
        let name = site.server.name("late:1");
        let mut pull = site.begun(&["pull", "-q", &name])?;
        let there = wait_for(|| blobs().contains(&first[7..].to_owned()).then_some(()));
        expect(there.is_some(), "the first layer to arrive", "it does not")?;
        site.said(&["image", "prune", "-f"])?;
        let kept = blobs().contains(&first[7..].to_owned());
        site.server.go_on();
        let status = wait_or_kill(&mut pull)?;
        expect(
            kept,
            "prune to keep what a running pull has fetched",
            "it is gone",
        )?;
        expect_eq("the status of the pull", status, Some(0))?;
        site.expect_runs(&name, &late.word)?;
        // A name that moves leaves an image without one.
        site.server.honest();
        let newer = site.image("app", "2")?;
        site.said(&["pull", "-q", &site.server.name("app:2")])?;
        let dangling = site.said(&["images", "-q", "-f", "dangling=true"])?;
        expect_eq(
            "the images without a name",
            &*dangling,
            &built[1].id()[7..19],
        )?;
        // Only `y` says so, as in Docker.
        site.call(&["image", "prune"])
            .stdin("yes\n")
            .run()?
            .success()?;
        let left = site.said(&["images", "-q"])?;
        expect_eq("the images after \"yes\"", left.lines().count(), 3)?;
        site.call(&["image", "prune"])
            .stdin("y\n")
            .run()?
            .success()?;
        let left = site.said(&["images", "-q"])?;
        expect_eq("the images after prune", left.lines().count(), 2)?;
        site.expect_runs(&site.server.name("app:2"), &newer.word)?;
        // Filters of prune, and what it frees.
        let large = archive(&[("large", &full::noise(4 << 20))])?;
        let config = json!({"Labels": {"keep": "yes"}});
        site.image_of("large", "1", &[large], config, "")?;
        let name = site.server.name("large:1");
        site.said(&["pull", "-q", &name])?;
        let size = || -> Result<f64> {
            let words = ["system", "df", "--format", "{{.Type}} {{.Size}}"];
            let text = site.said(&words)?;
            let size = text.lines().find_map(|line| line.strip_prefix("Images "));
            let size = size.context("no line of images in system df")?;
            match size.strip_suffix("MB") {
                Some(megabytes) => megabytes.parse().context("a size in MB"),
                None => Ok(0.0),
            }
        };
        let with = size()?;
        site.said(&["image", "prune", "-a", "-f", "--filter", "label!=keep=yes"])?;
        let left = site.said(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
        expect_eq("the images after prune of others", &*left, &*name)?;
        let alone = size()?;
        expect(
            with > alone && alone > 8.0,
            "system df to count the layers of 4 MiB and the blobs of 4 MiB",
            format!("{with} MB, and {alone} MB after prune"),
        )?;
        let words = ["image", "prune", "-a", "-f", "--filter", "label=keep"];
        site.said(&words)?;
        expect_eq("the megabytes of no image", size()?, 0.0)
    });
}

#[test]
fn an_archive_keeps_the_digests() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let name = site.server.name("app:1");
        site.said(&["pull", "-q", &name])?;
        let path = c.dir().join("saved.tar").to_string_lossy().into_owned();
        site.said(&["save", "-o", &path, &name])?;
        let again = c.dir().join("again");
        let load = site.at(&again, &["load", "-i", &path]).run()?.success()?;
        expect_eq(
            "what load prints",
            load.stdout.trim(),
            &*format!("Loaded image: {name}"),
        )?;
        // The first that anybody asks of a new state directory.
        let files = c.dir().join("files.tar");
        fs::write(&files, small_root()?).context("write a tar")?;
        let files = files.to_string_lossy().into_owned();
        for (n, words) in [["load", "-i", &path], ["import", &files, "files"]]
            .iter()
            .enumerate()
        {
            let new = c.dir().join(format!("new{n}"));
            let [verb, rest @ ..] = words;
            let call = [&[*verb, "--storage-driver", "vfs"], &rest[..]].concat();
            site.at(&new, &call).run()?.success()?;
        }
        site.server.asked();
        let pushed = site.at(&again, &["push", &name]).run()?.success()?;
        let line = format!("digest: {} size:", image.digest());
        expect(
            pushed.stdout.contains(&line),
            format!("{line:?} of push"),
            &pushed.stdout,
        )?;
        // The same twice, so that an archive can be compared.
        let twice = c.dir().join("twice.tar").to_string_lossy().into_owned();
        site.said(&["save", "-o", &twice, &name])?;
        let same = fs::read(&path).context("read")? == fs::read(&twice).context("read")?;
        expect(same, "two archives of an image to be equal", "they differ")?;
        // containerd takes the name as it is.
        site.said(&["tag", &name, "short"])?;
        let short = c.dir().join("short.tar").to_string_lossy().into_owned();
        site.said(&["save", "-o", &short, "short"])?;
        let saved = fs::read(&short).context("read")?;
        let full = br#""io.containerd.image.name":"docker.io/library/short:latest""#;
        expect(
            saved.windows(full.len()).any(|part| part == full),
            "the archive of `short` to have its full name",
            "it has not",
        )
    });
}

#[test]
fn other_engines_take_it() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let registry = who::Registry::start(c, None)?;
        let name = site.server.name("app:1");
        site.said(&["pull", "-q", &name])?;
        let there = format!("{}/team/app:1", registry.host);
        site.said(&["tag", &name, &there])?;
        site.said(&["push", "-q", &there])?;
        let skopeo = |words: &[&str]| -> Result<String> {
            // Its policy is a file of another package.
            let done = Command::new("skopeo")
                .arg("--insecure-policy")
                .args(words)
                .output()
                .context("run skopeo")?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            expect(
                done.status.success(),
                format!("skopeo {words:?} to succeed"),
                said,
            )?;
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        };
        let from = format!("docker://{there}");
        let found = skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &from,
        ])?;
        expect_eq(
            "the digest that skopeo finds",
            found.trim(),
            &*image.digest(),
        )?;
        // Through its hands, and back.
        let to = format!("docker://{}/other:1", registry.host);
        skopeo(&[
            "copy",
            "-q",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &from,
            &to,
        ])?;
        let v2s2 = format!("docker://{}/v2s2:1", registry.host);
        skopeo(&[
            "copy",
            "-q",
            "--format",
            "v2s2",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &from,
            &v2s2,
        ])?;
        let again = c.dir().join("again");
        for (tag, equal) in [("other:1", true), ("v2s2:1", false)] {
            let name = format!("{}/{tag}", registry.host);
            let pulled = site.at(&again, &["pull", &name]).run()?.success()?.stdout;
            let same = pulled.contains(&image.digest());
            expect(
                !equal || same,
                format!("a pull of {tag} to find {}", image.digest()),
                &pulled,
            )?;
            let words = ["run", "--rm", "--network", "none", &name];
            let ran = site.at(&again, &words).run()?.success()?;
            expect_eq("what it prints", ran.stdout.trim(), &*image.word)?;
            let digest = pulled
                .lines()
                .find_map(|line| line.strip_prefix("Digest: "));
            let pushed = site.at(&again, &["push", &name]).run()?.success()?.stdout;
            let digest = digest.unwrap_or("no digest");
            expect(
                pushed.contains(digest),
                format!("a push of {tag} to give back {digest}"),
                &pushed,
            )?;
        }
        Ok(())
    });
}

/// The parts of an image whose manifest `edit` changes.
fn edited(site: &Site<'_>, tag: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let word = site.c.word("word");
    let top = archive(&[("etc/word", word.as_bytes())])?;
    let built = build(&[small_root()?, top], json!({"Cmd": ["true"]}), &word)?;
    site.put("app", tag, &built);
    let mut manifest: Value = serde_json::from_slice(&built.manifest).context("the manifest")?;
    edit(&mut manifest);
    let bytes = manifest.to_string();
    site.server.manifest("app", tag, MANIFEST, bytes.as_bytes());
    Ok(())
}

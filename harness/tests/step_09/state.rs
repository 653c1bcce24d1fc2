//! What containers keep on the host: whose it is at each moment, what becomes of
//! it when nobody is left, and whom the engine believes.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use check::prelude::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::paced::{Then, beside, names, paced, settled};

/// The parent group of a check's containers: apart from those of others on the
/// host, whose groups come, go and are swept meanwhile.
fn apart(c: &Check) -> Result<String> {
    let name = c.dir().file_name().and_then(|name| name.to_str());
    Ok(name
        .context("the name of the check's directory")?
        .to_owned())
}

/// Where containers leave things: in the state directories, and the groups.
fn places(c: &Check, engine: &Engine<'_>) -> Result<Vec<PathBuf>> {
    let parts = [
        "overlay2",
        "containers",
        "containers/names",
        "volumes",
        "run/overlay2",
    ];
    let mut places: Vec<PathBuf> = parts.iter().map(|part| engine.root.join(part)).collect();
    places.push(c.dir().join("net/net"));
    for mount in host::mounts("self").unwrap_or_default() {
        if mount.fstype.starts_with("cgroup") {
            places.push(Path::new(&mount.mount_point).join(apart(c)?));
        }
    }
    Ok(places)
}

/// Waits for another launcher, which has nothing to say.
fn in_peace(other: Held) -> Result<()> {
    let ran = other.wait()?.success()?;
    expect_eq("what the others said", ran.stderr.as_str(), "")
}

/// A first container, so that what stays is there.
fn begun(engine: &Engine<'_>) -> Result<()> {
    let run = engine.run(&["-v", "begun:/v"]);
    run.args([engine.image(), "true"]).run()?.success()?;
    Ok(())
}

#[test]
fn nobody_is_taken_for_dead_while_he_starts() {
    check(|c| {
        let engine = Engine::new(c)?;
        begun(&engine)?;
        let places = places(c, &engine)?;
        let before = names(&places);
        let (mut came, mut waiting) = (0, Vec::new());
        let group = ["--cgroup-parent", &apart(c)?];
        let step = engine.run(&["-v", "/data"]).args(group);
        let step = step.args([engine.image(), "true"]);
        let mut seen = before.clone();
        let ended = paced(&step, &places, |_, now| {
            // A launcher looks for the dead in the notes, the groups and the
            // network, the tools in the records, the names and the volumes.
            let of = |parts: &[&str]| {
                let mut changed = now.symmetric_difference(&seen);
                changed.any(|name| {
                    let below = |part: &&str| name.starts_with(engine.root.join(part));
                    parts.iter().any(below)
                })
            };
            // Every second moment will do, but for the notes: theirs is one. Launchers that
            // were waiting may have changed records meanwhile.
            let of_notes = of(&["run"]);
            let of_tools = of(&["containers", "volumes"]) && !of_notes;
            came += 1;
            if came % 2 == 0 && !of_notes {
                seen = names(&places);
                return Ok(Then::GoOn);
            }
            let looks = match of_tools {
                true => engine.tool(["ps", "-a", "-q"]),
                false => engine.run(&group).args([engine.image(), "true"]),
            };
            let other = beside(looks)?;
            match host::process(other.launcher()).is_none_or(|process| process.state == 'Z') {
                true => in_peace(other)?,
                // For a lock of the one that stands still.
                false => waiting.push(other),
            }
            seen = names(&places);
            Ok(Then::GoOn)
        })?;
        expect(
            ended.status == 0 && ended.stderr.is_empty(),
            "a container to start while others do, whenever they look for the dead",
            format!("status {}: {}", ended.status, ended.stderr.trim()),
        )?;
        expect(came > 5, "some names to come and go", came)?;
        for other in waiting {
            in_peace(other)?;
        }
        let after = names(&places);
        let more: Vec<_> = after.difference(&before).collect();
        expect(more.is_empty(), "nothing to be left", format!("{more:?}"))
    });
}

#[test]
fn whenever_a_launcher_is_killed_the_next_run_takes_all_away() {
    check(|c| {
        let engine = Engine::new(c)?;
        begun(&engine)?;
        let places = places(c, &engine)?;
        let before = names(&places);
        // Alternately one that is removed at its end, and one that is kept. Every
        // fifth moment will do, another fifth with each seed.
        let mut left = BTreeSet::new();
        let group = ["--cgroup-parent", &apart(c)?];
        for nth in (1 + c.number(5) as usize..).step_by(5) {
            let name = format!("box{nth}");
            let mut words = vec!["run", "--network", "none", "--name", &name, "-v", "/data"];
            words.extend(group);
            if nth % 2 == 0 {
                words.push("--rm");
            }
            let step = engine.tool(words).args([engine.image(), "true"]);
            let mut killed = false;
            paced(&step, &places, |moment, now| {
                killed = moment == nth;
                left.extend(now.difference(&before).cloned());
                Ok(if killed { Then::Kill } else { Then::GoOn })
            })?;
            if !killed {
                break;
            }
        }
        expect(
            !left.is_empty(),
            "killed launchers to leave something",
            "nothing",
        )?;
        let next = engine.run(&group).args([engine.image(), "true"]);
        next.run()?.success()?;
        let listed = engine.tool(["ps", "-a", "-q"]).run()?.success()?;
        for id in listed.stdout.lines() {
            engine.tool(["rm", id]).run()?.success()?;
        }
        let after = names(&places);
        let more: Vec<_> = after.difference(&before).collect();
        expect(
            more.is_empty(),
            "the next run, and rm of what ps lists, to leave nothing",
            format!("{more:?}"),
        )
    });
}

#[test]
fn a_file_that_stays_keeps_nobody_from_starting() {
    check(|c| {
        let engine = Engine::new(c)?;
        begun(&engine)?;
        let name = c.word("box");
        let script = "mkdir -p /a/stuck /a/b; echo x > /a/b/frozen; echo x > /a/b/file";
        engine
            .tool(["run", "--network", "none", "--name", &name, engine.image()])
            .args(["sh", "-c", script])
            .run()?
            .success()?;
        let layers = engine.root.join("overlay2");
        let at = |file: &str| -> Result<PathBuf> {
            let found = names(std::slice::from_ref(&layers)).into_iter();
            let mut found = found.map(|layer| layer.join("diff").join(file));
            found
                .find(|path| path.exists())
                .context("the layer is gone")
        };
        let (stuck, frozen) = (at("a/stuck")?, at("a/b/frozen")?);
        // Not every file system has these flags.
        Command::new("chattr").arg("+i").arg(&frozen).output().ok();
        mount(
            Some("none"),
            &stuck,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("mount")?;
        fs::write(stuck.join("foreign"), "x").context("write")?;
        let tried = (|| {
            let ran = engine.tool(["rm", &name]).run()?.success()?;
            expect(
                ran.stderr.lines().count() == 1 && ran.stderr.contains("mount point"),
                "one line that says what stays, and why",
                format!("{:?}", ran.stderr),
            )?;
            let ran = engine
                .run(&[])
                .args([engine.image(), "true"])
                .run()?
                .success()?;
            expect_eq("what the next run says", ran.stderr.as_str(), "")?;
            let stays = at("a/stuck")?;
            expect(
                stays.join("foreign").exists(),
                "what is mounted in a layer to be left alone",
                "its files removed",
            )?;
            expect(
                at("a/b/file").is_err(),
                "all but the mount point to go",
                "other files still there",
            )
        })();
        let stays = at("a/stuck").unwrap_or(stuck);
        umount2(&stays, MntFlags::MNT_DETACH).context("umount")?;
        tried?;
        begun(&engine)?;
        let dotted = names(&[layers]).into_iter();
        let dotted = dotted.filter(|path| path.to_string_lossy().contains("/."));
        expect_eq("what is left once it can be removed", dotted.count(), 0)
    });
}

#[test]
fn what_could_not_be_removed_goes_with_the_next_run() {
    check(|c| {
        let engine = Engine::new(c)?;
        let volumes = engine.root.join("volumes");
        let there = || -> Vec<PathBuf> {
            let all = names(std::slice::from_ref(&volumes)).into_iter();
            let is_lock = |path: &PathBuf| path.ends_with(".lock");
            all.filter(|path| !is_lock(path)).collect()
        };
        let held = engine.run(&["-v", "/data"]).args([engine.image()]).hold()?;
        let made = there();
        expect_eq("the volumes of the container", made.len(), 1)?;
        let volume = &made[0];
        // A directory on which something is mounted cannot be renamed: EBUSY.
        mount(
            Some("none"),
            volume,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("mount")?;
        let ended = held
            .end()
            .and_then(|ran| ran.expect_error(125, &["volumes: cleanup", "resource busy"]));
        umount2(volume, MntFlags::MNT_DETACH).context("umount")?;
        ended?;
        expect_eq("the volumes that stay", there().len(), 1)?;
        engine
            .run(&[])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        expect_eq("the volumes after the next run", there().len(), 0)
    });
}

#[test]
fn directories_that_are_read_only_go_without_root() {
    check(|c| {
        let engine = Engine::new(c)?;
        let uid = 20_000 + c.number(10_000) as u32;
        let own = c.dir().join("own");
        fs::create_dir(&own).context("mkdir")?;
        chown(&own, Some(uid), Some(uid)).context("chown")?;
        let root = own.join("root");
        let drydock = |words: &[&str]| {
            c.step()
                .user(uid)
                .env("HOME", &own)
                .args(["--root".as_ref(), root.as_os_str()])
                .args(words)
        };
        let image = engine.image();
        let run = ["run", "--rm", "--network", "none", image, "sh", "-c"];
        let script = "mkdir -p /go/a/b; echo x > /go/a/b/f; chmod 0 /go/a/b; chmod 555 /go/a /go";
        for script in [script, "true"] {
            let ran = drydock(&[&run[..], &[script]].concat()).run()?.success()?;
            expect_eq("what is said", ran.stderr.as_str(), "")?;
        }
        let left: Vec<_> = names(&[root.join("overlay2"), root.join("run/overlay2")])
            .into_iter()
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.len() == 64 || name.starts_with('.') && name != ".lock"
            })
            .collect();
        expect(left.is_empty(), "its layer to go", format!("{left:?}"))
    });
}

#[test]
fn records_of_others_are_not_believed() {
    check(|c| {
        let engine = Engine::new(c)?;
        let name = c.word("box");
        let mut victim = Command::new("sleep").arg("60").spawn().context("sleep")?;
        let held = engine
            .run(&["--name", &name])
            .args([engine.image()])
            .hold()?;
        let state = engine.root.join("containers");
        let path = names(std::slice::from_ref(&state))
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "json"))
            .context("no record")?;
        let text = fs::read_to_string(&path).context("read")?;
        let record: Value = serde_json::from_str(&text).context("a record")?;
        let tried = (|| {
            // A process that is none of the container's.
            let mut planted = record.clone();
            planted["pid"] = json!(victim.id());
            fs::write(&path, planted.to_string()).context("write")?;
            engine
                .tool(["stop", &name])
                .run()?
                .expect_error(125, &[&name, "does not belong to it"])?;
            let alive = host::process(victim.id() as i32).is_some_and(|p| p.state != 'Z');
            expect(alive, "stop to leave others' processes alone", "one killed")?;
            fs::write(&path, &text).context("write")?;

            // Things that are no records, beside one that is.
            let other = |digit: &str| state.join(format!("{}.json", digit.repeat(64)));
            fs::write(other("0"), "{").context("write")?;
            symlink("/etc/passwd", other("1")).context("symlink")?;
            mkfifo(&other("2"), Mode::S_IRWXU).context("mkfifo")?;
            let huge = fs::File::create(other("3")).context("create")?;
            huge.set_len(1 << 40).context("ftruncate")?;
            let mut climbs = record.clone();
            climbs["id"] = json!("../../../etc");
            fs::write(other("4"), climbs.to_string()).context("write")?;
            fs::write(
                other("5"),
                text.replace(record["id"].as_str().unwrap_or(""), &"5".repeat(64)),
            )
            .context("write")?;
            fs::set_permissions(other("5"), Permissions::from_mode(0o666)).context("chmod")?;
            let ran = engine.tool(["ps", "-q"]).run()?.success()?;
            expect_eq("the containers", ran.stdout.lines().count(), 1)?;
            for digit in ["0", "1", "2", "3", "4", "5"] {
                expect(
                    ran.stderr.contains(&digit.repeat(64)),
                    "each file that is not a record to be named",
                    format!("{:?}", ran.stderr),
                )?;
                fs::remove_file(other(digit)).context("unlink")?;
            }

            // A whole directory of somebody else's.
            for (owner, mode) in [(Some(12_345), 0o755), (Some(0), 0o777)] {
                chown(&state, owner, owner).context("chown")?;
                fs::set_permissions(&state, Permissions::from_mode(mode)).context("chmod")?;
                for words in [&["stop", &name][..], &["ps"], &["rm", "-f", &name]] {
                    let ran = engine.tool(words).run()?;
                    ran.expect_error(125, &["containers", "not to be trusted"])?;
                }
            }
            Ok(())
        })();
        chown(&state, Some(0), Some(0)).context("chown")?;
        fs::set_permissions(&state, Permissions::from_mode(0o700)).context("chmod")?;
        held.signal(Signal::SIGTERM).ok();
        held.end()?;
        victim.kill().context("kill")?;
        victim.wait().context("wait")?;
        tried
    });
}

#[test]
fn a_volume_is_held_from_the_first_moment() {
    check(|c| {
        let engine = Engine::new(c)?;
        begun(&engine)?;
        let places = places(c, &engine)?;
        let name = c.word("vol");
        let volume = format!("{name}:/data");
        let step = engine
            .run(&["-v", &volume, "--cgroup-parent", &apart(c)?])
            .args([engine.image(), "touch", "/data/made"]);
        let (mut removers, mut has_record) = (Vec::new(), false);
        let ended = paced(&step, &places, |_, now| {
            for remover in &removers {
                settled(remover)?;
            }
            // Before there is a record that says so.
            let records = engine.root.join("containers");
            let recorded = now.iter().any(|path| {
                path.parent() == Some(&records) && path.extension().is_some_and(|end| end == "json")
            });
            has_record |= recorded;
            if !has_record && now.contains(&engine.root.join("volumes").join(&name)) {
                removers.push(beside(engine.tool(["volume", "rm", &name]))?);
            }
            Ok(Then::GoOn)
        })?;
        let (mut refused, tried) = (0, removers.len());
        for remover in removers {
            refused += usize::from(remover.wait()?.status != 0);
        }
        let made = engine.root.join("volumes").join(&name).join("_data/made");
        expect(
            tried > 0 && refused == tried && made.exists(),
            "no removal of a volume that a container has, or is about to have",
            format!(
                "{refused} of {tried} refused, and made there: {}",
                made.exists()
            ),
        )?;
        expect_eq("its exit status", ended.status, 0)
    });
}

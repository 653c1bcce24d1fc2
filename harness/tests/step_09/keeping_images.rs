//! How images are kept: once, whole, and no longer than wanted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use check::prelude::*;
use serde_json::json;

use crate::layouts::{Layout, State, bytes_of, file, gzip, small_root, tar, tar_of};
use crate::paced::{Then, paced};

#[test]
fn image_takes_its_space_once() {
    check(|c| {
        let state = State::new(c)?;
        let archive = c.dir().join("debian.tar");
        fs::write(&archive, tar_of(&c.debian()?)?)?;
        let archive = archive.to_string_lossy().into_owned();
        state
            .drydock(&["import", &archive, "debian"])
            .run()?
            .success()?;
        fs::remove_file(&archive)?;
        let before = bytes_of(&state.root)?;
        let image = state.layers("overlay2").pop().unwrap_or_default();
        let mut running: Vec<Child> = Vec::new();
        for n in 0..10 {
            let script = format!("echo {n} > /own; cat /own /etc/debian_version; read line");
            let mut command = state
                .drydock(&["run", "--rm", "-i", "--network", "none", "debian"])
                .args(["sh", "-c", &script])
                .command();
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped());
            running.push(child.spawn().context("start a container")?);
        }
        // A copy shows long before it is whole, and a machine may take minutes
        // for ten of them.
        let look = || {
            let (mut own, mut added) = (0, 0);
            for id in state.layers("overlay2") {
                if id != image {
                    let layer = state.root.join("overlay2").join(id).join("diff");
                    added += bytes_of(&layer).ok()?;
                    own += usize::from(layer.join("own").exists());
                }
            }
            (own == 10 || added > before / 10).then_some((own, added))
        };
        let seen = (0..6).find_map(|_| wait_for(look));
        for mut child in running {
            if seen.is_none_or(|(own, _)| own < 10) {
                child.kill().context("kill a launcher")?;
            }
            drop(child.stdin.take());
            child.wait_with_output().context("wait for a container")?;
        }
        expect(seen.is_some(), "ten containers with a layer each", "fewer")?;
        let added = seen.map_or(0, |(_, added)| added);
        expect(
            added < before / 10,
            format!("ten containers to add next to nothing to the {before} bytes of the image"),
            format!("{added} bytes"),
        )?;
        expect_eq("the layers at the end", state.layers("overlay2").len(), 1)
    });
}

#[test]
fn image_shares_layers_with_others() {
    check(|c| {
        let state = State::new(c)?;
        let base = small_root()?;
        for (n, name) in ["one", "two"].iter().enumerate() {
            let own = tar(&[file("own", name)])?;
            let config = json!({"Env": [format!("N={n}")]});
            let layout = Layout::new(c.dir().join(name), "1", &[base.clone(), own], config)?;
            let (from, name) = (layout.name(), format!("team/{name}"));
            state
                .drydock(&["load", "-i", &from, &name])
                .run()?
                .success()?;
            expect_eq("the layers", state.layers("overlay2").len(), n + 2)?;
        }
        // The same change on another base is another layer.
        let bases = [tar(&[file("x", "")])?, tar(&[file("own", "one")])?];
        let layout = Layout::new(c.dir().join("three"), "1", &bases, json!({}))?;
        state
            .drydock(&["load", "-i", &layout.name(), "three"])
            .run()?
            .success()?;
        expect_eq("the layers", state.layers("overlay2").len(), 5)?;

        state.drydock(&["rmi", "three"]).run()?.success()?;
        state.drydock(&["rmi", "two"]).run()?.success()?;
        expect_eq(
            "the layers that one still has",
            state.layers("overlay2").len(),
            2,
        )?;
        let ran = state.run("one", "cat /own")?.success()?;
        expect_eq("/own", ran.stdout, "one".into())?;
        let kept = ["run", "--name", "box", "--network", "none", "one", "true"];
        state.drydock(&kept).run()?.success()?;
        state
            .drydock(&["rmi", "one"])
            .run()?
            .expect_error(125, &["container", "remove"])?;
        // Neither does a load take away what a container stands on.
        state
            .drydock(&["load", "-i", &layout.name(), "three"])
            .run()?
            .success()?;
        state.drydock(&["rmi", "three"]).run()?.success()?;
        state.drydock(&["rm", "box"]).run()?.success()?;
        let id = state.images()?[0].1.clone();
        state.drydock(&["rmi", &id[..6]]).run()?.success()?;
        state.expect_empty("overlay2", "the last rmi")?;
        state
            .drydock(&["rmi", "one"])
            .run()?
            .expect_error(125, &["no image", "one"])?;
        Ok(())
    });
}

/// An image of three layers. The one in the middle has a file of `bytes` bytes
/// that no compression shortens.
fn noisy(c: &Check, bytes: usize) -> Result<Layout> {
    let mut noise = vec![0_u8; bytes];
    for chunk in noise.chunks_mut(8) {
        chunk.copy_from_slice(&c.number(u64::MAX).to_le_bytes()[..chunk.len()]);
    }
    let noise = [(tar::EntryType::Regular, "noise", "", &noise[..])];
    let layers = [small_root()?, tar(&noise)?, tar(&[file("end", "")])?];
    Layout::new(c.dir().join("noisy"), "1", &layers, json!({}))
}

fn expect_whole(state: &State<'_>, image: &str, bytes: usize) -> Result<()> {
    let ran = state.run(image, "stat -c %s /noise /end")?.success()?;
    let expected = format!("{bytes}\n0\n");
    expect_eq("the sizes of the files of the image", ran.stdout, expected)
}

#[test]
fn image_is_whole_or_not_there() {
    check(|c| {
        let state = State::new(c)?;
        // Little: a launcher that is followed takes long for each call.
        let bytes = 64 << 10;
        let layout = noisy(c, bytes)?;
        let parts = [
            "overlay2",
            "images",
            "images/name",
            "images/spool",
            "images/new",
        ];
        let places: Vec<_> = parts.iter().map(|part| state.root.join(part)).collect();
        let load = state.drydock(&["load", "-i", &layout.name(), "box"]);
        // Killed just before the end, an image is whole and has no name.
        let are_whole = || -> Result<()> {
            for (name, id) in state.images()? {
                let image = if name == "<none>" { id } else { name };
                expect_whole(&state, &image, bytes)?;
                state.drydock(&["rmi", &image]).run()?.success()?;
            }
            Ok(())
        };
        // When a layer's directory has just come.
        let is_layer = |path: &PathBuf| {
            let name = path.strip_prefix(&places[0]).unwrap_or(Path::new(""));
            name.to_string_lossy().contains("sha256")
        };
        paced(&load, &places, |_, there| {
            Ok(match there.iter().any(is_layer) {
                true => Then::Kill,
                false => Then::GoOn,
            })
        })?;
        are_whole()?;
        // At every third moment at which a name comes or goes, another third with
        // each seed.
        for nth in (1 + c.number(3) as usize..).step_by(3) {
            let mut killed = false;
            let ended = paced(&load, &places, |moment, _| {
                killed = moment == nth;
                Ok(if killed { Then::Kill } else { Then::GoOn })
            })?;
            are_whole()?;
            if !killed {
                expect(
                    ended.status == 0,
                    "a load to succeed after others were killed",
                    format!("status {}: {}", ended.status, ended.stderr.trim()),
                )?;
                break;
            }
        }
        state
            .drydock(&["load", "-i", &layout.name(), "box"])
            .run()?
            .success()?;
        expect_whole(&state, "box", bytes)?;
        state.drydock(&["rmi", "box"]).run()?.success()?;
        state.expect_empty("overlay2", "rmi, many loads having been killed")?;
        expect_eq(
            "the remaining files without a name",
            state.root.join("images/spool").exists() || state.root.join("images/new").exists(),
            false,
        )
    });
}

#[test]
fn image_is_loaded_once_by_many() {
    check(|c| {
        let state = State::new(c)?;
        let layout = noisy(c, 3 << 20)?;
        let mut loading = Vec::new();
        for n in 0..4 {
            let name = format!("box:{n}");
            let load = state.drydock(&["load", "-i", &layout.name(), &name]);
            loading.push(load.command().stdout(Stdio::null()).spawn()?);
            let run = state.drydock(&["run", "--rm", "--network", "none", &layout.name(), "true"]);
            loading.push(run.command().stdout(Stdio::null()).spawn()?);
        }
        for mut child in loading {
            let status = child.wait().context("wait for it")?;
            expect(status.success(), "every one of them to succeed", status)?;
        }
        expect_eq("the names", state.images()?.len(), 4)?;
        expect_eq("the layers", state.layers("overlay2").len(), 3)
    });
}

#[test]
fn image_of_an_ordinary_user() {
    check(|c| {
        let root = c.dir().join("rootless");
        check::check::open_to_all(c.dir())?;
        fs::create_dir(&root)?;
        chown(&root, Some(1000), Some(1000))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        let root = root.to_string_lossy().into_owned();
        let foreign = [
            file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            file("old/x", "x"),
        ];
        let above = [
            file(".wh.gone", ""),
            file("old/.wh..wh..opq", ""),
            file("old/new", "n"),
        ];
        let layers = [
            small_root()?,
            tar(&foreign)?,
            tar(&[file("gone", "")])?,
            tar(&above)?,
        ];
        let layout = Layout::new(c.dir().join("layout"), "1", &layers, json!({}))?;
        // What works here, and what works everywhere.
        for driver in [&[][..], &["--storage-driver", "vfs"]] {
            let root = format!("{root}/{}", driver.len());
            let call = |args: &[&str]| c.step().user(1000).args(["--root", &root]).args(args);
            let load = ["load", "-i", &layout.name(), "box"];
            call(&[&load[..], driver].concat()).run()?.success()?;
            let run = [&["run", "--rm", "--network", "none"][..], driver].concat();
            let script = ["box", "sh", "-c", "id -u; ls / /old"];
            let ran = call(&[&run[..], &script].concat()).run()?.success()?;
            let words: Vec<&str> = ran.stdout.split_whitespace().collect();
            expect(
                words.first() == Some(&"0") && words.ends_with(&["/old:", "new"]),
                "root inside, and /old with the new file only",
                ran.stdout.clone(),
            )?;
            expect(!words.contains(&"gone"), "/gone to be gone", ran.stdout)?;
            call(&["rmi", "box"]).run()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn image_that_is_none_is_named() {
    check(|c| {
        let state = State::new(c)?;
        let write = |name: &str, bytes: &[u8]| -> Result<String> {
            let path = c.dir().join(name);
            fs::write(&path, bytes)?;
            Ok(path.to_string_lossy().into_owned())
        };
        let elsewhere = tar(&[file("some/file", "x")])?;
        let root = small_root()?;
        for (path, word) in [
            (write("empty", b"")?, "empty"),
            (write("text", &b"not an image\n".repeat(100))?, "text"),
            (write("other.tar", &elsewhere)?, "manifest.json"),
            (write("packed.tar.xz", b"\xfd7zXZ\0\0\0\0\0\0")?, "xz"),
            (write("cut.tar.gz", &gzip(&root)?[..9000])?, "cut"),
            ("no-such-image".into(), "no image"),
            (
                c.dir().join("no-such-file.tar").to_string_lossy().into(),
                "no-such-file",
            ),
            ("/dev/null".into(), "regular file"),
            ("Bad Name".into(), "Bad Name"),
        ] {
            state.run(&path, "true")?.expect_error(125, &[word])?;
            state
                .drydock(&["load", "-i", &path])
                .run()?
                .expect_error(125, &[])?;
        }
        for name in ["../up", "a b", "/abs", "a:b:c", ""] {
            let path = write("root.tar", &root)?;
            let ran = state.drydock(&["import", &path, name]).run()?;
            expect_eq(
                &format!("the status for the name {name:?}"),
                ran.status,
                125,
            )?;
        }
        expect(
            !Path::new(&state.root)
                .join("images/name/..")
                .join("up")
                .exists(),
            "no name to leave its directory",
            "it did",
        )?;
        state.expect_empty("overlay2", "all of these")
    });
}

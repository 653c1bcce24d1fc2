//! Images that nobody should trust.

use std::fs;
use std::path::Path;
use std::time::Instant;

use check::prelude::*;
use serde_json::{Value, json};
use tar::EntryType::{Char, GNULongName, Link, Regular, Symlink};

use crate::layouts::{Entry, Layout, State, file, gzip, packed_by, small_root, tar, zstd};

fn load(state: &State<'_>, layout: &Layout, driver: &str) -> Result<Ran> {
    let from = layout.name();
    state
        .drydock(&["load", "-i", &from, "--storage-driver", driver, "evil"])
        .run()
}

#[test]
fn archive_reaches_nothing_outside() {
    check(|c| {
        let outside = c.dir().join(c.word("outside"));
        fs::create_dir(&outside)?;
        let victim = outside.join("victim");
        fs::write(&victim, "untouched")?;
        let target = outside.to_string_lossy().into_owned();
        let up = "../".repeat(12) + &target[1..];
        let (absolute, upward) = (format!("{target}/new"), format!("{up}/new"));
        let aim = format!("{target}/victim");
        let evil = |name: &str, to: &str| -> Vec<(tar::EntryType, String, String)> {
            vec![
                (Symlink, "evil".into(), to.to_owned()),
                (Regular, name.to_owned(), String::new()),
            ]
        };
        let one = |kind, name: &str, to: &str| vec![(kind, name.to_owned(), to.to_owned())];
        let cases = [
            (one(Regular, &upward, ""), Some("leaves")),
            (one(Regular, &absolute, ""), None),
            (evil("evil/new", &target), None),
            (evil("evil/victim", &up), None),
            (evil("evil/.wh.victim", &target), None),
            (evil("evil/.wh..wh..opq", &target), None),
            (evil("evil", &aim), None),
            (one(Link, "linked", &aim), Some("no")),
            (one(Link, "linked", &up), Some("leaves")),
            (one(Regular, ".wh.", ""), Some("without a name")),
            (one(Regular, ".wh...", ""), Some("without a name")),
            (one(Regular, ".wh.d/x", ""), Some("not a directory")),
            (one(Char, "forged", ""), None),
        ];
        for driver in ["overlay2", "vfs", "aufs"] {
            for (n, (entries, refused)) in cases.iter().enumerate() {
                let state = State::new(c)?;
                let entries: Vec<Entry<'_>> = entries
                    .iter()
                    .map(|(kind, name, to)| (*kind, &**name, &**to, &b""[..]))
                    .collect();
                let layers = [small_root()?, tar(&entries)?];
                let place = c.dir().join(format!("{driver}{n}"));
                let layout = Layout::new(place, "1", &layers, json!({}))?;
                let ran = load(&state, &layout, driver)?;
                let there: Vec<_> = fs::read_dir(&outside)?
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<std::io::Result<_>>()?;
                expect(
                    there == ["victim"] && fs::read_to_string(&victim)? == "untouched",
                    format!("nothing outside the layer to be touched by {entries:?}"),
                    format!("{there:?}"),
                )?;
                match refused {
                    Some(word) => {
                        ran.expect_error(125, &["layer 2 of 2", word])?;
                        expect_eq("the images", state.images()?, vec![])?;
                        // Whole layers may stay until the next change.
                        expect(
                            state.layers(driver).len() <= 1,
                            "no layer of a refused archive",
                            format!("{:?}", state.layers(driver)),
                        )?;
                    }
                    None => {
                        ran.success()?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn archive_is_what_its_digests_say() {
    check(|c| {
        let layers = [small_root()?, tar(&[file("a", "right")])?];
        let fresh =
            |name: &str| Layout::new(c.dir().join(name), "1", &layers, json!({"Env": ["A=1"]}));
        let refused = |layout: &Layout, words: &[&str]| -> Result<()> {
            let state = State::new(c)?;
            load(&state, layout, "overlay2")?.expect_error(125, words)?;
            expect_eq("the images", state.images()?, vec![])?;
            let run = state.run(&layout.name(), "true")?;
            expect_eq("the status of run", run.status, 125)?;
            let left = state.layers("overlay2");
            expect(
                left.len() <= 1 && left.iter().all(|id| !id.starts_with('.')),
                "no layer of a damaged image",
                format!("{left:?}"),
            )
        };
        // A byte of the layer, of the configuration, of the manifest.
        let pick: [fn(&Value) -> Value; 2] = [|m| m["layers"][1].clone(), |m| m["config"].clone()];
        for (n, pick) in pick.iter().enumerate() {
            let layout = fresh(&format!("byte{n}"))?;
            let path = layout.path(&pick(&layout.read_manifest()?));
            let mut bytes = fs::read(&path)?;
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
            fs::write(&path, bytes)?;
            refused(&layout, &["damaged"])?;
        }
        let layout = fresh("short")?;
        let path = layout.path(&layout.read_manifest()?["layers"][1]);
        fs::write(&path, &fs::read(&path)?[..40])?;
        refused(&layout, &["damaged"])?;
        let layout = fresh("gone")?;
        fs::remove_file(layout.path(&layout.read_manifest()?["layers"][1]))?;
        refused(&layout, &["No such file"])?;
        // All digests of blobs are right, but another layer was promised.
        let layout = fresh("other")?;
        let manifest = layout.read_manifest()?;
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let other = layout.blob(kind, &gzip(&tar(&[file("a", "wrong")])?)?)?;
        let config = manifest["config"].clone();
        let first = manifest["layers"][0].clone();
        layout.manifest("1", config.clone(), vec![first.clone(), other])?;
        refused(&layout, &["not the layer"])?;
        layout.manifest("1", config.clone(), vec![first.clone()])?;
        refused(&layout, &["1 layers", "2"])?;
        // What follows the packed data is part of the blob, and not of the tar.
        let packed = gzip(&layers[1])?;
        let cut = layout.blob(kind, &packed[..packed.len() - 9])?;
        layout.manifest("1", config.clone(), vec![first.clone(), cut])?;
        refused(&layout, &["cut off"])?;
        // A digest is not a path.
        let mut evil = first.clone();
        evil["digest"] = json!("sha256:../../../../../../../../etc/passwd");
        layout.manifest("1", config, vec![evil])?;
        refused(&layout, &["digest"])
    });
}

#[test]
fn archive_packing_ends_where_its_stream_does() {
    check(|c| {
        let layers = [small_root()?, tar(&[file("a", "packed")])?];
        let layout = Layout::new(c.dir().join("packed"), "1", &layers, json!({}))?;
        let manifest = layout.read_manifest()?;
        let (first, config) = (&manifest["layers"][0], &manifest["config"]);
        // The same tar, in two parts; zeroes as on a tape, data to be skipped.
        let (one, two) = layers[1].split_at(700);
        let zeroes = vec![0; 10_240];
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let frames = [zstd(one), skipped, zstd(two)].concat();
        let cut = frames[..frames.len() - 5].to_vec();
        for (packing, packed, refused) in [
            ("gzip", [gzip(one)?, gzip(two)?].concat(), false),
            (
                "gzip, then zeroes",
                [gzip(&layers[1])?, zeroes].concat(),
                false,
            ),
            (
                "gzip, then garbage",
                [gzip(&layers[1])?, b"\x1b[2J".to_vec()].concat(),
                true,
            ),
            ("bzip2", packed_by(c, "bzip2", &layers[1])?, false),
            ("xz", packed_by(c, "xz", &layers[1])?, false),
            ("zstd", frames, false),
            ("zstd, cut off", cut, true),
        ] {
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            let second = layout.blob(kind, &packed)?;
            layout.manifest("1", config.clone(), vec![first.clone(), second.clone()])?;
            let state = State::new(c)?;
            if refused {
                let blob = layout.path(&second);
                let name = blob.file_name().unwrap_or_default().to_string_lossy();
                load(&state, &layout, "overlay2")?.expect_error(125, &[&name, "damaged"])?;
                continue;
            }
            let ran = load(&state, &layout, "overlay2")?;
            expect(
                ran.status == 0,
                format!("{packing} to be unpacked"),
                ran.stderr.trim(),
            )?;
            let ran = state.run("evil", "cat /a")?.success()?;
            expect_eq(&format!("the file of {packing}"), &*ran.stdout, "packed")?;
        }
        // What is no archive does not speak to the terminal.
        let garbage = c.dir().join("garbage.tar");
        fs::write(&garbage, b"\x1b[2J\x1b]0;title\x07".repeat(100))?;
        let garbage = garbage.to_string_lossy().into_owned();
        let state = State::new(c)?;
        let ran = state.drydock(&["load", "-i", &garbage]).run()?;
        let ran = ran.expect_error(125, &["garbage.tar", "not a tar archive"])?;
        expect(
            !ran.stderr.trim_end().chars().any(char::is_control),
            "an error without control characters",
            format!("{:?}", ran.stderr),
        )
    });
}

#[test]
fn archive_bombs_do_not_go_off() {
    check(|c| {
        let disk = Disk::in_memory(c, "24m")?;
        bombs(c, disk.path())
    });
}

fn bombs(c: &Check, disk: &Path) -> Result<()> {
    let mut state = State::new(c)?;
    state.root = disk.join("state");
    // 60 MB of nothing are 60 kB on the way.
    let zeroes = vec![0; 60 << 20];
    let large = tar(&[(Regular, "zeroes", "", &zeroes)])?;
    // Promised, and not there at all.
    let mut promised = tar(&[file("huge", "")])?;
    let size = format!("{:011o}\0", 7 << 30_u64);
    promised[124..136].copy_from_slice(size.as_bytes());
    promised[148..156].fill(b' ');
    let sum: u32 = promised[..512].iter().map(|byte| u32::from(*byte)).sum();
    promised[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    // A name of 20 MB.
    let name = vec![b'x'; 20 << 20];
    let long = tar(&[(GNULongName, "././@LongLink", "", &name), file("x", "")])?;
    // Something for nothing behind the end.
    let mut trailing = small_root()?;
    trailing.resize(trailing.len() + (30 << 20), 0);
    let cases = [
        ("large", large, "room"),
        ("promised", promised, "room"),
        ("long", long, "headers"),
        ("trailing", trailing, "free"),
    ];
    for (name, layer, word) in cases {
        let layout = Layout::new(c.dir().join(name), "1", &[layer], json!({}))?;
        let started = Instant::now();
        load(&state, &layout, "overlay2")?.expect_error(125, &[word])?;
        expect(
            started.elapsed().as_secs() < 30,
            format!("{name} to be refused soon"),
            format!("{:?}", started.elapsed()),
        )?;
        state.expect_empty("overlay2", name)?;
    }
    // A document without an end is not read into memory.
    let layout = Layout::new(c.dir().join("index"), "1", &[small_root()?], json!({}))?;
    fs::write(layout.directory.join("index.json"), vec![b' '; 8 << 20])?;
    load(&state, &layout, "overlay2")?.expect_error(125, &["index.json"])?;
    // After all of these there is room for an image.
    let layout = Layout::new(c.dir().join("good"), "1", &[small_root()?], json!({}))?;
    load(&state, &layout, "overlay2")?.success()?;
    state.run("evil", "true")?.success()?;
    Ok(())
}

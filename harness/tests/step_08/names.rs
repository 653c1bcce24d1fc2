//! Odd names, and archives whose names lead out.

use std::ffi::OsStr;
use std::fs;

use check::fsops::{Op, Operated};
use check::prelude::*;

use crate::layers;
use crate::layers::Store;

#[test]
fn odd_names_are_names() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for Store { driver, .. } in Store::all(c)? {
            let root = c.dir().join(format!("{driver},with:odd\\ch ar"));
            let store = Store::at(c, driver, root.clone())
                .map_err(|error| failed(format!("{driver} to work in {root:?}"), error))?;
            store.image("base", &rootfs)?;
            let mut held = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .hold()?;
            let names = [
                "a,b", "a:b", "a\\b", "a\nb", "a b", "ä", ".wh", "wh.x", "%s",
            ];
            let ops: Vec<Op> = names
                .iter()
                .map(|name| Op::Create {
                    path: (*name).into(),
                    text: (*name).into(),
                })
                .collect();
            let json = serde_json::to_string(&ops)?;
            let done: Operated = held.ask(&["operate", "/data/dir/sub", &json])?;
            expect(
                done.said.iter().all(|said| said == "ok"),
                format!("{driver} to take the names {names:?}"),
                format!("{:?}", done.said),
            )?;
            held.end()?.success()?;
            let tar = store.tar("one")?;
            store
                .tool(["layer", "create", "two", "--parent", "base"])
                .args([OsStr::new("--tar"), tar.as_ref()])
                .run()?
                .success()?;
            let mut held = store.container(&["--layer", "two"]).hold()?;
            let found: Operated = held.ask(&["operate", "/data/dir/sub"])?;
            held.end()?.success()?;
            expect_eq(
                &format!("the names that {driver} has kept"),
                found.tree.keys().cloned().collect::<Vec<_>>(),
                done.tree.keys().cloned().collect::<Vec<_>>(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_name_of_a_whiteout_is_refused_somewhere() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let wrote = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", "echo x > /data/.wh.keep"])
                .run()?;
            let ran = store
                .container(&["--name", "one", "--keep"])
                .args(["cat", "/data/keep"])
                .run()?
                .success()?;
            expect_eq("the file of that name", ran.stdout, "below\n".into())?;
            if wrote.status == 0 {
                store
                    .tool(["layer", "diff", "one", "--tar"])
                    .command()
                    .output()
                    .map_err(anyhow::Error::from)
                    .and_then(|output| {
                        let said = String::from_utf8_lossy(&output.stderr).into_owned();
                        expect(
                            output.status.code() == Some(125) && said.contains(".wh."),
                            "the diff to refuse a name that an archive would take for a whiteout",
                            format!("status {:?}, {said:?}", output.status.code()),
                        )
                    })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_hostile_archive_stays_inside() {
    check(|c| {
        for store in Store::all(c)? {
            let outside = c.dir().join(c.word("outside"));
            fs::create_dir(&outside)?;
            fs::write(outside.join("victim"), "untouched")?;
            let target = outside.to_string_lossy().into_owned();
            for (n, (entries, refused)) in hostile(&target).into_iter().enumerate() {
                let path = c.dir().join(format!("{}-{n}.tar", store.driver));
                fs::write(&path, archive(&entries)?)?;
                let id = format!("evil{n}");
                let ran = store
                    .tool(["layer", "create", &id])
                    .args([OsStr::new("--tar"), path.as_ref()])
                    .run()?;
                let there: Vec<_> = fs::read_dir(&outside)?
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<std::io::Result<_>>()?;
                expect(
                    there == ["victim"]
                        && fs::read_to_string(outside.join("victim"))? == "untouched",
                    format!("nothing outside the layer to be touched by {entries:?}"),
                    format!("{there:?}"),
                )?;
                expect(
                    !refused || ran.status == 125,
                    format!("{entries:?} to be refused"),
                    format!("exit status {}", ran.status),
                )?;
                if ran.status != 0 {
                    expect(
                        !store.layers()?.contains(&id),
                        "no layer of an archive that was refused",
                        id,
                    )?;
                }
            }
        }
        Ok(())
    });
}

/// Kind, name, target of a link.
type Entry = (tar::EntryType, String, String);

/// Archives, and whether they must be refused.
fn hostile(outside: &str) -> Vec<(Vec<Entry>, bool)> {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let entry = |kind, name: &str, target: &str| (kind, name.to_owned(), target.to_owned());
    let up = "../".repeat(8);
    vec![
        (
            vec![entry(Regular, &format!("{up}{outside}/new"), "")],
            true,
        ),
        (vec![entry(Regular, &format!("{outside}/new"), "")], false),
        (
            vec![
                entry(Symlink, "evil", outside),
                entry(Regular, "evil/new", ""),
            ],
            false,
        ),
        (
            vec![
                entry(Symlink, "evil", &format!("{up}{outside}")),
                entry(Regular, "evil/victim", ""),
            ],
            false,
        ),
        (
            vec![entry(Link, "linked", &format!("{outside}/victim"))],
            true,
        ),
        (
            vec![
                entry(Symlink, "evil", outside),
                entry(Regular, "evil/.wh.victim", ""),
            ],
            false,
        ),
        (vec![entry(Regular, ".wh...", "")], true),
        (vec![entry(Regular, ".wh.", "")], true),
        (vec![entry(Char, "forged", "")], false),
    ]
}

fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, target) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        if *kind == tar::EntryType::Char {
            header.set_device_major(0)?;
            header.set_device_minor(0)?;
        }
        // Written past the library, which would not write such names.
        let bytes = name.as_bytes();
        let field = &mut header.as_mut_bytes()[..100];
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
        header.set_link_name_literal(target)?;
        header.set_cksum();
        builder.append(&header, std::io::empty())?;
    }
    Ok(builder.into_inner()?)
}

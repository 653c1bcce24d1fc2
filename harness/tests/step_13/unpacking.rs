//! Pulls that are killed while they unpack, and pulls of ordinary users.

use std::fs;

use check::prelude::*;
use serde_json::json;

use crate::server::digest;
use crate::site::{Site, archive, small_root};

/// How many files the large layer has.
const FILES: usize = 6000;

#[test]
fn a_pull_killed_while_it_unpacks_leaves_a_whole_store() {
    check(|c| {
        let site = Site::new(c)?;
        let names: Vec<String> = (0..FILES).map(|n| format!("many/{n}")).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), &b"x"[..]))
            .collect();
        let large = archive(&files)?;
        let config = json!({"Cmd": ["ls", "/many"], "Env": ["PATH=/bin"]});
        let tars = [small_root()?, large];
        site.image_of("app", "1", &tars, config, "")?;
        let name = site.server.name("app:1");
        // Its ChainID: the same files on others are another layer.
        let chain = format!("{} {}", digest(&tars[0]), digest(&tars[1]));
        let layer = format!("sha256-{}", &digest(chain.as_bytes())[7..]);
        // However the engine calls it until it is whole.
        let unpacked = || -> usize {
            let places = ["overlay2", "vfs/trees"].map(|driver| site.root.join(driver));
            let counts = places.iter().flat_map(|place| {
                let entries = fs::read_dir(place).into_iter().flatten().flatten();
                entries.filter_map(|entry| {
                    let named = entry.file_name().to_string_lossy().contains(&layer);
                    let many = ["diff/many", "many"].map(|name| entry.path().join(name));
                    let many = many.iter().find_map(|many| fs::read_dir(many).ok());
                    Some(many.filter(|_| named)?.count())
                })
            });
            counts.max().unwrap_or(0)
        };
        let mut killed = 0;
        for round in 0..5 {
            let mut pull = site.begun(&["pull", "-q", &name])?;
            let begun = wait_for(|| (unpacked() > 100 + 500 * round).then_some(()));
            pull.kill().context("kill")?;
            pull.wait().context("wait")?;
            expect(begun.is_some(), "a layer to be unpacked", "it is not")?;
            if unpacked() < FILES {
                killed += 1;
                let named = site.root.join("overlay2").join(&layer);
                expect(
                    !named.exists(),
                    "no layer by its name before all of it is unpacked",
                    "one with some of its files",
                )?;
                let images = site.said(&["images", "-q"])?;
                expect_eq("the images after a pull that was killed", &*images, "")?;
            }
        }
        if killed == 0 {
            return Err(unsupported(
                "this machine unpacks faster than a check can look",
            ));
        }
        site.said(&["pull", "-q", &name])?;
        let ran = site.run_image(&["--pull", "never"], &name)?.success()?;
        expect_eq("the files of the layer", ran.stdout.lines().count(), FILES)?;
        let half: Vec<String> = fs::read_dir(site.root.join("overlay2"))
            .context("list")?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with('.'))
            .collect();
        expect(
            half.is_empty(),
            "nothing that is half after the next pull",
            format!("{half:?}"),
        )
    });
}

#[test]
fn an_ordinary_user_pulls_as_well() {
    check(|c| {
        let mut site = Site::new(c)?;
        let image = site.image("app", "1")?;
        site.root = site.home.join("state");
        let chown = std::process::Command::new("chown")
            .args(["-R", "1000:1000"])
            .arg(&site.home)
            .status()
            .context("chown")?;
        expect(chown.success(), "a home of the user's", chown)?;
        let name = site.server.name("app:1");
        let state = site.home.join("net");
        let call = |words: &[&str]| site.call(words).env("DRYDOCK_STATE", &state).user(1000);
        let ran = call(&["pull", &name]).run()?.success()?;
        let digest = format!("Digest: {}", image.digest());
        expect(ran.stdout.contains(&digest), &digest, &ran.stdout)?;
        let ran = call(&["images", "-q", "--no-trunc"]).run()?.success()?;
        expect_eq("its image", ran.stdout.trim(), &*image.id())?;
        let run = ["run", "--rm", "--network", "none", "--pull", "never", &name];
        let ran = call(&run).run()?.success()?;
        expect_eq("what it prints", ran.stdout.trim(), &*image.word)?;
        // It is his, all of it.
        let others = std::process::Command::new("find")
            .arg(&site.home)
            .args(["!", "-user", "1000"])
            .output()
            .context("find")?;
        let others = String::from_utf8_lossy(&others.stdout).into_owned();
        expect(others.is_empty(), "all files to be the user's", others)?;
        let pushed = site.server.name("other:1");
        call(&["tag", &name, &pushed]).run()?.success()?;
        call(&["push", "-q", &pushed]).run()?.success()?;
        call(&["rmi", &name, &pushed]).run()?.success()?;
        let ran = call(&["images", "-q"]).run()?.success()?;
        expect_eq("the images at the end", ran.stdout.trim(), "")
    });
}

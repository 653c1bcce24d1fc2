//! Layers that are unpacked while others arrive.

use std::fs;

use check::prelude::*;
use serde_json::json;

use crate::server::{How, Request, digest};
use crate::site::{Site, archive, small_root};

#[test]
fn a_layer_is_unpacked_while_the_next_one_comes() {
    check(|c| {
        let site = Site::new(c)?;
        let word = c.word("word");
        let tars = [
            small_root()?,
            archive(&[("etc/first", word.as_bytes())])?,
            archive(&[("etc/word", word.as_bytes())])?,
        ];
        let config = json!({"Cmd": ["cat", "/etc/word"], "Env": ["PATH=/bin"]});
        let image = site.image_of("app", "1", &tars, config, &word)?;
        let name = site.server.name("app:1");
        let unpacked = || -> Vec<String> {
            let names = ["overlay2", "vfs"].iter();
            let mut names: Vec<String> = names.flat_map(|kind| site.left_in(kind)).collect();
            names.retain(|name| name.starts_with("sha256-"));
            names
        };
        let lowest = format!("sha256-{}", &digest(&tars[0])[7..]);
        // The last layer comes only when it is told to.
        let hold = || {
            let ends = digest(&image.layers[2]);
            let rule = move |request: &Request, answer: crate::server::Answer| match request
                .path
                .ends_with(&ends)
            {
                true => answer.sent(How::Held(10)),
                false => answer,
            };
            site.server.rule(rule);
        };
        hold();
        let mut pull = site.begun(&["pull", "-q", &name])?;
        let two = wait_for(|| (unpacked().len() == 2).then_some(()));
        expect(
            two.is_some() && unpacked().contains(&lowest),
            "two layers to be unpacked while the third one comes",
            format!("{:?}", unpacked()),
        )?;
        expect_eq(
            "the images before a pull has ended",
            &*site.said(&["images", "-q"])?,
            "",
        )?;
        // Nobody waits for the network of others; and an import removes what
        // belongs to no image, which the pull then makes once more.
        let tar = c.dir().join("tar");
        fs::write(&tar, archive(&[("a", b"a")])?).context("write a tar")?;
        let tar = tar.to_string_lossy().into_owned();
        let imported = site.call(&["import", &tar, "other:1"]).run();
        site.server.go_on();
        let status = wait_or_kill(&mut pull)?;
        imported?.success()?;
        expect_eq("the status of the pull", status, Some(0))?;
        site.expect_runs(&name, &word)?;
        site.said(&["rmi", &name, "other:1"])?;
        expect_eq("the layers of no image", unpacked(), Vec::new())?;
        // A pull that fails at its last layer leaves none of the others.
        let ends = digest(&image.layers[2]);
        site.server.rule(move |request, mut answer| {
            if request.path.ends_with(&ends) {
                answer.body[20] ^= 1;
            }
            answer
        });
        let ran = site.call(&["pull", "-q", &name]).run()?;
        ran.expect_error(1, &[])?;
        site.expect_no_image("a last layer with another digest")?;
        // A layer whose blob is right, but not its tar, has no others on it.
        let other = archive(&[("etc/first", b"another one")])?;
        let mut wrong = crate::site::build(&tars, json!({}), "")?;
        let text = String::from_utf8_lossy(&wrong.config).into_owned();
        let text = text.replace(&digest(&tars[1]), &digest(&other));
        let manifest = String::from_utf8_lossy(&wrong.manifest).into_owned();
        let manifest = manifest.replace(&digest(&wrong.config), &digest(text.as_bytes()));
        (wrong.config, wrong.manifest) = (text.into_bytes(), manifest.into_bytes());
        site.server.honest();
        site.put("app", "2", &wrong);
        let ran = site
            .call(&["pull", "-q", &site.server.name("app:2")])
            .run()?;
        ran.expect_error(1, &["layer 2 of 3", "unpacks to"])?;
        site.expect_no_image("a layer that is not that of the configuration")
    });
}

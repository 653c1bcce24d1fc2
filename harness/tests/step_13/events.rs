//! What happens to images, told to those who ask.

use std::fs;

use check::prelude::*;
use serde_json::json;

use crate::site::{Site, archive, small_root};

#[test]
fn what_happens_to_images_is_told() {
    check(|c| {
        let site = Site::new(c)?;
        let word = c.word("word");
        let layers = [small_root()?, archive(&[("etc/word", word.as_bytes())])?];
        let config = json!({
            "Cmd": ["cat", "/etc/word"], "Env": ["PATH=/bin"],
            "Labels": {"colour": "red", "name": "not the name"},
        });
        let image = site.image_of("team/app", "1", &layers, config, &word)?;
        let name = site.server.name("team/app:1");
        let other = site.server.name("team/other:2");
        let file = c.dir().join("image.tar").display().to_string();
        site.said(&["pull", "-q", &name])?;
        site.said(&["tag", &name, &other])?;
        site.said(&["save", "-o", &file, &name])?;
        site.said(&["push", "-q", &other])?;
        site.said(&["rmi", &other])?;
        site.said(&["rmi", &name])?;
        site.said(&["load", "-i", &file])?;
        let root = c.dir().join("root.tar");
        fs::write(&root, small_root()?).context("write")?;
        let root = root.display().to_string();
        let change = "LABEL colour=blue";
        let imported = site.said(&["import", "--change", change, &root, "plain"])?;
        // Nothing happens, and nothing is told.
        site.call(&["rmi", "no/such"]).run()?.expect_status(1)?;
        site.said(&["images", "-q"])?;

        let format = "{{.Type}} {{.Action}} {{.ID}} {{.Actor.ID}} {{json .Actor.Attributes}}";
        let told = site.said(&[
            "events", "--since", "1", "--until", "0s", "--format", format,
        ])?;
        let host = site.server.host();
        let told = told
            .replace(&image.id(), "ID")
            .replace(&imported, "IMPORTED")
            .replace(&host, "HOST");
        let told: Vec<&str> = told.lines().collect();
        let own = r#"ID ID {"colour":"red","name":"ID"}"#;
        let named =
            |of: &str, name: &str| format!(r#"{of} {of} {{"colour":"red","name":"{name}"}}"#);
        let expected = [
            ("pull", named("HOST/team/app:1", "HOST/team/app")),
            ("tag", named("ID", "HOST/team/other:2")),
            ("save", own.to_owned()),
            ("push", named("HOST/team/other:2", "HOST/team/other")),
            ("untag", own.to_owned()),
            ("untag", own.to_owned()),
            // It is gone already, and its labels with it.
            ("delete", r#"ID ID {"name":"ID"}"#.to_owned()),
            ("load", own.to_owned()),
            (
                "import",
                r#"IMPORTED IMPORTED {"colour":"blue","name":"IMPORTED"}"#.to_owned(),
            ),
        ];
        for (n, (action, about)) in expected.iter().enumerate() {
            let line = format!("image {action} {about}");
            expect_eq(
                &format!("event {} of the images", n + 1),
                told.get(n).copied().unwrap_or("nothing"),
                &*line,
            )?;
        }
        expect_eq("how many events there are", told.len(), expected.len())?;
        // By the image: its ID, or a name of it.
        let filter = format!("image={}", image.id());
        let words = ["events", "--since", "1", "--until", "0s", "--filter"];
        let found = site.said(&[&words[..], &[&filter, "--format", "{{.Action}}"]].concat())?;
        let found: Vec<&str> = found.lines().collect();
        expect_eq(
            "the events of the image's ID",
            found.join(" "),
            "tag save untag untag delete load".to_owned(),
        )
    });
}

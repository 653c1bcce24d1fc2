//! Registries that lie, stall, or never end.

use std::time::{Duration, Instant};

use check::check::wait_or_kill;
use check::prelude::*;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::edited;
use crate::server::{Answer, How, INDEX, MANIFEST, digest};
use crate::site::Site;

/// The most memory that any program of a check may have had, in bytes.
const MOST_MEMORY: i64 = 64 << 20;

/// Expects that a pull is refused, in time, and that nothing is left of it.
fn expect_refused(site: &Site<'_>, tag: &str, what: &str, words: &[&str]) -> Result<()> {
    let name = site.server.name(&format!("app:{tag}"));
    let start = Instant::now();
    let ran = site.call(&["pull", "-q", &name]).run()?;
    if ran.status != 1 {
        return Err(failed(
            format!("a pull to refuse {what}"),
            format!("status {}: {}", ran.status, ran.stderr.trim()),
        ));
    }
    ran.expect_error(1, words)?;
    let passed = start.elapsed();
    expect(
        passed < Duration::from_secs(30),
        format!("{what} to be refused soon"),
        format!("after {passed:?}"),
    )?;
    site.expect_no_image(what)?;
    // What has a name in the store is what it is called.
    let directory = site.root.join("images/blobs/sha256");
    for name in site.left_in("images/blobs/sha256") {
        let bytes = std::fs::read(directory.join(&name)).context("read a blob")?;
        expect(
            digest(&bytes)[7..] == name,
            format!("no blob under a wrong name after {what}"),
            &name,
        )?;
    }
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)
        .context("getrusage")?
        .max_rss()
        * 1024;
    expect(
        used < MOST_MEMORY,
        format!("{what} to be refused with little memory"),
        format!("{} MB", used >> 20),
    )
}

#[test]
fn what_a_registry_says_is_verified() {
    check(|c| {
        let site = Site::new(c)?;
        site.configure("patience = 2\n")?;
        let image = site.image("app", "1")?;
        let layer = digest(&image.layers[0]);
        let of_layer = move |path: &str| path.ends_with(&layer);
        // A layer that is another one, of the same size.
        let is_layer = of_layer.clone();
        site.server.rule(move |request, mut answer| {
            if is_layer(&request.path) {
                answer.body[100] ^= 1;
            }
            answer
        });
        expect_refused(&site, "1", "a layer with another digest", &["digest"])?;
        // More than the manifest says, with a length and without.
        let is_layer = of_layer.clone();
        site.server.rule(move |request, mut answer| {
            if is_layer(&request.path) {
                answer.body.extend([0; 1000]);
            }
            answer
        });
        expect_refused(&site, "1", "a layer that is too long", &["bytes"])?;
        let is_layer = of_layer.clone();
        site.server
            .rule(move |request, answer| match is_layer(&request.path) {
                true => Answer::new(200, vec![7; 64 << 10]).sent(How::Endless),
                false => answer,
            });
        expect_refused(&site, "1", "a layer without an end", &["bytes"])?;
        // Manifests: another one, an endless one, a huge one.
        let other = site.image("app", "2")?;
        let bytes = other.manifest.clone();
        site.server
            .rule(move |request, answer| match request.is_manifest() {
                true => Answer {
                    body: bytes.clone(),
                    ..answer
                },
                false => answer,
            });
        expect_refused(&site, "1", "a manifest with another digest", &["digest"])?;
        site.server
            .rule(|request, answer| match request.is_manifest() {
                true => Answer::new(200, vec![b' '; 64 << 10]).sent(How::Endless),
                false => answer,
            });
        expect_refused(&site, "1", "a manifest without an end", &["bytes"])?;
        site.server
            .rule(|request, answer| match request.is_manifest() {
                true => Answer::new(200, "{}").with("content-length", "99999999999"),
                false => answer,
            });
        expect_refused(&site, "1", "a huge manifest", &["bytes"])?;
        site.server
            .rule(|request, answer| match request.is_manifest() {
                true => Answer::new(200, "[".repeat(1 << 20)),
                false => answer,
            });
        expect_refused(&site, "1", "a manifest that is nested deep", &[])?;
        site.server.honest();
        // Manifests that say what cannot be.
        edited(&site, "3", |manifest| {
            manifest["layers"][0]["size"] = json!(-1)
        })?;
        expect_refused(&site, "3", "a negative size", &[])?;
        edited(&site, "3", |manifest| {
            manifest["layers"][0]["size"] = json!(u64::MAX)
        })?;
        expect_refused(&site, "3", "layers that nobody can keep", &[])?;
        edited(&site, "3", |manifest| {
            let size = manifest["layers"][0]["size"].as_u64().unwrap_or_default();
            manifest["layers"][0]["size"] = json!(size - 1);
        })?;
        expect_refused(&site, "3", "a size that is too small", &["bytes"])?;
        edited(&site, "3", |manifest| {
            manifest["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")
        })?;
        expect_refused(&site, "3", "a digest that is a path", &[])?;
        edited(&site, "3", |manifest| {
            let layers = manifest["layers"].as_array_mut();
            layers.into_iter().for_each(|layers| layers.reverse());
        })?;
        expect_refused(&site, "3", "layers in another order", &[])?;
        edited(&site, "3", |manifest| manifest["manifests"] = json!([]))?;
        expect_refused(&site, "3", "a manifest that is an index, too", &[])?;
        edited(&site, "3", |manifest| manifest["mediaType"] = json!(INDEX))?;
        expect_refused(&site, "3", "a manifest that says that it is an index", &[])?;
        edited(&site, "3", |manifest| manifest["schemaVersion"] = json!(1))?;
        expect_refused(&site, "3", "a manifest of schema 1", &["schema"])?;
        // An index in an index in an index.
        let mut entry =
            json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len()});
        for depth in 0..8 {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
            let tag = format!("deep{depth}");
            let text = index.to_string();
            entry = site.server.manifest("app", &tag, INDEX, text.as_bytes());
        }
        expect_refused(&site, "deep7", "indexes in indexes", &["index"])?;
        // After all this an honest answer is enough.
        let name = site.server.name("app:1");
        site.said(&["pull", "-q", &name])?;
        site.expect_runs(&name, &image.word)
    });
}

#[test]
fn a_registry_that_stalls_is_given_up() {
    check(|c| {
        let site = Site::new(c)?;
        site.configure("patience = 1\n")?;
        let image = site.image("app", "1")?;
        let layer = digest(&image.layers[0]);
        // A second each, and again until the pull gives up: so each way once.
        let ends = layer.clone();
        site.server
            .rule(move |request, answer| match request.path.ends_with(&ends) {
                true => answer.sent(How::Drip),
                false => answer,
            });
        expect_refused(
            &site,
            "1",
            "a registry that sends a byte now and then of a layer",
            &["blob"],
        )?;
        site.server
            .rule(move |request, answer| match request.is_manifest() {
                true => answer.sent(How::Silent),
                false => answer,
            });
        expect_refused(
            &site,
            "1",
            "a registry that sends nothing of a manifest",
            &[],
        )?;
        // It sends enough, and then has us begin again, for ever.
        let size = image.layers[0].len();
        expect(size > 200 << 10, "a layer of some size", size)?;
        site.server.rule(
            move |request, answer| match request.path.ends_with(&layer) {
                true if request.header("range").is_empty() => answer.sent(How::Cut(100 << 10)),
                true => Answer::new(416, ""),
                false => answer,
            },
        );
        // First with a time limit of its own: whoever takes all bytes for progress
        // never ends.
        let name = site.server.name("app:1");
        let mut pull = site.begun(&["pull", "-q", &name])?;
        let what = "a registry that has us begin again and again";
        expect(
            wait_or_kill(&mut pull)?.is_some(),
            format!("{what} to be given up"),
            "the same bytes, fetched for ever",
        )?;
        expect_refused(&site, "1", what, &["again and again"])
    });
}

#[test]
fn a_busy_registry_is_asked_again() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let times: std::sync::Arc<std::sync::Mutex<Vec<Instant>>> = Default::default();
        let noted = times.clone();
        let layer = digest(&image.layers[1]);
        site.server.rule(move |request, answer| {
            if !request.path.ends_with(&layer) {
                return answer;
            }
            let mut times = noted
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            times.push(Instant::now());
            match times.len() {
                1 => Answer::new(429, "").with("retry-after", "2"),
                2 => Answer::new(503, ""),
                _ => answer,
            }
        });
        let name = site.server.name("app:1");
        let ran = site.call(&["pull", "-q", &name]).run()?;
        expect_eq("the status of a pull from a busy registry", ran.status, 0)?;
        let times = times
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let waited = times
            .get(1)
            .zip(times.first())
            .map(|(second, first)| *second - *first);
        expect(
            waited.is_some_and(|waited| waited >= Duration::from_secs(2)),
            "the wait that Retry-After asks for",
            format!("{waited:?}"),
        )?;
        // One that is always busy is given up.
        site.said(&["rmi", &name])?;
        site.server
            .rule(|request, answer| match request.is_manifest() {
                true => Answer::new(
                    429,
                    "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slow down\"}]}",
                )
                .with("retry-after", "0"),
                false => answer,
            });
        let ran = site.call(&["pull", "-q", &name]).run()?;
        ran.expect_error(1, &["slow down"])?;
        let asked: Value = json!(site.server.count(|one| one.is_manifest()));
        expect(
            asked.as_u64().is_some_and(|asked| asked < 20),
            "few attempts",
            asked,
        )
    });
}

//! Layers on layers: how many, which fit, where a file comes from.

use check::prelude::*;

use crate::layers;
use crate::layers::{Store, stacks};

#[test]
fn a_stack_may_have_128_layers_and_no_more() {
    check(|c| {
        let store = Store::new(c, "overlay2")?;
        store.image("l0", &layers::rootfs(c)?)?;
        // Puts layers on one another, and returns the topmost.
        let stack = |numbers: std::ops::Range<u32>, mut top: String| -> Result<String> {
            for n in numbers {
                let id = format!("l{n}");
                store
                    .tool(["layer", "create", &id, "--parent", &top])
                    .run()?
                    .success()?;
                top = id;
            }
            Ok(top)
        };
        // Below a container are these and its -init layer.
        let top = stack(1..127, "l0".to_owned())?;
        let ran = store
            .container(&["--layer", &top])
            .args(["sh", "-c", "echo above >> /data/keep; cat /data/keep"])
            .run()?
            .success()?;
        expect_eq(
            "a file below 127 layers",
            ran.stdout,
            "below\nabove\n".into(),
        )?;
        let top = stack(127..129, top)?;
        store
            .tool(["layer", "create", "one-more", "--parent", &top])
            .run()?
            .expect_error(125, &["one-more", "128"])?;
        store
            .container(&["--layer", &top])
            .args(["true"])
            .run()?
            .expect_error(125, &["128"])?;
        Ok(())
    });
}

#[test]
fn a_layer_is_about_the_whole_tree_below() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            stacks::layer(&store, "below", "base", |case| case.below)?.success()?;
            stacks::layer(&store, "above", "below", |case| case.above)?.success()?;
            let mut held = store.container(&["--layer", "above"]).hold()?;
            let trees = layers::operate(&mut held, &vec![Vec::new(); stacks::CASES.len()])?;
            held.end()?.success()?;
            for (case, tree) in stacks::CASES.iter().zip(&trees) {
                expect_eq(
                    &format!("{}: the tree with {}", case.what, store.driver),
                    stacks::shown(tree),
                    case.there.iter().map(|line| (*line).into()).collect(),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_layer_that_does_not_fit_is_refused_by_every_driver() {
    check(|c| {
        let below = stacks::tar_of_cases(stacks::REFUSED.map(|(below, _)| below))?;
        for store in Store::all(c)? {
            stacks::create(&store, "lower", None, &below)?.success()?;
            for (n, (below, above)) in stacks::REFUSED.iter().enumerate() {
                let upper = format!("upper{n}");
                let tar = stacks::tar(&format!("{n}/"), above)?;
                let ran = stacks::create(&store, &upper, Some("lower"), &tar)?;
                expect(
                    ran.status == 125 && !store.layers()?.contains(&upper),
                    format!("{} to refuse {above:?} on {below:?}", store.driver),
                    format!("exit status {}", ran.status),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn where_says_which_layer_and_why() {
    check(|c| {
        for driver in ["overlay2", "aufs", "vfs"] {
            let store = match Store::new(c, driver) {
                Err(error) if error.is::<check::outcome::Unsupported>() => continue,
                store => store?,
            };
            store.image("base", &layers::rootfs(c)?)?;
            let script = "rm /data/gone; rm -r /data/open; mkdir /data/open; echo x > /data/new";
            store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", script])
                .run()?
                .success()?;
            for (file, verdict) in [
                ("/data/new", "from layer 3 (one)"),
                ("/data/keep", "from layer 1 (base)"),
                ("/data/gone", "deleted in layer 3 (one)"),
                ("/data/nowhere", "in no layer"),
            ] {
                let said = store
                    .tool(["where", file, "--layer", "one"])
                    .run()?
                    .success()?
                    .stdout;
                expect(
                    said.lines()
                        .last()
                        .is_some_and(|line| line.ends_with(verdict)),
                    format!("`where {file}` with {driver} to say {verdict:?}"),
                    said.trim(),
                )?;
            }
            if driver != "vfs" {
                let said = store
                    .tool(["where", "/data/open/old"])
                    .run()?
                    .success()?
                    .stdout;
                expect(
                    said.contains("opaque") && said.ends_with("in no layer\n"),
                    "`where` to name the opaque directory that hides a file",
                    said.trim(),
                )?;
            }
        }
        Ok(())
    });
}

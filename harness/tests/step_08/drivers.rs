//! What every driver does in the same way: the contract of a layer, and random
//! operations.

use std::fs;

use check::prelude::*;

use crate::layers;
use crate::layers::Store;

/// What every driver does alike: a table of one row a driver.
fn contract(c: &Check, driver: &'static str) -> Result<()> {
    let store = Store::new(c, driver)?;
    let rootfs = layers::rootfs(c)?;
    store.image("base", &rootfs)?;
    let before = fs::read(store.tar("base")?)?;

    let changes = "set -e; echo new > /data/new; echo above >> /data/keep; rm /data/gone; \
                   rm -r /data/open; mkdir /data/open; echo n > /data/open/n; \
                   mv /data/dir/x /data/dir/z; ln /data/new /data/other";
    store
        .container(&["--layer", "base", "--name", "one", "--keep"])
        .args(["sh", "-c", changes])
        .run()?
        .success()?;

    let look = "cat /data/keep; ls /data /data/open /data/dir";
    let again = store
        .container(&["--name", "one", "--keep"])
        .args(["sh", "-c", look])
        .run()?
        .success()?;
    expect_eq(
        "what the container that was kept sees",
        again
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "below above /data: dir keep new open other /data/dir: sub z /data/open: n".into(),
    )?;
    let fresh = store
        .container(&["--layer", "base"])
        .args(["sh", "-c", look])
        .run()?
        .success()?;
    expect_eq(
        "what another container of the image sees",
        fresh
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "below /data: dir gone keep open /data/dir: sub x /data/open: old".into(),
    )?;
    let after = fs::read(store.tar("base")?)?;
    expect(
        before == after,
        "the image to be unchanged",
        "it changed: a container has written to a layer below its own",
    )?;

    let diff = store
        .tool(["layer", "diff", "one"])
        .run()?
        .success()?
        .stdout;
    let lines: Vec<&str> = diff.lines().collect();
    for wanted in [
        "+ /data/new",
        "+ /data/other",
        "+ /data/keep",
        "- /data/gone",
        "- /data/dir/x",
        "+ /data/dir/z",
        "+ /data/open/n",
    ] {
        expect(
            lines.contains(&wanted),
            format!("{wanted:?} in the diff of the container"),
            format!("{lines:?}"),
        )?;
    }
    expect(
        lines.contains(&"o /data/open/*") || lines.contains(&"- /data/open/old"),
        "the diff to say that /data/open has been emptied",
        format!("{lines:?}"),
    )?;
    expect(
        !lines
            .iter()
            .any(|line| line.contains("/data/dir/sub") || line.contains("/proc")),
        "nothing in the diff that the container has not changed",
        format!("{lines:?}"),
    )?;

    store
        .tool(["layer", "rm", "base"])
        .run()?
        .expect_error(125, &["base", "parent of"])?;
    store.tool(["layer", "rm", "one"]).run()?.success()?;
    expect_eq(
        "the layers that are left",
        store.layers()?,
        vec!["base".to_owned()],
    )?;
    store.tool(["layer", "rm", "base"]).run()?.success()?;
    expect_eq("the layers at the end", store.layers()?, Vec::new())
}

#[test]
fn overlay2_keeps_the_contract() {
    check(|c| contract(c, "overlay2"));
}

#[test]
fn aufs_keeps_the_contract() {
    check(|c| contract(c, "aufs"));
}

#[test]
fn btrfs_keeps_the_contract() {
    check(|c| contract(c, "btrfs"));
}

#[test]
fn devicemapper_keeps_the_contract() {
    check(|c| contract(c, "devicemapper"));
}

#[test]
fn vfs_keeps_the_contract() {
    check(|c| contract(c, "vfs"));
}

#[test]
fn overlay2_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "overlay2"));
}

#[test]
fn aufs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "aufs"));
}

#[test]
fn btrfs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "btrfs"));
}

#[test]
fn devicemapper_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "devicemapper"));
}

#[test]
fn vfs_does_as_a_plain_directory_does() {
    check(|c| layers::random_operations_agree(c, "vfs"));
}

#[test]
fn a_diff_is_the_same_tree_with_every_driver() {
    check(|c| {
        let stores = Store::all(c)?;
        layers::image_of_trees(c, &stores)?;
        for (n, from) in stores.iter().enumerate() {
            let changed = layers::changed(c, from)?;
            // With the one before: so each driver writes one and reads one.
            let to = &stores[(n + stores.len() - 1) % stores.len()];
            layers::applied(to, from.driver, &changed)?;
        }
        Ok(())
    });
}

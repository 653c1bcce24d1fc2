//! The size of a container's layer.

use std::fs;
use std::path::Path;

use check::disk::Disk;
use check::prelude::*;

use crate::Life;

/// An engine whose state directory is below `on`.
fn life_on<'a>(c: &'a Check, on: &Path) -> Result<Life<'a>> {
    let mut life = Life::new(c)?;
    life.root = on.join("root");
    Ok(life)
}

/// A container cannot have more than its size, in files of its own and in copies
/// of the image's; others can.
fn keeps_its_size(life: &Life<'_>, driver: &str) -> Result<()> {
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--storage-driver",
        driver,
    ];
    let first = life
        .call(&[&words[..], &[&life.image, "true"]].concat())
        .run()?;
    if first.stderr.contains("does not work here") {
        return Err(unsupported(first.stderr.trim()));
    }
    first.success()?;
    let limited = ["--storage-driver", driver, "--storage-opt", "size=48m"];
    let wait = "until [ -e /dev/shm/go ]; do sleep 0.01; done";
    let fill = "dd if=/dev/zero of=/one bs=1M count=100 2>/dev/shm/error; cat /dev/shm/error >&2; \
                wc -c </one";
    let script = format!(
        "[ -e /one ] || {{ cp /bin/busybox /copy && mv /copy /bin/busybox || exit; }}; {fill}; {wait}; rm /one; {fill}; \
         exec sleep 1000"
    );
    life.detached("box", &limited, &script)?;
    let filled = |what: &str, times: usize| -> Result<()> {
        let lines = wait_for(|| {
            let text = life.said(&["logs", "box"]).ok()?;
            (text.lines().count() >= times).then_some(text)
        });
        let Some(lines) = lines else {
            let said = life.call(&["logs", "box"]).run()?.stderr;
            return Err(failed(format!("a full disk {what}"), format!("{said:?}")));
        };
        let last = lines
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok());
        let last: u64 = last.unwrap_or(0);
        expect(
            (20 << 20..=48 << 20).contains(&last),
            format!("a file of at most 48 MiB {what}: --storage-opt size=48m"),
            format!("{last} bytes"),
        )
    };
    filled("in a container of 48 MiB", 1)?;
    let said = life.call(&["logs", "box"]).run()?.success()?.stderr;
    expect(
        said.contains("quota") || said.contains("No space left"),
        "an error for who writes more",
        said,
    )?;
    expect_eq(
        "what inspect says",
        &*life.said(&["inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "box"])?,
        "48m",
    )?;
    // What was removed is free again.
    life.said(&["exec", "box", "touch", "/dev/shm/go"])?;
    filled("after another was removed", 2)?;
    // The limit stays with the layer.
    life.said(&["stop", "-t", "0", "box"])?;
    life.said(&["start", "box"])?;
    filled("after a further start", 3)?;
    life.said(&["rm", "-f", "box"])?;

    // One without a size beside it; and its size may be the file's.
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--storage-driver",
        driver,
    ];
    let script = "dd if=/dev/zero of=/one bs=1M count=60 2>/dev/null; wc -c </one";
    let command = [&life.image, "sh", "-c", script];
    let all = life.said(&[&words[..], &command].concat())?;
    expect_eq("what another container may write", &*all, "62914560")?;
    let file = life.c.dir().join("drydock.toml");
    fs::write(
        &file,
        format!("storage-opts = [\"vfs.size=1\", \"{driver}.size=48m\"]\n"),
    )
    .context("write")?;
    let from = ["--config-file", &file.display().to_string()].map(str::to_owned);
    let from = [from[0].as_str(), from[1].as_str()];
    life.call(&[&from[..], &words, &command].concat())
        .run()?
        .expect_error(125, &["vfs.size"])?;
    fs::write(&file, format!("storage-opts = [\"{driver}.size=48m\"]\n")).context("write")?;
    let some = life.said(&[&from[..], &words, &command].concat())?;
    let some: u64 = some.trim().parse().unwrap_or(0);
    expect(
        (20 << 20..=48 << 20).contains(&some),
        "at most 48 MiB: the configuration file has a size",
        some,
    )?;
    life.expect_nothing_left()
}

#[test]
fn a_layer_of_btrfs_has_its_size() {
    check(|c| keeps_its_size(&Life::new(c)?, "btrfs"));
}

#[test]
fn a_layer_of_devicemapper_has_its_size() {
    check(|c| keeps_its_size(&Life::new(c)?, "devicemapper"));
}

#[test]
fn a_layer_of_overlay2_has_its_size() {
    check(|c| {
        let Some(disk) = Disk::with_projects(c, 256 << 20)? else {
            return Err(unsupported("the kernel has no project quotas of ext4"));
        };
        let life = life_on(c, disk.path())?;
        keeps_its_size(&life, "overlay2")?;
        let left = Disk::projects(disk.path())?;
        expect(
            left.is_empty(),
            "no limit for a project whose layer is gone",
            format!("{left:?}"),
        )?;
        drop(life);
        disk.remove()
    });
}

#[test]
fn a_size_that_cannot_be_had_is_an_error() {
    check(|c| {
        let disk = Disk::in_memory(c, "64m")?;
        refused(c, disk.path())
    });
}

fn refused(c: &Check, disk: &Path) -> Result<()> {
    let life = life_on(c, disk)?;
    for verb in ["run", "create"] {
        let words = [verb, "--network", "none", "--storage-driver", "vfs"];
        let rest = ["--storage-opt", "size=1m", &life.image, "true"];
        let status = if verb == "run" { 125 } else { 1 };
        life.call(&[&words[..], &rest].concat())
            .run()?
            .expect_error(status, &["vfs", "overlay2", "btrfs"])?;
    }
    // A tmpfs has no projects.
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--storage-opt",
        "size=1m",
    ];
    life.call(&[&words[..], &[&life.image, "true"]].concat())
        .run()?
        .expect_error(125, &["--storage-opt size", "prjquota"])?;
    for (option, words) in [
        ("size=much", "much"),
        ("size=0", "at least 1"),
        ("colour=red", "colour"),
        ("size", "size=BYTES"),
    ] {
        let run = ["run", "--rm", "--network", "none", "--storage-opt", option];
        let ran = life
            .call(&[&run[..], &[&life.image, "true"]].concat())
            .run()?;
        expect(
            ran.status == 125 && ran.stderr.contains(words),
            format!("exit status 125 and {words:?} for --storage-opt {option}"),
            format!("{} and {:?}", ran.status, ran.stderr),
        )?;
    }
    life.expect_nothing_left()
}

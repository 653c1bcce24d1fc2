//! `bench images`: the speed of unpacking an image and of packing a layer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::chart::{Bar, Chart};
use super::hyperfine::{Timed, line, rounds};
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, ratio, spread};
use super::table::Table;
use super::tools::{need, output};
use check::workspace;

/// Measures with the Debian root file system, or with busybox.
pub fn run(session: &Session) -> Result<Report> {
    let name = ["debian", "busybox"]
        .into_iter()
        .find(|name| workspace::rootfs(name).is_dir() && (session.runs > 9 || *name == "busybox"))
        .context("there is no root file system: ./just rootfs busybox")?;
    let rootfs = workspace::rootfs(name);
    let scratch = &session.scratch;
    let dir = scratch.make("images")?;
    let archive = archive(&dir, &rootfs)?;
    let size = fs::metadata(dir.join("layer.tar"))
        .context("stat layer.tar")?
        .len();
    let mut report = Report::new(
        "images",
        &format!(
            "The root file system {name} as an image of one layer, {} MB unpacked: from an archive \
             into the engine's store, and from the store into an archive. Measured by hyperfine.",
            figure(size as f64 / 1e6)
        ),
    );
    let mut unpack = Vec::new();
    let store = scratch.word("load");
    let load = |input: &str| session.drydock_at("load", &["load", "-i", input]);
    unpack.push(timed("drydock load", &store, load(&archive)));
    let target = scratch.word("untar");
    let tar = format!(
        "mkdir {target} && tar -C {target} -xf {}",
        scratch.word("images/layer.tar")
    );
    unpack.push(timed("tar -x", &target, owned(&["sh", "-c", &tar])));
    let layout = layout(session, &archive, &mut report)?;
    if let Some(layout) = &layout {
        let (image, bundle) = (format!("{layout}:bench"), scratch.word("bundle"));
        unpack.push(timed("drydock load, gzip", &store, load(layout)));
        let words = ["umoci", "unpack", "--image", &image, &bundle];
        unpack.push(timed("umoci unpack, gzip", &bundle, owned(&words)));
    }
    match need("podman") {
        Ok(_) => {
            let (store, run) = (scratch.word("podman-load"), scratch.word("podman-load-run"));
            let mut words = vec!["podman", "--storage-driver", "overlay", "--root", &store];
            words.extend(["--runroot", &run, "load", "-q", "-i", &archive]);
            unpack.push(timed("podman load", &store, owned(&words)));
        }
        Err(error) => report.notes.push(format!("{error}.")),
    }
    add(session, &mut report, "Unpack an image", &unpack, size)?;
    let pack = pack(session, &rootfs, layout.as_deref())?;
    add(session, &mut report, "Pack a layer", &pack, size)?;
    report.notes.push(
        "Throughput is counted in bytes of the unpacked layer. tar is the reference: it keeps no \
         store. umoci repack compares the whole tree with its first state, and compresses the \
         difference; layer diff packs the layer's files, uncompressed."
            .to_owned(),
    );
    Ok(report)
}

/// Converts the archive to an OCI layout; `None` if skopeo or umoci is missing.
fn layout(session: &Session, archive: &str, report: &mut Report) -> Result<Option<String>> {
    let errors = ["skopeo", "umoci"].map(|program| need(program).err());
    for error in errors.iter().flatten() {
        report.notes.push(format!("{error}."));
    }
    if errors.iter().any(Option::is_some) {
        return Ok(None);
    }
    let layout = session.scratch.word("images/layout");
    let (from, to) = (
        format!("docker-archive:{archive}"),
        format!("oci:{layout}:bench"),
    );
    call(&["skopeo", "copy", "-q", "--insecure-policy", &from, &to])?;
    Ok(Some(layout))
}

/// The commands that pack the same layer out of a store.
fn pack(session: &Session, rootfs: &Path, layout: Option<&str>) -> Result<Vec<Timed>> {
    let scratch = &session.scratch;
    let (store, from) = (scratch.word("layers"), rootfs.display().to_string());
    let step = workspace::bin().join("step-08").display().to_string();
    call(&[
        &step, "layer", "create", "bench", "--from", &from, "--root", &store,
    ])?;
    let diff = [
        step.as_str(),
        "layer",
        "diff",
        "bench",
        "--tar",
        "--root",
        &store,
    ];
    let mut pack = vec![
        timed("layer diff --tar", "", owned(&diff)),
        timed(
            "tar -c",
            "",
            owned(&["sh", "-c", &format!("tar -C {from} -c . | cat")]),
        ),
    ];
    if let Some(layout) = layout {
        let base = format!("{layout}:empty");
        let bundle = scratch.word("repack");
        call(&["umoci", "new", "--image", &base])?;
        call(&["umoci", "unpack", "--image", &base, &bundle])?;
        call(&[
            "cp",
            "-a",
            &format!("{from}/."),
            &format!("{bundle}/rootfs"),
        ])?;
        let packed = format!("{layout}:packed");
        let words = ["umoci", "repack", "--image", &packed, &bundle];
        pack.push(timed("umoci repack, gzip", "", owned(&words)));
    }
    Ok(pack)
}

/// Makes an archive of one layer, as `docker save` writes it.
fn archive(dir: &Path, rootfs: &Path) -> Result<String> {
    let layer = dir.join("layer.tar").display().to_string();
    call(&[
        "tar",
        "-C",
        &rootfs.display().to_string(),
        "-cf",
        &layer,
        ".",
    ])?;
    docker_archive(dir, &["layer.tar"])
}

/// Makes an archive, as `docker save` writes it, of the image
/// `drydock-bench:latest` with these layers: tar archives in `dir`, from the
/// lowest up.
pub(crate) fn docker_archive(dir: &Path, layers: &[&str]) -> Result<String> {
    let mut ids = Vec::new();
    for layer in layers {
        let file = dir.join(layer).display().to_string();
        let digest = output(&["sha256sum", &file]).context("sha256sum")?;
        let digest = String::from_utf8_lossy(&digest).into_owned();
        let digest = digest.split(' ').next().unwrap_or_default();
        ids.push(format!("sha256:{digest}"));
    }
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", _ => "arm64" },
        "os": "linux",
        "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": ["drydock-bench:latest"], "Layers": layers,
    }]);
    for (name, value) in [("config.json", config), ("manifest.json", manifest)] {
        let file = dir.join(name);
        fs::write(&file, value.to_string()).with_context(|| format!("write {}", file.display()))?;
    }
    let archive = dir.join("image.tar").display().to_string();
    let dir = dir.display().to_string();
    let files = ["manifest.json", "config.json"];
    call(&[&["tar", "-C", &dir, "-cf", &archive], &files[..], layers].concat())?;
    Ok(archive)
}

fn timed(name: &str, remove: &str, argv: Vec<String>) -> Timed {
    Timed {
        name: name.to_owned(),
        argv,
        prepare: match remove {
            "" => String::new(),
            place => format!("rm -rf {}", line(&[place.to_owned()])),
        },
    }
}

/// Words of a command.
pub(crate) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Runs a command that must succeed.
pub(crate) fn call(words: &[&str]) -> Result<()> {
    output(words).map(drop).with_context(|| words.join(" "))
}

/// Measures the commands, and adds a table and a chart.
pub(crate) fn add(
    session: &Session,
    report: &mut Report,
    title: &str,
    timed: &[Timed],
    size: u64,
) -> Result<()> {
    let runs = (session.runs / 10).clamp(2, 6);
    let dir = session.scratch.make("hyperfine")?;
    let times = rounds(timed, runs, &dir, &session.scratch.stop)?;
    let mut table = Table::new(
        title,
        &["", "median, s", "quartiles", "MB/s", "against drydock"],
    );
    let mut chart = Chart {
        title: title.to_owned(),
        unit: "MB/s".to_owned(),
        ..Chart::default()
    };
    let ours = times.first().and_then(|times| Summary::of(times));
    for (timed, times) in timed.iter().zip(&times) {
        let (Some(summary), Some(ours)) = (Summary::of(times), &ours) else {
            continue;
        };
        let speed = size as f64 / 1e6 / summary.median;
        table.row(&[
            &timed.name,
            &figure(summary.median),
            &spread(&summary),
            &figure(speed),
            &ratio(summary.median / ours.median),
        ]);
        report.measured(&timed.name, "s", summary);
        chart.bars.push(Bar {
            label: timed.name.clone(),
            parts: vec![(String::new(), speed)],
            spread: None,
        });
    }
    report.tables.push(table);
    report.charts.push(chart);
    Ok(())
}

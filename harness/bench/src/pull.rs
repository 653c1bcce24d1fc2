//! `bench pull`: images from a registry, fetched and unpacked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;

use super::contenders::podman;
use super::docker_registry::Registry;
use super::dockerd::{self, Dockerd};
use super::hyperfine::{Timed, line};
use super::images::{add, call, docker_archive, owned};
use super::native::printed;
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure};
use super::table::Table;
use super::tools::{complaint, need};
use check::{host, workspace};

/// The program of step 13, in `bin/`.
const OURS: &str = "step-13";

/// The name that the archives give to their image.
const ARCHIVED: &str = "drydock-bench:latest";

/// The layers of the image that is timed.
const LAYERS: u64 = 4;

/// The sizes of the benches, in bytes.
struct Extent {
    /// Of each of the layers.
    layer: u64,
    /// Of the one layer during which memory is watched.
    large: u64,
}

impl Extent {
    fn of(runs: u32) -> Extent {
        match runs {
            ..10 => Extent {
                layer: 2_000_000,
                large: 16_000_000,
            },
            _ => Extent {
                layer: 50_000_000,
                large: 1_000_000_000,
            },
        }
    }
}

/// Measures the engines that are here. Reports those that are missing.
pub fn run(session: &Session) -> Result<Report> {
    // The thread unshares its network namespace, which ends with the thread and
    // what it started: the host sees no registry.
    let measured = thread::scope(|scope| {
        let work = || {
            session.scratch.own_network()?;
            measure(session)
        };
        scope.spawn(work).join()
    });
    // ^C ends the commands, too, which then fail without a word.
    session.scratch.stop.check()?;
    match measured {
        Ok(report) => report,
        Err(_) => bail!("the thread of the bench died"),
    }
}

fn measure(session: &Session) -> Result<Report> {
    let extent = Extent::of(session.runs);
    let size = LAYERS * extent.layer;
    let mut report = Report::new(
        "pull",
        &format!(
            "An image of {LAYERS} layers of {} MB, from Debian's docker-registry over a loopback \
             device into an empty store: fetched, verified and unpacked. Measured by hyperfine. \
             The layers are compressed by gzip, and half of each is random.",
            figure(extent.layer as f64 / 1e6)
        ),
    );
    let here = workspace::bin().join(OURS).exists();
    if !here {
        report.notes.push("step 13 is not here.".to_owned());
        return Ok(report);
    }
    let registry = match Registry::start(session, "registry") {
        Ok(registry) => registry,
        Err(error) => {
            session.scratch.stop.check()?;
            report.notes.push(format!("{error:#}."));
            return Ok(report);
        }
    };
    let name = format!("{}/bench:layers", registry.host);
    push(session, &name, &[extent.layer; LAYERS as usize])?;
    let dockerd = match dockerd::absent()? {
        Some(why) => Err(format!("docker is {why}")),
        None => Dockerd::start(session, "pull-dockerd").map_err(|error| format!("{error:#}")),
    };
    session.scratch.stop.check()?;
    let all = pullers(session, dockerd.as_ref().ok(), &mut report);
    if let Err(why) = &dockerd {
        report.notes.push(format!("{why}."));
    }
    // hyperfine would end with the first that fails.
    let mut pullers = Vec::new();
    for puller in all {
        session.scratch.stop.check()?;
        match complaint(&puller.argv(&name))? {
            None => pullers.push(puller),
            Some(why) if pullers.is_empty() => bail!("{}: {why}", puller.name),
            Some(why) => report
                .notes
                .push(format!("{} refused: {why}.", puller.name)),
        }
    }
    let timed: Vec<Timed> = pullers.iter().map(|puller| puller.timed(&name)).collect();
    add(session, &mut report, "Pull an image", &timed, size)?;
    peak(session, &extent, &registry, &pullers, &mut report)?;
    report.notes.push(
        "Throughput is counted in bytes of the unpacked layers. skopeo fetches into an OCI \
         layout, which umoci unpacks, without a store of layers. docker's figures include its \
         client; its memory is the peak of dockerd and of containerd, added."
            .to_owned(),
    );
    Ok(report)
}

/// Something that pulls an image.
struct Puller<'a> {
    name: &'static str,
    /// The shell's command that pulls the image `$1`.
    pull: String,
    /// The shell's command that removes it, and whatever came with it.
    remove: String,
    /// The daemon that does the work.
    daemon: Option<&'a Dockerd>,
}

impl Puller<'_> {
    /// The command that pulls an image.
    fn argv(&self, image: &str) -> Vec<String> {
        owned(&["sh", "-c", &self.pull, "sh", image])
    }

    /// The command that removes it.
    fn undo(&self, image: &str) -> Vec<String> {
        owned(&["sh", "-c", &self.remove, "sh", image])
    }

    fn timed(&self, image: &str) -> Timed {
        Timed {
            name: self.name.to_owned(),
            argv: self.argv(image),
            prepare: line(&self.undo(image)),
        }
    }
}

/// All that pull here. The first is ours.
fn pullers<'a>(
    session: &Session,
    dockerd: Option<&'a Dockerd>,
    report: &mut Report,
) -> Vec<Puller<'a>> {
    let scratch = &session.scratch;
    let store = line(&[scratch.word("pulled")]);
    let program = line(&[workspace::bin().join(OURS).display().to_string()]);
    let mut all = vec![Puller {
        name: "drydock pull",
        pull: format!("exec {program} --root {store} pull -q \"$1\""),
        remove: format!("rm -rf {store}"),
        daemon: None,
    }];
    // An engine fails to remove what is not there, before the first pull.
    let engine = |name, words: &[String], options: &str, daemon| {
        let line = line(words);
        Puller {
            name,
            pull: format!("exec {line} pull -q {options} \"$1\""),
            remove: format!("{line} image rm --force \"$1\" >/dev/null 2>&1 || :"),
            daemon,
        }
    };
    match need("podman") {
        Ok(_) => all.push(engine(
            "podman pull",
            &podman(session),
            "--tls-verify=false",
            None,
        )),
        Err(error) => report.notes.push(format!("{error}.")),
    }
    let errors = ["skopeo", "umoci"].map(|program| need(program).err());
    for error in errors.iter().flatten() {
        report.notes.push(format!("{error}."));
    }
    if errors.iter().all(Option::is_none) {
        let (layout, bundle) = (scratch.word("pull-layout"), scratch.word("pull-bundle"));
        let (layout, bundle) = (line(&[layout]), line(&[bundle]));
        all.push(Puller {
            name: "skopeo copy, umoci unpack",
            pull: format!(
                "skopeo copy -q --insecure-policy --src-tls-verify=false docker://\"$1\" \
                 oci:{layout}:bench && umoci unpack --image {layout}:bench {bundle}"
            ),
            remove: format!("rm -rf {layout} {bundle}"),
            daemon: None,
        });
    }
    if let Some(dockerd) = dockerd {
        all.push(engine("docker pull", &dockerd.words(), "", Some(dockerd)));
    }
    all
}

/// Makes an image of layers of these sizes and pushes it. Leaves nothing but what
/// the registry has.
fn push(session: &Session, name: &str, layers: &[u64]) -> Result<()> {
    let scratch = &session.scratch;
    let dir = scratch.make("push")?;
    let mut tars = Vec::new();
    for (number, &bytes) in layers.iter().enumerate() {
        session.scratch.stop.check()?;
        let tree = dir.join("tree");
        let files = tree.join(format!("layer-{number}"));
        fs::create_dir_all(&files).with_context(|| format!("mkdir {}", files.display()))?;
        fill(&files, bytes)?;
        let tar = format!("layer-{number}.tar");
        let (from, to) = (tree.display().to_string(), dir.join(&tar));
        call(&["tar", "-C", &from, "-cf", &to.display().to_string(), "."])?;
        fs::remove_dir_all(&tree).context("remove the layer's files")?;
        tars.push(tar);
    }
    let tars: Vec<&str> = tars.iter().map(String::as_str).collect();
    let archive = docker_archive(&dir, &tars)?;
    for tar in tars {
        fs::remove_file(dir.join(tar)).context("remove a layer")?;
    }
    let step = workspace::bin().join(OURS).display().to_string();
    let store = dir.join("store").display().to_string();
    for args in [
        &["load", "-q", "-i", &archive][..],
        &["tag", ARCHIVED, name],
        &["push", "-q", name],
    ] {
        session.scratch.stop.check()?;
        call(&[&[&step, "--root", &store], args].concat())?;
    }
    fs::remove_dir_all(&dir).context("remove what was pushed")
}

/// The size of a file in a layer.
const FILE: u64 = 1_000_000;

/// Writes files of so many bytes together: the first half of each is random, the
/// other is text.
fn fill(dir: &Path, bytes: u64) -> Result<()> {
    let random = File::open("/dev/urandom").context("open /dev/urandom")?;
    for number in 0..bytes.div_ceil(FILE) {
        let size = FILE.min(bytes - number * FILE);
        let path = dir.join(format!("file-{number}"));
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let half = size / 2;
        let text = "All work and no play makes a layer compressible.\n";
        let mut text = text.bytes().cycle().take((size - half) as usize);
        io::copy(&mut (&random).take(half), &mut file)
            .and_then(|_| file.write_all(&text.by_ref().collect::<Vec<u8>>()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Watches the memory of each puller while it pulls one large layer.
fn peak(
    session: &Session,
    extent: &Extent,
    registry: &Registry,
    pullers: &[Puller],
    report: &mut Report,
) -> Result<()> {
    let mut table = Table::new(
        &format!(
            "Peak of the resident memory while a layer of {} MB is pulled",
            figure(extent.large as f64 / 1e6)
        ),
        &["", "MB", ""],
    );
    // The tree, its archive and a copy of that in a second one, or the store;
    // then the registry's half and a store.
    let need = extent.large * 5;
    let disk = statvfs(&session.scratch.path("")).context("statvfs")?;
    let free = disk.blocks_available() * disk.fragment_size();
    if free < need {
        report.notes.push(format!(
            "The memory was not watched: that takes {} MB of disk, and {} MB are free.",
            need / 1_000_000,
            free / 1_000_000
        ));
        return Ok(());
    }
    let name = format!("{}/bench:large", registry.host);
    push(session, &name, &[extent.large])?;
    let load = workspace::bin().join("bench-load").display().to_string();
    for puller in pullers {
        session.scratch.stop.check()?;
        call_owned(&puller.undo(&name))?;
        if let Some(daemon) = puller.daemon {
            forget_peaks(&daemon.daemons()?)?;
        }
        let mut argv = owned(&[&load, "peak"]);
        argv.extend(puller.argv(&name));
        let measured = printed(&argv);
        session.scratch.stop.check()?;
        let bytes = match (measured, puller.daemon) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(daemon)) => Ok(high_water(&daemon.daemons()?)),
            (Ok(figures), None) => figures
                .first()
                .map(|(_, kib, _)| kib * 1024.0)
                .context("bench-load says nothing"),
        };
        call_owned(&puller.undo(&name))?;
        match bytes {
            Ok(bytes) => {
                let mb = bytes / 1e6;
                table.row(&[puller.name, &figure(mb), ""]);
                if let Some(summary) = Summary::of(&[mb]) {
                    report.measured(&format!("{}, peak", puller.name), "MB", summary);
                }
            }
            Err(error) => table.row(&[puller.name, "–", &format!("{error:#}")]),
        }
    }
    report.tables.push(table);
    Ok(())
}

fn call_owned(argv: &[String]) -> Result<()> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    call(&words)
}

/// Has the kernel begin again with the peaks of processes: proc_pid_clear_refs(5).
fn forget_peaks(pids: &[i32]) -> Result<()> {
    for pid in pids {
        let file = format!("/proc/{pid}/clear_refs");
        fs::write(&file, "5").with_context(|| format!("write {file}"))?;
    }
    Ok(())
}

/// The peaks of the resident memory of processes (`VmHWM` of proc_pid_status(5)),
/// added, in bytes.
fn high_water(pids: &[i32]) -> f64 {
    let of = |pid: &i32| {
        let field = host::status_field(*pid, "VmHWM")?;
        field.split_whitespace().next()?.parse::<f64>().ok()
    };
    pids.iter().filter_map(of).sum::<f64>() * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_the_size_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 2_500_001).unwrap();
        let sizes = fs::read_dir(dir.path()).unwrap();
        let sizes = sizes.map(|entry| entry.unwrap().metadata().unwrap().len());
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [500_001, FILE, FILE]);
    }

    #[test]
    fn the_peak_of_a_process_is_known() {
        assert!(high_water(&[std::process::id() as i32]) > 100_000.0);
        assert_eq!(high_water(&[i32::MAX]), 0.0);
        assert!(forget_peaks(&[i32::MAX]).is_err());
    }

    #[test]
    fn an_image_is_a_word_of_its_own() {
        let puller = Puller {
            name: "x",
            pull: "pull \"$1\"".to_owned(),
            remove: "rm -rf a".to_owned(),
            daemon: None,
        };
        let timed = puller.timed("host:1/a b");
        assert_eq!(timed.argv[3..], ["sh", "host:1/a b"]);
        assert_eq!(timed.prepare, "sh -c 'rm -rf a' sh 'host:1/a b'");
        assert_eq!(Extent::of(60).layer * LAYERS, 200_000_000);
    }
}

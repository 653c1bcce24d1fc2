//! `bench build`: Dockerfiles of twenty commands, with and without a cache.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::dockerd::{self, Dockerd};
use super::hyperfine::{Timed, line, rounds};
use super::images::owned;
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, ratio, spread};
use super::table::Table;
use super::tools::{complaint, need};
use check::workspace;

/// The program of step 14, in `bin/`.
const OURS: &str = "step-14";

/// The image that the Dockerfile begins with.
const BASE: &str = "bench-base:latest";

/// The number of commands of the Dockerfile.
fn steps(runs: u32) -> usize {
    match runs {
        ..10 => 3,
        _ => 20,
    }
}

/// Something that builds images.
struct Builder {
    name: &'static str,
    /// Its command line, as words of a shell.
    words: String,
    /// `build`, with the options of every call.
    build: String,
}

impl Builder {
    /// The shell's command that makes the base of an archive on its input.
    fn import(&self, root: &str) -> Vec<String> {
        let words = &self.words;
        let script = match self.name {
            // It has no import.
            "buildah" => format!(
                "c=$({words} from scratch) && tar -C {root} -cf {root}.tar . && \
                 {words} add -q $c {root}.tar / && {words} commit -q $c {BASE} && \
                 {words} rm $c"
            ),
            _ => format!("tar -C {root} -c . | {words} import - {BASE}"),
        };
        owned(&["sh", "-c", &script])
    }

    fn timed(&self, what: &str, options: &str, context: &str) -> Timed {
        let (words, build) = (&self.words, &self.build);
        let script = format!("exec {words} {build} {options} {context} >/dev/null 2>&1");
        Timed {
            name: format!("{}, {what}", self.name),
            argv: owned(&["sh", "-c", &script]),
            prepare: String::new(),
        }
    }
}

/// Measures the builders that are here. Reports those that are missing.
pub fn run(session: &Session) -> Result<Report> {
    let steps = steps(session.runs);
    let mut report = Report::new(
        "build",
        &format!(
            "A Dockerfile of {steps} times `RUN true` on busybox, built without a network: with \
             an empty cache (`--no-cache`), and again when nothing has changed. Measured by \
             hyperfine."
        ),
    );
    if !workspace::bin().join(OURS).exists() {
        report.notes.push("step 14 is not here.".to_owned());
        return Ok(report);
    }
    let context = session.scratch.make("build-context")?;
    // Each is another one: equal instructions on equal layers are one to a cache.
    let commands = (1..=steps).map(|number| format!("RUN true {number}\n"));
    let text = format!("FROM {BASE}\n{}", commands.collect::<String>());
    fs::write(context.join("Dockerfile"), text).context("write the Dockerfile")?;
    let context = line(&[context.display().to_string()]);
    let dockerd = match dockerd::absent()? {
        Some(why) => Err(format!("docker is {why}")),
        None => Dockerd::start(session, "build-dockerd").map_err(|error| format!("{error:#}")),
    };
    session.scratch.stop.check()?;
    let mut builders = Vec::new();
    let all = all(session, dockerd.as_ref().ok(), &mut report);
    if let Err(why) = &dockerd {
        report.notes.push(format!("{why}."));
    }
    let root = line(&[session.root.display().to_string()]);
    for builder in all {
        session.scratch.stop.check()?;
        let first = builder.timed("", "", &context).argv;
        let why = match complaint(&builder.import(&root))? {
            None => complaint(&first)?,
            some => some,
        };
        match why {
            None => builders.push(builder),
            Some(why) if builders.is_empty() => bail!("{}: {why}", builder.name),
            Some(why) => report
                .notes
                .push(format!("{} refused: {why}.", builder.name)),
        }
    }
    for (what, options) in [("uncached", "--no-cache"), ("cached", "")] {
        let mut timed: Vec<Timed> = builders
            .iter()
            .map(|builder| builder.timed(what, options, &context))
            .collect();
        if what == "uncached" {
            timed.push(by_hand(&builders[0], steps));
        }
        add(session, &mut report, what, &timed)?;
    }
    let note = "docker's figures include its client; it builds with BuildKit.";
    report.notes.push(note.to_owned());
    Ok(report)
}

/// The same by `run`, `commit` and `rm`, one after the other.
fn by_hand(ours: &Builder, steps: usize) -> Timed {
    let words = &ours.words;
    let script = format!(
        "for n in $(seq {steps}); do \
         {words} run --name bench-$n --network none {BASE} true && \
         {words} commit bench-$n bench-by-hand:$n && \
         {words} rm bench-$n || exit; done >/dev/null 2>&1"
    );
    Timed {
        name: format!("{steps} times run, commit, rm"),
        argv: owned(&["sh", "-c", &script]),
        prepare: String::new(),
    }
}

/// All that build here. The first is ours.
fn all(session: &Session, dockerd: Option<&Dockerd>, report: &mut Report) -> Vec<Builder> {
    let scratch = &session.scratch;
    let program = workspace::bin().join(OURS).display().to_string();
    let mut all = vec![Builder {
        name: "drydock",
        words: line(&[program, "--root".to_owned(), scratch.word("built")]),
        build: "build --network none -q -t bench-built".to_owned(),
    }];
    match need("buildah") {
        Ok(_) => {
            let words = ["buildah", "--storage-driver", "overlay", "--root"];
            let mut words = owned(&words);
            words.push(scratch.word("buildah-root"));
            words.push("--runroot".to_owned());
            words.push(scratch.run().join("buildah").display().to_string());
            all.push(Builder {
                name: "buildah",
                words: line(&words),
                build: "bud --layers --pull=never --network none -q -t bench-built".to_owned(),
            });
        }
        Err(error) => report.notes.push(format!("{error}.")),
    }
    if let Some(dockerd) = dockerd {
        let mut words = dockerd.words();
        // Debian's client has BuildKit in it; another one may need a plugin.
        let debians = "/usr/bin/docker";
        if Path::new(debians).exists() {
            words[0] = debians.to_owned();
        }
        all.push(Builder {
            name: "docker",
            words: format!("env DOCKER_BUILDKIT=1 {}", line(&words)),
            build: "build --network none -q -t bench-built".to_owned(),
        });
    }
    all
}

fn add(session: &Session, report: &mut Report, what: &str, timed: &[Timed]) -> Result<()> {
    let runs = (session.runs / 10).clamp(2, 10);
    let dir = session.scratch.make("hyperfine")?;
    let times = rounds(timed, runs, &dir, &session.scratch.stop)?;
    let title = format!("{} steps, {what}", steps(session.runs));
    let mut table = Table::new(&title, &["", "median, ms", "quartiles", "against drydock"]);
    let ours = times.first().and_then(|times| Summary::of(times));
    for (timed, times) in timed.iter().zip(&times) {
        let milliseconds: Vec<f64> = times.iter().map(|seconds| seconds * 1e3).collect();
        let (Some(summary), Some(ours)) = (Summary::of(&milliseconds), &ours) else {
            continue;
        };
        table.row(&[
            &timed.name,
            &figure(summary.median),
            &spread(&summary),
            &ratio(summary.median / (ours.median * 1e3)),
        ]);
        report.measured(&timed.name, "ms", summary);
    }
    report.tables.push(table);
    Ok(())
}

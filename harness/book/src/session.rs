//! Boots the machine, runs the transcripts of the chapters in it, and compares.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::compare::Known;
use super::shell::{self, Kind, Line, Output, Session};
use super::transcript::{self, Block, Command};
use super::varies::Varies;
use super::{Page, shown};
use check::report::seconds;
use check::{build, registry, workspace};
use vm::{CgroupLayout, Vm};

/// The least percentage of blocks that must be run.
const PERCENT_RUN: usize = 95;

/// The time limit for the transcripts of one machine.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The number of blocks by outcome.
#[derive(Debug, Default)]
pub struct Tally {
    /// Blocks whose outputs all match the book's.
    pub passed: usize,
    /// Blocks with an output that differs or is missing.
    pub failed: usize,
    /// Blocks marked `norun`, with a reason.
    pub not_run: usize,
}

impl Tally {
    /// Whether no block failed, and enough blocks were run.
    pub fn good(&self) -> bool {
        let all = self.passed + self.failed + self.not_run;
        self.failed == 0 && (all - self.not_run) * 100 >= all * PERCENT_RUN
    }
}

/// What is written into the pages.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// Outputs that differ.
    pub differences: bool,
    /// The values of this run, into pages in which nothing differs or
    /// differences are written too.
    pub values: bool,
}

/// A page with its blocks, and what may vary in them.
struct Script {
    page: Page,
    blocks: Vec<Block>,
    varies: Varies,
}

/// Runs the transcripts of the pages whose names begin with one of `wanted`, or
/// of all pages, and prints the results. Rewrites the pages as told.
pub fn run(wanted: &[String], rewrite: Rewrite) -> Result<Tally> {
    let scripts = read(wanted)?;
    let numbers = registry::numbers(&workspace::checks())?;
    build::programs(&numbers)?;
    workspace::need_rootfs("busybox")?;
    let (outputs, trouble) = run_all(&scripts)?;
    let mut tally = Tally::default();
    for script in &scripts {
        judge(script, &outputs, rewrite, &mut tally)?;
    }
    for line in trouble {
        println!("  {line}");
    }
    Ok(tally)
}

/// Runs the transcripts in as many machines at once as there are processors.
fn run_all(scripts: &[Script]) -> Result<(Outputs, Vec<String>)> {
    let machines = available_parallelism().map_or(1, usize::from);
    let mut loads = Vec::new();
    for layout in [CgroupLayout::V2, CgroupLayout::V1, CgroupLayout::Hybrid] {
        let mut shares: Vec<Vec<Session>> = (0..machines).map(|_| Vec::new()).collect();
        let lines = |share: &Vec<Session>| share.iter().map(|s| s.lines.len()).sum::<usize>();
        for session in scripts.iter().filter_map(|script| session(script, layout)) {
            if let Some(least) = shares.iter_mut().min_by_key(|share| lines(share)) {
                least.push(session);
            }
        }
        loads.extend(shares.into_iter().map(|share| (layout, share)));
    }
    loads.retain(|(_, share)| !share.is_empty());
    let next = AtomicUsize::new(0);
    let work = || -> Result<(Outputs, Vec<String>)> {
        let (mut outputs, mut trouble) = (Outputs::new(), Vec::new());
        while let Some((layout, sessions)) = loads.get(next.fetch_add(1, Ordering::Relaxed)) {
            trouble.extend(boot(sessions, *layout, &mut outputs)?);
        }
        Ok((outputs, trouble))
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..machines).map(|_| scope.spawn(work)).collect();
        let (mut outputs, mut trouble) = (Outputs::new(), Vec::new());
        for worker in workers {
            let (more, words) = worker.join().map_err(|_| anyhow!("a thread panicked"))??;
            outputs.extend(more);
            trouble.extend(words);
        }
        Ok((outputs, trouble))
    })
}

fn read(wanted: &[String]) -> Result<Vec<Script>> {
    let mut scripts = Vec::new();
    for page in super::pages()? {
        let name = page.name();
        if !wanted.is_empty() && !wanted.iter().any(|w| name.starts_with(w.as_str())) {
            continue;
        }
        let blocks = transcript::blocks(&page.text)
            .with_context(|| format!("{}: its transcripts", shown(&page.file())))?;
        let varies = Varies::of(&page)?;
        scripts.push(Script {
            page,
            blocks,
            varies,
        });
    }
    if scripts.is_empty() {
        bail!("no page of the book begins with {}", wanted.join(" or "));
    }
    Ok(scripts)
}

/// The blocks of a page that run on one layout.
fn of(script: &Script, layout: CgroupLayout) -> impl Iterator<Item = &Block> {
    let run = move |block: &&Block| block.norun.is_none() && block.cgroup == layout;
    script.blocks.iter().filter(run)
}

fn session(script: &Script, layout: CgroupLayout) -> Option<Session> {
    let commands: Vec<&Command> = of(script, layout)
        .flat_map(|block| &block.commands)
        .collect();
    if commands.is_empty() {
        return None;
    }
    let mut nested = vec!["$"];
    let mut lines = Vec::new();
    for (place, command) in commands.iter().enumerate() {
        let next = commands.get(place + 1).map_or("$", |c| c.prompt.as_str());
        let kind = if nested.last() == Some(&next) {
            Kind::Plain
        } else if let Some(outer) = nested.iter().position(|prompt| *prompt == next) {
            nested.truncate(outer + 1);
            Kind::Leaves
        } else {
            nested.push(next);
            Kind::Enters
        };
        lines.push(Line {
            text: command.text.clone(),
            kind,
        });
    }
    Some(Session {
        name: script.page.name().to_owned(),
        lines,
    })
}

type Outputs = BTreeMap<(CgroupLayout, String, usize), String>;

/// Runs the sessions in one machine; returns what went wrong, one line each.
fn boot(sessions: &[Session], cgroup: CgroupLayout, outputs: &mut Outputs) -> Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let json = serde_json::to_vec(sessions).context("write the sessions as JSON")?;
    fs::write(file.path(), json).context("write the sessions")?;
    let plan = "/run/book.json";
    let mut files = files();
    files.push((file.path().to_owned(), PathBuf::from(plan)));
    files.push((workspace::rootfs("busybox"), PathBuf::from(shell::PRISTINE)));
    let vm = Vm {
        cgroup,
        files,
        command: ["harness", "book", "run", plan].map(str::to_owned).into(),
        time_limit: TIME_LIMIT,
        resume: true,
        ..Vm::default()
    };
    let begun = Instant::now();
    let mut trouble = Vec::new();
    let result = vm.run(&mut |line| match serde_json::from_str::<Output>(line) {
        Ok(output) => {
            outputs.insert((cgroup, output.session, output.place), output.text);
        }
        Err(_) => trouble.push(line.to_owned()),
    })?;
    if result.status != 0 {
        trouble.push(format!("the machine ended with status {}", result.status));
    }
    println!(
        "{}: {} sessions, {}",
        result.description,
        sessions.len(),
        seconds(begun.elapsed())
    );
    Ok(trouble)
}

/// Where the machine has the programs of all steps.
pub const PROGRAMS: &str = "/usr/local/bin";

/// The programs and the root file system for the machine. `./just vm` takes the
/// same files, so that a reader finds there what the book shows.
pub fn files() -> Vec<(PathBuf, PathBuf)> {
    let mut files = Vec::new();
    let pairs = [
        (workspace::bin(), PROGRAMS),
        (workspace::rootfs("busybox"), "/srv/busybox"),
    ];
    for (from, inside) in pairs {
        if from.is_dir() {
            files.push((from, Path::new(inside).to_owned()));
        }
    }
    files
}

fn judge(script: &Script, outputs: &Outputs, rewrite: Rewrite, tally: &mut Tally) -> Result<()> {
    let name = script.page.name();
    let mut changes: Vec<(&Command, String)> = Vec::new();
    let mut places: BTreeMap<CgroupLayout, usize> = BTreeMap::new();
    let mut known: BTreeMap<CgroupLayout, Known> = BTreeMap::new();
    let before = (tally.passed, tally.failed, tally.not_run);
    for block in &script.blocks {
        if block.norun.is_some() {
            tally.not_run += 1;
            continue;
        }
        let mut good = true;
        for command in &block.commands {
            let place = places.entry(block.cgroup).or_default();
            let key = (block.cgroup, name.to_owned(), *place);
            *place += 1;
            let Some(output) = outputs.get(&key) else {
                println!("{}:{}: not run: {}", name, command.from, command.text);
                good = false;
                continue;
            };
            let known = known.entry(block.cgroup).or_default();
            let patterns = script.varies.patterns(command);
            let seen = known.compare(&command.expected, output, patterns);
            if !seen.differences.is_empty() {
                good = false;
                println!(
                    "{}:{}: {} {}",
                    name, command.from, command.prompt, command.text
                );
                for line in &seen.differences {
                    println!("    {line}");
                }
            }
            let instead = match rewrite.values {
                true => seen.recorded,
                false => seen.corrected,
            };
            if instead != command.expected {
                changes.push((command, instead));
            }
        }
        match good {
            true => tally.passed += 1,
            false => tally.failed += 1,
        }
    }
    let (passed, failed, not_run) = (
        tally.passed - before.0,
        tally.failed - before.1,
        tally.not_run - before.2,
    );
    if passed + failed + not_run > 0 {
        println!("{name}: {passed} of {} blocks", passed + failed + not_run);
    }
    let write = rewrite.differences || (rewrite.values && failed == 0);
    if write && !changes.is_empty() {
        write_page(&script.page, &changes)?;
    } else if rewrite.values && failed > 0 {
        println!("{name}: it differs, so its values are not recorded");
    }
    Ok(())
}

fn write_page(page: &Page, changes: &[(&Command, String)]) -> Result<()> {
    let mut lines: Vec<String> = page.text.lines().map(str::to_owned).collect();
    for (command, instead) in changes.iter().rev() {
        let new = instead.lines().map(str::to_owned);
        lines.splice(command.from..command.to, new);
    }
    let file = page.file();
    fs::write(&file, lines.join("\n") + "\n").with_context(|| format!("write {}", file.display()))
}

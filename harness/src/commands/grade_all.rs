//! `harness grade-all NN DIR`: grades a folder of submissions.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use check::report::seconds;
use course::grade::class::{Entry, Folder, Kept, Results, Row, csv, fingerprint};
use course::grade::grader::{Grader, Limits, News};
use course::grade::marks::{Marks, replace, tame};
use course::grade::place::Place;
use course::grade::submission::Submission;

/// Width of the table in columns.
const WIDTH: usize = 100;

/// Arguments of `harness grade-all`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// The folder: each directory or zip in it is a submission, named for the
    /// student
    dir: PathBuf,

    /// Number graded at once [default: what processors and memory allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// Where the marks of each go, as JSON and as text [default: beside the
    /// folder, DIR-marks-NN]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,

    /// The table, a row a student and a column a check [default: marks.csv
    /// among the results]
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Grade submissions again that already have marks
    #[arg(long)]
    again: bool,

    #[command(flatten)]
    limits: Limits,
}

/// Grades every submission of the folder, some at once, and prints and writes
/// the result of each immediately. A submission whose sources are unchanged
/// since an earlier run keeps its marks. The exit status is 1 if a submission
/// could not be graded; the others have marks.
pub fn grade_all(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let folder = Folder::read(&args.dir)?;
    for other in &folder.others {
        eprintln!("{other} is neither a directory nor a zip: skipped");
    }
    let dir = match &args.results {
        Some(dir) => dir.clone(),
        None => beside(&args.dir, &number)?,
    };
    let results = Results::at(&dir)?;
    let class = Class {
        grader: Grader::new(&number, args.limits)?,
        again: args.again,
        results,
    };
    let jobs = args.jobs.map_or_else(fitting, usize::from);
    let jobs = jobs.min(folder.entries.len());
    let begun = Instant::now();
    let mut table = Table {
        class: &class,
        entries: &folder.entries,
        csv: args.csv.unwrap_or_else(|| dir.join("marks.csv")),
        ended: BTreeMap::new(),
        running: BTreeMap::new(),
    };
    table.head(jobs)?;
    let next = AtomicUsize::new(0);
    let (news, received) = channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (class, entries, next, news) = (&class, &folder.entries, &next, news.clone());
            scope.spawn(move || class.work(entries, next, &news));
        }
        drop(news);
        received
            .into_iter()
            .try_for_each(|(place, event)| table.take(place, event))
    })?;
    println!(
        "{} of {} have marks, after {}: {} and {}/NAME.txt",
        table.with_marks(),
        folder.entries.len(),
        seconds(begun.elapsed()),
        table.csv.display(),
        dir.display()
    );
    let all = table.with_marks() == folder.entries.len();
    Ok(ExitCode::from(u8::from(!all)))
}

/// The directory for the results of a folder. It is beside the folder: the next
/// run would take a directory in it for a submission.
fn beside(folder: &Path, number: &str) -> Result<PathBuf> {
    let folder =
        fs::canonicalize(folder).with_context(|| format!("realpath {}", folder.display()))?;
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!("-marks-{number}"));
    Ok(folder.with_file_name(name))
}

/// Number of machines that fit on this one. Each needs two processors and up to
/// 2 GiB, and a compiler before that.
fn fitting() -> usize {
    const EACH: usize = 2560 << 10;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    let memory = available.map_or(1, |kib| kib / EACH);
    memory.min(processors / 2).max(1)
}

/// News of a submission.
enum Event {
    Doing(String),
    Ended(Result<Graded>),
}

/// Marks, and whether an earlier run gave them.
struct Graded {
    marks: Marks,
    before: bool,
}

struct Class {
    grader: Grader,
    results: Results,
    again: bool,
}

impl Class {
    /// Grades one submission after another, until none is left or the receiver
    /// is gone.
    fn work(&self, entries: &[Entry], next: &AtomicUsize, news: &Sender<(usize, Event)>) {
        let mut place = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = entries.get(number) else {
                return;
            };
            let ended = self.one(entry, &mut place, &|doing| {
                let sent = news.send((number, Event::Doing(doing)));
                sent.map_err(|_| anyhow!("the table was given up"))
            });
            if news.send((number, Event::Ended(ended))).is_err() {
                return;
            }
        }
    }

    fn one(
        &self,
        entry: &Entry,
        place: &mut Option<Place>,
        doing: &dyn Fn(String) -> Result<()>,
    ) -> Result<Graded> {
        let step = &self.grader.step;
        let fingerprint = match Submission::read(&entry.path, &step.step) {
            Ok(read) => fingerprint(step, &self.grader.tests, &read)?,
            // It gets marks without a fingerprint: no points, and quickly.
            Err(_) => String::new(),
        };
        if !self.again
            && !fingerprint.is_empty()
            && let Some(kept) = self.results.kept(&entry.name, &fingerprint)
        {
            return Ok(Graded {
                marks: kept.marks,
                before: true,
            });
        }
        let place = match place {
            Some(place) => place,
            None => place.insert(Place::free()?),
        };
        let keep = |marks: &Marks, finished| {
            self.results.keep(&Kept {
                name: entry.name.clone(),
                fingerprint: fingerprint.clone(),
                finished,
                marks: marks.clone(),
            })
        };
        let marks = self
            .grader
            .grade(&entry.path, place, &mut |news| match news {
                News::Building => doing("building".to_owned()),
                News::Booting => doing("booting".to_owned()),
                News::Checked(records) => {
                    doing(format!("{} of {}", records.len(), step.checks.len()))?;
                    keep(&Marks::so_far(step, records), false)
                }
            })?;
        keep(&marks, true)?;
        Ok(Graded {
            marks,
            before: false,
        })
    }
}

/// The table, printed on standard output and written to a file.
struct Table<'a> {
    class: &'a Class,
    entries: &'a [Entry],
    csv: PathBuf,
    ended: BTreeMap<usize, Result<Graded, String>>,
    running: BTreeMap<usize, String>,
}

impl Table<'_> {
    fn head(&self, jobs: usize) -> Result<()> {
        let step = &self.class.grader.step;
        let count = match self.entries.len() {
            1 => "1 submission".to_owned(),
            many => format!("{many} submissions, {jobs} at a time"),
        };
        writeln!(stdout(), "step {} · {} · {count}", step.step, step.title).context("print")
    }

    fn take(&mut self, place: usize, event: Event) -> Result<()> {
        match event {
            Event::Doing(what) => {
                self.running.insert(place, what);
            }
            Event::Ended(ended) => {
                self.running.remove(&place);
                self.ended
                    .insert(place, ended.map_err(|error| tame(&format!("{error:#}"))));
                self.clear()?;
                self.row(place)?;
                self.write()?;
            }
        }
        self.show()
    }

    fn row(&self, place: usize) -> Result<()> {
        let (score, note) = match &self.ended[&place] {
            Ok(Graded { marks, before }) => {
                let summary = marks.summary();
                let note = match (before, summary.is_empty()) {
                    (false, _) => summary,
                    (true, true) => "graded before".to_owned(),
                    (true, false) => format!("graded before: {summary}"),
                };
                (format!("{}/{}", marks.points(), marks.of_all()), note)
            }
            Err(why) => ("-".to_owned(), format!("no marks: {why}")),
        };
        let widths = self.entries.iter().map(|e| e.name.chars().count());
        let width = widths.max().unwrap_or(0).min(32);
        let name = tame(&self.entries[place].name).replace('\n', " ");
        let line = format!("  {name:width$}  {score:>7}  {}", note.replace('\n', " "));
        let cut: String = line.chars().take(WIDTH - 1).collect();
        let end = if cut.len() < line.len() { "…" } else { "" };
        writeln!(stdout(), "{}{end}", cut.trim_end()).context("print")
    }

    /// Writes the table so far, ordered by name.
    fn write(&self) -> Result<()> {
        let rows: Vec<Row<'_>> = self
            .ended
            .iter()
            .map(|(place, ended)| Row {
                name: &self.entries[*place].name,
                marks: ended.as_ref().map(|g| &g.marks).map_err(String::as_str),
            })
            .collect();
        replace(&self.csv, &csv(&self.class.grader.step, &rows)?)
    }

    /// Shows the running submissions on a terminal.
    fn show(&self) -> Result<()> {
        if !stderr().is_terminal() || self.running.is_empty() {
            return Ok(());
        }
        let mut line = format!("{} of {}", self.ended.len(), self.entries.len());
        for (place, what) in &self.running {
            line += &format!(" · {}: {what}", tame(&self.entries[*place].name));
        }
        let line: String = line.chars().take(WIDTH - 21).collect();
        write!(stderr(), "\r\x1b[K{line}").context("print")
    }

    fn clear(&self) -> Result<()> {
        if !stderr().is_terminal() {
            return Ok(());
        }
        write!(stderr(), "\r\x1b[K").context("print")
    }

    fn with_marks(&self) -> usize {
        self.ended.values().filter(|ended| ended.is_ok()).count()
    }
}

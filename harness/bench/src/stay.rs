//! `bench stay`: containers that stay when the command line has ended, and the
//! process that stays with each: its monitor.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::chart::{Bar, Chart};
use super::herd::{LIMIT, await_output, ends_by, first_byte, too_many};
use super::keepers::{self, Absent, KEEPERS, Keeper, Memory};
use super::report::Report;
use super::scratch::Stop;
use super::session::Session;
use super::stats::{Summary, figure, ratio, spread};
use super::table::Table;
use super::tools::last_words;
use check::sys::bind_child;

/// A line of a log, 100 bytes with its end.
const LINE: &str = "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \
                    0123456789 01234567890";

/// The options that keep a log short.
const SHORT: [&str; 2] = ["--log-opt", "max-size=10m"];

/// How much is measured.
struct Extent {
    /// The rounds of short commands.
    rounds: u32,
    /// The rounds of the log.
    logs: u32,
    /// The bytes of a log that is read.
    log: u64,
    /// The bytes that pass through a log that is kept short.
    long: u64,
    /// The numbers of containers at once, of drydock and of the others, each of
    /// which takes a second to start and stop, and whose clients are large.
    many: [usize; 2],
}

impl Extent {
    fn of(runs: u32) -> Extent {
        match runs {
            ..10 => Extent {
                rounds: runs,
                logs: 1,
                log: 2_000_000,
                long: 20_000_000,
                many: [5, 3],
            },
            _ => Extent {
                rounds: (runs / 3).clamp(4, 20),
                logs: (runs / 20).clamp(1, 3),
                log: 100_000_000,
                long: 1_000_000_000,
                many: [300, 20],
            },
        }
    }
}

/// Measures the engines that are here, in turns. One that fails on the way
/// becomes a row with the reason.
pub fn run(session: &Session) -> Result<Report> {
    // The thread unshares its network namespace, which ends with the thread and
    // what it started: a dockerd must not touch the host's network.
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
    let mut report = Report::new(
        "stay",
        "Containers in the background, in turns, without a network: the program of step 12 \
         beside engines with a monitor of each container or a daemon. Memory is that of the \
         monitors, the processes that stay with the containers.",
    );
    let (keepers, absent) = keepers::all(session)?;
    one(session, &extent, &keepers, &absent, &mut report)?;
    logs(session, &extent, &keepers, &absent, &mut report)?;
    long(session, &extent, &keepers, &absent, &mut report)?;
    many(session, &extent, &keepers, &absent, &mut report)?;
    report.notes.push(
        "\"Own\" is the monitor's private dirty memory: what one more of them costs. PSS adds \
         its share of the program's pages, which all monitors and commands of a program have in \
         common: compare it for one container and for many. The monitors are drydock's own, \
         conmon and containerd-shim; docker's daemons are a dockerd of the bench's own and its \
         containerd, which exist once."
            .to_owned(),
    );
    report.notes.push(
        "The goals of step 12: at most 512 KiB of a monitor's own, the same after a gigabyte of \
         log, and an exec in at most a third of docker's time."
            .to_owned(),
    );
    Ok(report)
}

/// The rows of a table, one for each engine: the cells of those that have been
/// measured, the reason of the others in the last column.
fn rows(table: &mut Table, results: &[(&str, Result<Vec<String>>)], absent: &[Absent]) {
    for name in KEEPERS {
        if let Some((_, why)) = absent.iter().find(|(other, _)| *other == name) {
            refused(table, name, why);
        }
        for (_, result) in results.iter().filter(|(other, _)| *other == name) {
            match result {
                Ok(cells) => {
                    let cells = cells.iter().map(String::as_str);
                    table.row(&[name].into_iter().chain(cells).collect::<Vec<_>>());
                }
                Err(error) => refused(table, name, &format!("{error:#}")),
            }
        }
    }
}

fn refused(table: &mut Table, name: &str, why: &str) {
    let mut row = vec![""; table.columns.len()];
    row[..2].copy_from_slice(&[name, "–"]);
    if let Some(last) = row.last_mut() {
        *last = why;
    }
    table.row(&row);
}

/// Runs `work` for each engine, in odd rounds the last first. An interrupt ends
/// the bench, another error the work of that engine, whose containers are
/// removed.
fn each<'a, T>(
    session: &Session,
    keepers: &'a [Keeper],
    round: u32,
    work: impl Fn(&Keeper) -> Result<T>,
) -> Result<Vec<(&'a Keeper, Result<T>)>> {
    let mut all = Vec::new();
    for at in turn(round, keepers.len()) {
        let keeper = &keepers[at];
        session.scratch.stop.check()?;
        let done = work(keeper);
        session.scratch.stop.check()?;
        if done.is_err() {
            keeper.remove_all()?;
        }
        all.push((at, (keeper, done)));
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, done)| done).collect())
}

/// The order of a round: forth, or back in odd ones.
fn turn(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// The measurements of single containers.
#[derive(Default)]
struct One {
    start: Vec<f64>,
    exec: Vec<f64>,
    own: Vec<f64>,
    pss: Vec<f64>,
    daemons: Option<f64>,
    error: Option<anyhow::Error>,
}

fn one(
    session: &Session,
    extent: &Extent,
    keepers: &[Keeper],
    absent: &[Absent],
    report: &mut Report,
) -> Result<()> {
    let mut all: Vec<One> = keepers.iter().map(|_| One::default()).collect();
    for round in 0..extent.rounds {
        for at in turn(round, keepers.len()) {
            if all[at].error.is_some() {
                continue;
            }
            session.scratch.stop.check()?;
            if let Err(error) = once(&keepers[at], &mut all[at]) {
                session.scratch.stop.check()?;
                keepers[at].remove_all()?;
                all[at].error = Some(error);
            }
        }
    }
    let ours = keepers.iter().position(|keeper| keeper.name == KEEPERS[0]);
    let base = ours.and_then(|at| Summary::of(&all[at].exec));
    let mut table = Table::new(
        "One container in the background",
        &[
            "",
            "run -d, ms",
            "quartiles",
            "exec true, ms",
            "quartiles",
            "× drydock",
            "monitor: own, KiB",
            "PSS, KiB",
            "daemons: PSS, KiB",
            "",
        ],
    );
    let mut results = Vec::new();
    for (keeper, one) in keepers.iter().zip(all) {
        let cells = match one.error {
            Some(error) => Err(error),
            None => cells_of_one(keeper.name, &one, base.as_ref(), report),
        };
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    let bars = |what: &str| {
        let named = |name: &&str| {
            report
                .measures
                .iter()
                .find(|m| m.name == format!("{name} {what}"))
        };
        let found = KEEPERS.iter().filter_map(|name| Some((name, named(name)?)));
        found.map(|(name, m)| Bar::of(name, &m.summary)).collect()
    };
    let charts = [("run -d", "ms"), ("exec", "ms"), ("monitor", "KiB")];
    let charts = charts.map(|(what, unit)| Chart {
        title: match what {
            "monitor" => "Memory of a monitor's own".to_owned(),
            "exec" => "exec true".to_owned(),
            _ => what.to_owned(),
        },
        unit: unit.to_owned(),
        bars: bars(what),
    });
    report.charts.extend(charts);
    report.tables.push(table);
    Ok(())
}

/// Starts a container, weighs its monitor, runs a command in it, removes it.
fn once(keeper: &Keeper, one: &mut One) -> Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let start = keeper.run("bench-one", &[], &["/bin/obey"])?;
    let memory = keeper.memory_of_monitors()?;
    let exec = keeper.call(&["exec", "bench-one", "true"])?;
    one.start.push(ms(start));
    one.exec.push(ms(exec));
    one.own.push(memory.own);
    one.pss.push(memory.pss);
    one.daemons = keeper.memory_of_daemons()?.map(|memory| memory.pss);
    keeper.remove(&["bench-one".to_owned()])
}

fn cells_of_one(
    name: &str,
    one: &One,
    base: Option<&Summary>,
    report: &mut Report,
) -> Result<Vec<String>> {
    let summary = |sample: &[f64]| Summary::of(sample).context("nothing was measured");
    let (start, exec) = (summary(&one.start)?, summary(&one.exec)?);
    let (own, pss) = (summary(&one.own)?, summary(&one.pss)?);
    for (what, unit, summary) in [
        ("run -d", "ms", start),
        ("exec", "ms", exec),
        ("monitor", "KiB", own),
        ("monitor, PSS", "KiB", pss),
    ] {
        report.measured(&format!("{name} {what}"), unit, summary);
    }
    Ok(vec![
        figure(start.median),
        spread(&start),
        figure(exec.median),
        spread(&exec),
        base.map_or(String::new(), |base| ratio(exec.median / base.median)),
        figure(own.median),
        figure(pss.median),
        one.daemons.map_or(String::new(), figure),
    ])
}

/// A script that writes so many bytes, in lines.
fn writes(bytes: u64) -> String {
    format!("yes '{LINE}' | head -c {bytes}")
}

/// The measurements of logs: following one from its beginning, and reading it
/// again.
#[derive(Default)]
struct Logs {
    times: [Vec<f64>; 2],
    /// The reason why one of the two does not count: an engine may lose lines.
    lost: Option<String>,
    error: Option<anyhow::Error>,
}

fn logs(
    session: &Session,
    extent: &Extent,
    keepers: &[Keeper],
    absent: &[Absent],
    report: &mut Report,
) -> Result<()> {
    let mut all: Vec<Logs> = keepers.iter().map(|_| Logs::default()).collect();
    for round in 0..extent.logs {
        let reads = each(session, keepers, round, |keeper| {
            read(session, keeper, extent.log)
        })?;
        for (logs, (_, done)) in all.iter_mut().zip(reads) {
            match done {
                Err(error) => logs.error = Some(error),
                Ok(times) => {
                    for (sample, time) in logs.times.iter_mut().zip(times) {
                        match time {
                            Ok(time) => sample.push(time),
                            Err(why) => logs.lost = Some(format!("{why:#}")),
                        }
                    }
                }
            }
        }
    }
    let mb = extent.log as f64 / 1e6;
    let mut table = Table::new(
        &format!("A log of {} MB, in lines of 100 bytes", figure(mb)),
        &[
            "",
            "logs, s",
            "MB/s",
            "× drydock",
            "run -d and logs -f, s",
            "MB/s",
            "",
        ],
    );
    let base = keepers.iter().position(|keeper| keeper.name == KEEPERS[0]);
    let base = base.and_then(|at| Summary::of(&all[at].times[1]));
    let mut results = Vec::new();
    for (keeper, logs) in keepers.iter().zip(all) {
        let cells = match logs.error {
            Some(error) => Err(error),
            None => Ok(cells_of_logs(keeper.name, &logs, mb, base.as_ref(), report)),
        };
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    report.tables.push(table);
    Ok(())
}

fn cells_of_logs(
    name: &str,
    logs: &Logs,
    mb: f64,
    base: Option<&Summary>,
    report: &mut Report,
) -> Vec<String> {
    let [follow, again] = logs.times.each_ref().map(|sample| Summary::of(sample));
    for (what, summary) in [("logs -f", follow), ("logs", again)] {
        if let Some(summary) = summary {
            report.measured(&format!("{name} {what}"), "s", summary);
        }
    }
    let cell = |summary: &Option<Summary>, of: &dyn Fn(f64) -> String| {
        let median = summary.map(|summary| summary.median);
        median.map_or("–".to_owned(), of)
    };
    let speed = |seconds: f64| figure(mb / seconds);
    let against = |seconds: f64| base.map_or(String::new(), |base| ratio(seconds / base.median));
    vec![
        cell(&again, &figure),
        cell(&again, &speed),
        cell(&again, &against),
        cell(&follow, &figure),
        cell(&follow, &speed),
        logs.lost.clone().unwrap_or_default(),
    ]
}

/// Starts a container that writes so many bytes and ends. Returns the seconds
/// until `logs -f` has printed all of them, and the seconds that `logs` takes
/// when the container has ended.
fn read(session: &Session, keeper: &Keeper, bytes: u64) -> Result<[Result<f64>; 2]> {
    let name = "bench-log";
    let print = |args: &[&str], begun: Instant| {
        let argv = keeper.argv(&[args, &[name]].concat());
        let printed = printed(&argv, bytes, begun, &session.scratch.stop);
        let printed = printed.with_context(|| args.join(" "));
        printed.map(|time| time.as_secs_f64())
    };
    let begun = Instant::now();
    keeper.run(name, &[], &["sh", "-c", &writes(bytes)])?;
    let follow = print(&["logs", "-f"], begun);
    keeper.call(&["wait", name])?;
    let again = print(&["logs"], Instant::now());
    keeper.remove(&[name.to_owned()])?;
    Ok([follow, again])
}

/// Runs a command until it has printed so many bytes, and returns the time since
/// `begun`. The command is ended then: `logs -f` may go on for a while after
/// the container's end.
///
/// # Errors
/// If it prints less, or nothing for a minute; if a signal arrives.
fn printed(argv: &[String], bytes: u64, begun: Instant, stop: &Stop) -> Result<Duration> {
    let mut followers = Followers(vec![follow(argv, Stdio::null())?]);
    let stdout = followers.0[0].stdout.as_mut();
    let stdout = stdout.context("no standard output")?;
    let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
    while count < bytes {
        await_output(&*stdout, LIMIT, &|| stop.check())?;
        match stdout.read(&mut buffer).context("read")? {
            0 => bail!("{count} of {bytes} bytes were printed"),
            n => count += n as u64,
        }
    }
    ensure!(
        count == bytes,
        "{count} bytes were printed instead of {bytes}"
    );
    Ok(begun.elapsed())
}

/// Starts a command whose output is read from a pipe, and which ends with the
/// bench.
fn follow(argv: &[String], stderr: Stdio) -> Result<Child> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(stderr);
    bind_child(&mut command, Vec::new(), Signal::SIGKILL);
    command.spawn().with_context(|| format!("run {}", argv[0]))
}

/// What a long log does to the processes.
struct Long {
    seconds: f64,
    monitor: [Memory; 2],
    daemons: Option<[Memory; 2]>,
}

fn long(
    session: &Session,
    extent: &Extent,
    keepers: &[Keeper],
    absent: &[Absent],
    report: &mut Report,
) -> Result<()> {
    let dir = session.scratch.make("told")?;
    for name in ["go", "done"] {
        let fifo = dir.join(name);
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).context("mkfifo")?;
    }
    let mut table = Table::new(
        &format!(
            "Memory before and after {} MB of log, in KiB, with --log-opt max-size=10m",
            figure(extent.long as f64 / 1e6)
        ),
        &[
            "",
            "monitor: own, before",
            "after",
            "grown by",
            "daemons: PSS, before",
            "after",
            "log, MB/s",
            "",
        ],
    );
    let mut results = Vec::new();
    for (keeper, done) in each(session, keepers, 0, |keeper| {
        through(session, keeper, extent.long, &dir)
    })? {
        let cells = done.map(|long| {
            let [before, after] = long.monitor.map(|memory| memory.own);
            let speed = extent.long as f64 / 1e6 / long.seconds;
            for (what, unit, value) in [
                ("monitor before a long log", "KiB", before),
                ("monitor after a long log", "KiB", after),
                ("long log", "MB/s", speed),
            ] {
                if let Some(summary) = Summary::of(&[value]) {
                    report.measured(&format!("{} {what}", keeper.name), unit, summary);
                }
            }
            let daemons = long
                .daemons
                .map(|both| both.map(|memory| figure(memory.pss)));
            let [first, last] = daemons.unwrap_or_default();
            vec![
                figure(before),
                figure(after),
                figure(after - before),
                first,
                last,
                figure(speed),
            ]
        });
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    report.tables.push(table);
    Ok(())
}

/// Sends so many bytes through the log of a container, which waits for a word in
/// `go` before and says when it has written all in `done`.
fn through(session: &Session, keeper: &Keeper, bytes: u64, dir: &Path) -> Result<Long> {
    // Opened for both, a FIFO has a reader and a writer: nobody waits for the
    // other in open(2).
    let open = |name: &str| {
        let file = dir.join(name);
        let opened = OpenOptions::new().read(true).write(true).open(&file);
        opened.with_context(|| format!("open {}", file.display()))
    };
    let (mut go, mut done) = (open("go")?, open("done")?);
    let script = format!(
        "read word </told/go; {}; echo >/told/done; exec sleep 1000000",
        writes(bytes)
    );
    let volume = format!("{}:/told", dir.display());
    let options = [&SHORT[..], &["-v", &volume]].concat();
    keeper.run("bench-long", &options, &["sh", "-c", &script])?;
    let (monitor, daemons) = (keeper.memory_of_monitors()?, keeper.memory_of_daemons()?);
    let begun = Instant::now();
    go.write_all(b"go\n").context("write to a FIFO")?;
    while !readable(&done)? {
        session.scratch.stop.check()?;
        ensure!(
            !keeper.monitors()?.is_empty(),
            "the container has ended before it had written all"
        );
    }
    let seconds = begun.elapsed().as_secs_f64();
    done.read_exact(&mut [0]).context("read from a FIFO")?;
    let after = (keeper.memory_of_monitors()?, keeper.memory_of_daemons()?);
    keeper.remove(&["bench-long".to_owned()])?;
    Ok(Long {
        seconds,
        monitor: [monitor, after.0],
        daemons: daemons.zip(after.1).map(|(before, after)| [before, after]),
    })
}

/// Waits until there is something to read, a second at most.
fn readable(file: &fs::File) -> Result<bool> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(1000u16)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// The measurements of many containers at once.
struct Many {
    count: usize,
    start: Summary,
    all: f64,
    list: Summary,
    /// Of each monitor.
    monitor: Memory,
    /// The reason if not all could be followed.
    follow: std::result::Result<f64, String>,
    stop: f64,
}

fn many(
    session: &Session,
    extent: &Extent,
    keepers: &[Keeper],
    absent: &[Absent],
    report: &mut Report,
) -> Result<()> {
    let mut table = Table::new(
        "Many containers at once",
        &[
            "",
            "containers",
            "run -d, ms: median",
            "quartiles",
            "all, s",
            "ps, ms",
            "monitor of each: own, KiB",
            "PSS, KiB",
            "logs -f, s",
            "stop of all, s",
            "",
        ],
    );
    let mut results = Vec::new();
    for (keeper, done) in each(session, keepers, 0, |keeper| {
        let mut count = extent.many[usize::from(keeper.name != KEEPERS[0])];
        while count > 1 && too_many(count).is_some() {
            count /= 2;
        }
        at_once(session, keeper, count)
    })? {
        let cells = done.map(|many| {
            let name = format!("{} {}", keeper.name, many.count);
            report.measured(&format!("{name} run -d"), "ms", many.start);
            report.measured(&format!("{name} ps"), "ms", many.list);
            for (what, unit, value) in [
                ("start of all", "s", Some(many.all)),
                ("monitor", "KiB", Some(many.monitor.own)),
                ("monitor, PSS", "KiB", Some(many.monitor.pss)),
                ("logs -f", "s", many.follow.as_ref().ok().copied()),
                ("stop of all", "s", Some(many.stop)),
            ] {
                if let Some(summary) = value.and_then(|value| Summary::of(&[value])) {
                    report.measured(&format!("{name} {what}"), unit, summary);
                }
            }
            vec![
                many.count.to_string(),
                figure(many.start.median),
                spread(&many.start),
                figure(many.all),
                figure(many.list.median),
                figure(many.monitor.own),
                figure(many.monitor.pss),
                many.follow.as_ref().map_or("–".to_owned(), |&s| figure(s)),
                figure(many.stop),
                many.follow.err().unwrap_or_default(),
            ]
        });
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    report.tables.push(table);
    report.notes.push(format!(
        "Many containers are {} of drydock, and {} of the others, which take a second or so to \
         start and to stop each, and a client of tens of megabytes to follow: less where there is \
         not the memory for so many. Of each engine at most {FOLLOWED} logs are followed at the \
         same time: by default the kernel lets a user wait for changes of files 128 times.",
        extent.many[0], extent.many[1]
    ));
    Ok(())
}

/// Starts containers one after another, lists them, follows all of them at the
/// same time, and stops them by one command.
fn at_once(session: &Session, keeper: &Keeper, count: usize) -> Result<Many> {
    let stop = &session.scratch.stop;
    let names: Vec<String> = (0..count).map(|n| format!("bench-{n}")).collect();
    let begun = Instant::now();
    let mut starts = Vec::new();
    for name in &names {
        stop.check()?;
        starts.push(keeper.run(name, &[], &["/bin/obey"])?.as_secs_f64() * 1000.0);
    }
    let all = begun.elapsed().as_secs_f64();
    keeper.await_monitors(count)?;
    let memory = keeper.memory_of_monitors()?;
    let mut lists = Vec::new();
    for _ in 0..5 {
        stop.check()?;
        lists.push(keeper.call(&["ps"])?.as_secs_f64() * 1000.0);
    }
    let begun = Instant::now();
    let complaints = session.scratch.path("followers");
    let mut followers = Followers::default();
    let followed = followers.all(session, keeper, &names[..count.min(FOLLOWED)], &complaints);
    stop.check()?;
    let followed = match followed {
        Ok(()) => Ok(begun.elapsed().as_secs_f64()),
        Err(error) => {
            let said = last_words(&fs::read(&complaints).unwrap_or_default());
            Err(format!("logs -f: {error:#}: {said}"))
        }
    };
    let mut args = vec!["stop"];
    args.extend(names.iter().map(String::as_str));
    let stopped = keeper.call(&args)?.as_secs_f64();
    let end = Instant::now() + LIMIT;
    for follower in &mut followers.0 {
        ensure!(ends_by(follower, end)?, "logs -f does not end");
    }
    keeper.remove(&names)?;
    let of_each = |sum: f64| sum / count as f64;
    Ok(Many {
        count,
        start: Summary::of(&starts).context("no container")?,
        all,
        list: Summary::of(&lists).context("no list")?,
        monitor: Memory {
            own: of_each(memory.own),
            pss: of_each(memory.pss),
        },
        follow: followed,
        stop: stopped,
    })
}

/// The most logs that are followed at the same time. A command that waits for
/// more needs an inotify instance, of which a user has 128 by default
/// (inotify(7)).
const FOLLOWED: usize = 100;

/// Commands that follow logs. Dropping them ends them.
#[derive(Default)]
struct Followers(Vec<Child>);

impl Followers {
    /// Follows the logs of all these containers, and waits until each command
    /// has printed something. Their complaints go to a file.
    fn all(
        &mut self,
        session: &Session,
        keeper: &Keeper,
        names: &[String],
        complaints: &Path,
    ) -> Result<()> {
        let stderr = fs::File::create(complaints).context("create a file for complaints")?;
        for name in names {
            let stderr = stderr.try_clone().context("dup")?;
            let argv = keeper.argv(&["logs", "-f", name]);
            self.0.push(follow(&argv, Stdio::from(stderr))?);
        }
        for follower in &mut self.0 {
            let stdout = follower.stdout.as_mut().context("no standard output")?;
            first_byte(stdout, LIMIT, &|| session.scratch.stop.check())?;
        }
        Ok(())
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended, and been waited for, is killed no more.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("the end of logs -f: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_row_or_a_reason() {
        let mut table = Table::new("", &["", "ms", "x", ""]);
        let cells = vec!["1.0".to_owned(), "2".to_owned()];
        let results = [
            ("docker", Err(anyhow::anyhow!("b").context("a"))),
            ("drydock", Ok(cells)),
        ];
        rows(&mut table, &results, &[("podman", "missing".to_owned())]);
        assert_eq!(table.rows[0], ["drydock", "1.0", "2", ""]);
        assert_eq!(table.rows[1], ["podman", "–", "", "missing"]);
        assert_eq!(table.rows[2], ["docker", "–", "", "a: b"]);
    }

    #[test]
    fn an_exec_is_compared_with_drydocks() {
        let mut report = Report::default();
        let one = One {
            start: vec![100.0, 110.0],
            exec: vec![30.0],
            own: vec![400.0],
            pss: vec![500.0],
            daemons: Some(9000.0),
            error: None,
        };
        let base = Summary::of(&[10.0]);
        let cells = cells_of_one("docker", &one, base.as_ref(), &mut report).unwrap();
        assert_eq!(cells[4..], ["3.00×", "400", "500", "9000"]);
        assert_eq!(report.measures.len(), 4);
        assert!(cells_of_one("docker", &One::default(), None, &mut report).is_err());
    }

    #[test]
    fn an_engine_that_loses_lines_is_not_fast() {
        let mut report = Report::default();
        let logs = Logs {
            times: [vec![], vec![2.0]],
            lost: Some("logs -f: 1 of 2 bytes".to_owned()),
            error: None,
        };
        let base = Summary::of(&[1.0]);
        let cells = cells_of_logs("podman", &logs, 100.0, base.as_ref(), &mut report);
        assert_eq!(cells[..3], ["2.00", "50.0", "2.00×"]);
        assert_eq!(cells[3..], ["–", "–", "logs -f: 1 of 2 bytes"]);
        assert_eq!(report.measures.len(), 1);
    }

    #[test]
    fn few_runs_are_a_small_bench() {
        assert_eq!(LINE.len(), 99);
        let (small, whole) = (Extent::of(3), Extent::of(60));
        assert!(small.many < whole.many && small.long < whole.long);
        assert_eq!((whole.log, whole.long), (100_000_000, 1_000_000_000));
        assert_eq!(Extent::of(10).rounds, 4);
    }

    #[test]
    fn a_log_that_is_too_short_is_none() {
        let run = |bytes| {
            let argv = ["sh".to_owned(), "-c".to_owned(), writes(12_345)];
            printed(&argv, bytes, Instant::now(), &Stop::default())
        };
        assert!(run(12_345).is_ok());
        let short = run(12_346).unwrap_err();
        assert_eq!(short.to_string(), "12345 of 12346 bytes were printed");
        assert!(run(12_344).is_err());
    }
}

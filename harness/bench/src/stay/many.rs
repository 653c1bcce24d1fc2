//! Many containers in the background.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::follow::Followers;
use super::turns::{Turns, each, rows};
use crate::herd::{LIMIT, ends_by, too_many};
use crate::keepers::{KEEPERS, Keeper, Memory};
use crate::report::Report;
use crate::session::Session;
use crate::stats::{Summary, figure, spread};
use crate::table::Table;
use crate::tools::last_words;

/// The most logs that are followed at the same time. A command that waits for
/// more needs an inotify instance, of which a user has 128 by default
/// (inotify(7)).
const FOLLOWED: usize = 100;

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

pub(super) fn many(turns: &Turns, report: &mut Report) -> Result<()> {
    let Turns {
        session,
        extent,
        keepers,
        absent,
    } = turns;
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

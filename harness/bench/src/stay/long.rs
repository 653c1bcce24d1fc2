//! A long log that is kept short, and the memory of those that do so.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::follow::writes;
use super::turns::{Turns, each, rows};
use crate::keepers::{Keeper, Memory};
use crate::report::Report;
use crate::session::Session;
use crate::stats::{Summary, figure};
use crate::table::Table;

/// The options that keep a log short.
const SHORT: [&str; 2] = ["--log-opt", "max-size=10m"];

/// What a long log does to the processes.
struct Long {
    seconds: f64,
    monitor: [Memory; 2],
    daemons: Option<[Memory; 2]>,
}

pub(super) fn long(turns: &Turns, report: &mut Report) -> Result<()> {
    let Turns {
        session,
        extent,
        keepers,
        absent,
    } = turns;
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
fn readable(file: &File) -> Result<bool> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(1000u16)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("poll"),
    }
}

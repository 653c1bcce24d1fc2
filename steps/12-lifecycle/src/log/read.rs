//! Reading a log: the last lines, those of a span of time, and those to come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use kit::{ProcessIdentity, warn};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::log::{Entry, Output, file};
use crate::watch::Watch;

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only the last lines; `None` for all.
    pub tail: Option<usize>,
    /// Not those before.
    pub since: Option<SystemTime>,
    /// Not those after.
    pub until: Option<SystemTime>,
}

impl Wanted {
    fn takes(&self, entry: &Entry) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(time) = humantime::parse_rfc3339(&entry.time) else {
            return true;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    /// Whether nothing after this entry is wanted.
    fn ends_with(&self, entry: &Entry) -> bool {
        let time = humantime::parse_rfc3339(&entry.time);
        matches!((self.until, time), (Some(until), Ok(time)) if time > until)
    }
}

/// Calls `show` with every line of a container's log that is wanted, the oldest
/// first. Stops if `show` returns `false`: nobody reads any more.
pub fn past(
    directory: &Path,
    wanted: &Wanted,
    show: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<bool> {
    let mut open = Open::oldest(directory)?;
    Ok(run(directory, &mut open, wanted, show)? == Next::More)
}

/// Whether somebody still reads.
#[derive(PartialEq, Eq)]
enum Next {
    More,
    Enough,
}

fn run(
    directory: &Path,
    open: &mut Open,
    wanted: &Wanted,
    show: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Next> {
    let mut last = VecDeque::new();
    let Some(tail) = wanted.tail else {
        return each(directory, open, wanted, show);
    };
    let next = each(directory, open, wanted, &mut |entry| {
        if tail > 0 {
            if last.len() == tail {
                last.pop_front();
            }
            last.push_back(entry.clone());
        }
        Ok(true)
    })?;
    for entry in &last {
        if !show(entry)? {
            return Ok(Next::Enough);
        }
    }
    Ok(next)
}

/// Shows what there is from here on.
fn each(
    directory: &Path,
    open: &mut Open,
    wanted: &Wanted,
    show: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Next> {
    while let Some(entry) = open.next(directory)? {
        if wanted.ends_with(&entry) {
            return Ok(Next::Enough);
        }
        if wanted.takes(&entry) && !show(&entry)? {
            return Ok(Next::Enough);
        }
    }
    Ok(Next::More)
}

/// Like [`past`], and then every line that comes until `runs` says that no more
/// will. `record` is the file that changes when that does, and `launcher` the
/// process that writes both.
// ANCHOR: follow
pub fn follow(
    directory: &Path,
    wanted: &Wanted,
    record: &Path,
    runs: &mut dyn FnMut() -> Result<Option<ProcessIdentity>>,
    show: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<()> {
    // ANCHOR: exercise_follow
    // Before the first look: what happens after it wakes this process.
    let changes = Watch::on(&[
        directory,
        record.parent().context("the record has no directory")?,
    ])?;
    let mut open = Open::oldest(directory)?;
    let mut first = true;
    let later = Wanted {
        tail: None,
        ..wanted.clone()
    };
    loop {
        let launcher = runs()?;
        let next = match std::mem::take(&mut first) {
            true => run(directory, &mut open, wanted, show)?,
            false => each(directory, &mut open, &later, show)?,
        };
        if next == Next::Enough {
            return Ok(());
        }
        // It was not running before the last look: that was all.
        let Some(launcher) = launcher else {
            return Ok(());
        };
        wait(&changes, launcher, wanted.until)?;
    }
    // ANCHOR_END: exercise_follow
}
// ANCHOR_END: follow

/// Waits until something in the directories changes, or the launcher ends, or
/// the time has come.
// ANCHOR: wait
fn wait(changes: &Watch, launcher: ProcessIdentity, until: Option<SystemTime>) -> Result<()> {
    let process = Pid::from_raw(launcher.pid).context("the record names no launcher")?;
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno).context("pidfd_open(the launcher)"),
    };
    if !launcher.is_alive() {
        return Ok(());
    }
    changes.wait(process, PollFlags::IN, until).map(drop)
}
// ANCHOR_END: wait

/// A log that is being read.
struct Open {
    file: Option<(PathBuf, File)>,
    /// What was read and is not a whole line yet.
    begun: Vec<u8>,
    /// How much of `begun` is known to have no newline.
    looked: usize,
}

impl Open {
    /// Opens the oldest file of the log.
    fn oldest(directory: &Path) -> Result<Self> {
        let mut oldest = None;
        for number in 0.. {
            let path = file(directory, number);
            match File::open(&path) {
                Ok(file) => oldest = Some((path, file)),
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(error).with_context(|| format!("open {path:?}")),
            }
        }
        Ok(Open {
            file: oldest,
            begun: Vec::new(),
            looked: 0,
        })
    }

    /// The next whole line. A line that is no entry is skipped with a warning.
    fn next(&mut self, directory: &Path) -> Result<Option<Entry>> {
        loop {
            let Some((path, file)) = &mut self.file else {
                *self = Open::oldest(directory)?;
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            if let Some(length) = self.begun[self.looked..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let end = self.looked + length + 1;
                let entry = serde_json::from_slice(&self.begun[..end]);
                self.begun.drain(..end);
                self.looked = 0;
                match entry {
                    Ok(entry) => return Ok(Some(entry)),
                    Err(error) => warn!("{path:?}: skipped a line that is no entry: {error}"),
                }
                continue;
            }
            self.looked = self.begun.len();
            let mut more = [0; 64 << 10];
            let length = match file.read(&mut more) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
            };
            self.begun.extend_from_slice(&more[..length]);
            if length > 0 {
                continue;
            }
            match newer(directory, file)? {
                None => return Ok(None),
                Some(next) => {
                    // Looked at once more: the writer may have added lines
                    // between the last read and the rename.
                    let mut rest = Vec::new();
                    file.read_to_end(&mut rest)
                        .with_context(|| format!("read {path:?}"))?;
                    if rest.is_empty() {
                        self.begun.clear();
                        self.looked = 0;
                        self.file = Some(next);
                    } else {
                        self.begun.extend_from_slice(&rest);
                    }
                }
            }
        }
    }
}

/// The file after this one; `None` if it is the newest. One that was removed
/// meanwhile is followed by the oldest.
// ANCHOR: newer
fn newer(directory: &Path, open: &File) -> Result<Option<(PathBuf, File)>> {
    // ANCHOR: exercise_newer
    let own = open.metadata().context("fstat(the log)")?;
    let mut after = None;
    for number in 0.. {
        let path = file(directory, number);
        let other = match File::open(&path) {
            Ok(other) => other,
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error).with_context(|| format!("open {path:?}")),
        };
        let stat = other
            .metadata()
            .with_context(|| format!("fstat({path:?})"))?;
        if (stat.dev(), stat.ino()) == (own.dev(), own.ino()) {
            // One that has been cut is read from its beginning.
            let mut at = open;
            let here = at.stream_position().context("lseek(the log)")?;
            if stat.len() < here {
                at.seek(SeekFrom::Start(0)).context("lseek(the log)")?;
            }
            return Ok(after);
        }
        after = Some((path, other));
    }
    Ok(after)
    // ANCHOR_END: exercise_newer
}
// ANCHOR_END: newer

/// What stands before the text of each line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// When it was written.
    pub timestamps: bool,
    /// What else is known of it: nothing, with Docker's blank after it.
    pub details: bool,
}

/// Prints an entry where it was written. Returns `false` if nobody reads.
pub fn print(entry: &Entry, before: Before) -> Result<bool> {
    let mut text = String::new();
    if before.timestamps {
        text.push_str(&entry.time);
        text.push(' ');
    }
    if before.details {
        // What `--log-opt labels` and `env` would add, and a blank as Docker's.
        text.push(' ');
    }
    text.push_str(&entry.log);
    let written = match entry.stream {
        Output::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
        Output::Stderr => std::io::stderr().lock().write_all(text.as_bytes()),
    };
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::write::Writer;
    use crate::settings::LogSettings;

    fn all(directory: &Path, wanted: &Wanted) -> Vec<String> {
        let mut lines = Vec::new();
        past(directory, wanted, &mut |entry| {
            lines.push(entry.log.trim_end().to_owned());
            Ok(true)
        })
        .unwrap();
        lines
    }

    #[test]
    fn the_last_lines_are_those_of_several_files() {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            max_size: Some(150),
            max_file: 3,
            ..LogSettings::default()
        };
        let mut log = Writer::open(directory.path(), settings).unwrap();
        for line in 0..9 {
            log.put(Output::Stdout, format!("{line}\n").as_bytes())
                .unwrap();
        }
        let every = all(directory.path(), &Wanted::default());
        assert_eq!(every.last().unwrap(), "8");
        assert!(
            every.windows(2).all(|pair| pair[0] < pair[1]) && every.len() > 3,
            "{every:?}"
        );
        let tail = |tail| Wanted {
            tail: Some(tail),
            ..Wanted::default()
        };
        assert_eq!(all(directory.path(), &tail(3)), ["6", "7", "8"]);
        assert!(all(directory.path(), &tail(0)).is_empty());
    }

    #[test]
    fn a_line_that_is_not_whole_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Writer::open(directory.path(), LogSettings::default()).unwrap();
        log.put(Output::Stdout, b"one\n").unwrap();
        let path = file(directory.path(), 0);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("not json\n{\"log\":\"tw");
        std::fs::write(&path, text).unwrap();
        assert_eq!(all(directory.path(), &Wanted::default()), ["one"]);
    }
}

//! `cp`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use clap::Args;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use kit::errno::is;
use process::Exit;
use rustix::io::Errno;

use crate::cli::run::claim;
use crate::cli::swept;
use crate::cli::words::decimal;
use crate::copy::list::{Work, child};
use crate::copy::names::{Names, Written};
use crate::copy::receive::{Destination, Rules, What, receive};
use crate::copy::send::{Source, send};
use crate::events::tell;

/// The options of `cp`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "drydock cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       drydock cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
)]
pub struct CopyArgs {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress what is printed about the copy, as without a terminal
    #[arg(short, long)]
    quiet: bool,
    /// What is copied; - for a tar archive from standard input
    #[arg(value_name = "SRC_PATH")]
    source: OsString,
    /// Where to; - for a tar archive to standard output
    #[arg(value_name = "DEST_PATH")]
    destination: OsString,
}

/// A path, and the container in which it is.
struct Argument<'a> {
    container: Option<&'a str>,
    path: &'a OsStr,
}

impl<'a> Argument<'a> {
    /// Reads `CONTAINER:PATH`. What begins with `/` or `.` is a path of the host,
    /// whatever colons it has.
    fn parse(text: &'a OsStr) -> Self {
        let bytes = text.as_bytes();
        let host = Argument {
            container: None,
            path: text,
        };
        if bytes.starts_with(b"/") || bytes.starts_with(b".") {
            return host;
        }
        let Some(colon) = bytes.iter().position(|byte| *byte == b':') else {
            return host;
        };
        match std::str::from_utf8(&bytes[..colon]) {
            Ok(container) => Argument {
                container: Some(container),
                path: OsStr::from_bytes(&bytes[colon + 1..]),
            },
            Err(_) => host,
        }
    }
}

/// Copies.
pub(super) fn run(places: &Places, args: &CopyArgs) -> Result<Exit> {
    let (from, to) = (
        Argument::parse(&args.source),
        Argument::parse(&args.destination),
    );
    for argument in [&from, &to] {
        ensure!(
            argument.container.is_none() || !argument.path.is_empty(),
            "invalid argument: the path in the container is missing"
        );
        ensure!(
            !argument.path.as_bytes().contains(&0) && !argument.path.is_empty(),
            "destination path must not be empty"
        );
    }
    match (from.container, to.container) {
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source"),
        (Some(container), None) => out(places, args, container, from.path, to.path),
        (None, Some(container)) => into(places, args, from.path, container, to.path),
    }
    .map(|()| Exit::Code(0))
}

fn base() -> Result<std::path::PathBuf> {
    std::env::current_dir().context("getcwd")
}

/// A container whose files are there for the copy: it runs, or nobody starts it
/// meanwhile.
struct Held {
    record: Record,
    _claim: Option<File>,
}

fn hold(places: &Places, container: &str) -> Result<Held> {
    let records = swept(places)?;
    let record = records.find(container)?;
    if record.is_running() && record.pid != 0 {
        return Ok(Held {
            record,
            _claim: None,
        });
    }
    let claim = waited_for(&records, &record)?;
    // It may have been started since.
    let record = records.find(&record.spec.id)?;
    let runs = record.is_running();
    Ok(Held {
        record,
        _claim: (!runs).then_some(claim),
    })
}

/// How long another copy of the same container may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The claim of a container that does not run. Another copy is waited for.
fn waited_for(records: &Records, record: &Record) -> Result<File> {
    let directory = records.directory(&record.spec.id);
    kit::own::make(&directory, 0o700)?;
    if let Some(open) = kit::lock::open_directory(&directory)?
        && !kit::lock::try_within(&open, &directory, PATIENCE)?
    {
        bail!("container {} is busy", record.spec.name);
    }
    claim(records, record)
}

/// Copies out of a container.
fn out(places: &Places, args: &CopyArgs, container: &str, path: &OsStr, to: &OsStr) -> Result<()> {
    let source = Source {
        written: Written::new(path, Path::new("/")),
        follow: args.follow_link,
    };
    let what = match source.written.is_content {
        true => What::Content,
        false => What::One,
    };
    let to_stdout = to == "-";
    ensure!(
        !to_stdout || !stdout().is_terminal(),
        "cowardly refusing to save to a terminal: redirect the output"
    );
    let written = Written::new(to, &base()?);
    let shown = written.path.display().to_string();
    let destination = Destination {
        written,
        what,
        rules: match args.archive {
            true => Rules::Owners,
            false => Rules::Nothing,
        },
        shown: shown.clone(),
    };
    let held = hold(places, container)?;
    tell(places, &held.record, "archive-path", &[]);
    let (from, theirs) = std::io::pipe().context("pipe")?;
    let bytes = beside(
        places,
        &held.record,
        Work::Send(source),
        theirs.into(),
        move || {
            let mut from = Counted::new(from);
            match to_stdout {
                true => {
                    std::io::copy(&mut from, &mut stdout().lock())
                        .context("write to standard output")?;
                }
                false => {
                    receive(&Names::Host, &destination, &mut from)?;
                    std::io::copy(&mut from, &mut std::io::sink()).context("read the archive")?;
                }
            }
            Ok(from.count)
        },
    )?;
    if !to_stdout {
        copied(args, bytes, &shown);
    }
    Ok(())
}

/// Copies into a container.
fn into(
    places: &Places,
    args: &CopyArgs,
    from: &OsStr,
    container: &str,
    path: &OsStr,
) -> Result<()> {
    let from_stdin = from == "-";
    let source = Source {
        written: Written::new(from, &base()?),
        follow: args.follow_link,
    };
    if !from_stdin {
        // Before anything of the container is touched.
        let path = &source.written.path;
        std::fs::symlink_metadata(path)
            .map_err(|error| anyhow!("lstat {}: {}", path.display(), words(&error)))?;
    }
    let shown = format!("{container}:{}", path.to_string_lossy());
    let destination = Destination {
        written: Written::new(path, Path::new("/")),
        what: match (from_stdin, source.written.is_content) {
            (true, _) => What::Archive,
            (false, true) => What::Content,
            (false, false) => What::One,
        },
        rules: Rules::Everything,
        shown: match from_stdin {
            true => shown.clone(),
            false => format!("container {container}"),
        },
    };
    let held = hold(places, container)?;
    tell(places, &held.record, "extract-to-dir", &[]);
    let (theirs, to) = std::io::pipe().context("pipe")?;
    let bytes = beside(
        places,
        &held.record,
        Work::Receive(destination),
        theirs.into(),
        move || {
            let mut to = Counted::new(to);
            match from_stdin {
                true => {
                    std::io::copy(&mut stdin().lock(), &mut to).context("copy standard input")?;
                }
                false => {
                    ensure!(
                        send(&Names::Host, &source, &mut to)?,
                        "lstat {}: no such file or directory",
                        source.written.path.display()
                    );
                }
            }
            Ok(to.count)
        },
    )?;
    if !from_stdin {
        copied(args, bytes, &shown);
    }
    Ok(())
}

/// What the kernel says, as Go says it.
fn words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Runs both ends of the pipe: the child, and `ours` in a thread. Returns how
/// many bytes went through.
fn beside(
    places: &Places,
    record: &Record,
    work: Work,
    pipe: OwnedFd,
    ours: impl FnOnce() -> Result<u64> + Send + 'static,
) -> Result<u64> {
    let created = child(places, record, work, pipe)?.create()?;
    // Now that the child exists: a process with threads makes none.
    let ours = thread::spawn(ours);
    let ended = created.start().and_then(|running| running.wait());
    let broken = |error: &Error| is(error, &[Errno::PIPE]);
    match ended {
        Ok(exit) => {
            let bytes = match ours.join() {
                Ok(bytes) => bytes?,
                Err(_) => bail!("the copying thread has panicked"),
            };
            ensure!(exit == Exit::Code(0), "the copying process was killed");
            Ok(bytes)
        }
        // Standard input may never end: only if this end knows why the other
        // has failed.
        Err(error) => {
            let text = format!("{error:#}");
            let consequence =
                broken(&error) || text.contains("EPIPE") || text.contains("Broken pipe");
            match consequence.then(|| ours.join()) {
                Some(Ok(Err(cause))) => Err(cause),
                _ => Err(plain(error)),
            }
        }
    }
}

/// An error of the child's without the name of the isolation.
fn plain(error: Error) -> Error {
    let text = format!("{error:#}");
    match text.strip_prefix("copy: ") {
        Some(rest) => anyhow!("{rest}"),
        None => error,
    }
}

/// Says what was copied, to people.
fn copied(args: &CopyArgs, bytes: u64, to: &str) {
    if !args.quiet && stdout().is_terminal() {
        kit::errln!(
            "Successfully copied {} to {}",
            decimal(bytes as f64, 3),
            kit::say::printable(to)
        );
    }
}

/// A stream whose bytes are counted.
struct Counted<T> {
    inner: T,
    count: u64,
}

impl<T> Counted<T> {
    fn new(inner: T) -> Self {
        Counted { inner, count: 0 }
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.count += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_is_not_always_a_container() {
        let parse = |text: &str| {
            let argument = Argument::parse(OsStr::new(text));
            let container = argument.container.map(str::to_owned);
            (container, argument.path.to_str().unwrap().to_owned())
        };
        assert_eq!(parse("box:/a:b"), (Some("box".into()), "/a:b".into()));
        assert_eq!(parse("/a:b"), (None, "/a:b".into()));
        assert_eq!(parse("./a:b"), (None, "./a:b".into()));
        assert_eq!(parse("a"), (None, "a".into()));
    }
}

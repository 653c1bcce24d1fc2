//! The log that peers read: the last error in `--log` is the one that they
//! report.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::id;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kit::errln;
use kit::say::{listen, observe, on_stderr, printable};
use kit::time::now;
use serde_json::json;

use crate::launch::progress::collect;

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// An object a line
    Json,
}

/// Where errors and warnings go besides standard error.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Option<PathBuf>,
    format: Format,
}

impl Log {
    /// Opens the log, and has the warnings of this process go there. Those of
    /// the child, whose standard error is the container's, are lost.
    pub(crate) fn open(file: Option<PathBuf>, format: Format) -> Result<Log> {
        let log = Log {
            file: file.map(std::path::absolute).transpose().context("--log")?,
            format,
        };
        let to = log.clone();
        if log.file.is_none() {
            observe(move |words| on_stderr(format_args!("{}", to.line("debug", words))));
        } else {
            log.append().context("--log")?;
            collect(move |words| {
                if let Err(error) = to.write("debug", words) {
                    errln!("drydock-runtime: {error:#}");
                }
            });
            let (own, to) = (id(), log.clone());
            listen(move |words| {
                if id() == own
                    && let Err(error) = to.write("warning", words)
                {
                    kit::say!("{error:#}");
                }
            });
        }
        Ok(log)
    }

    fn append(&self) -> Result<Option<File>> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map(Some)
            .with_context(|| format!("open {path:?}"))
    }

    /// Writes an entry.
    pub(crate) fn write(&self, level: &str, words: &str) -> Result<()> {
        let Some(mut file) = self.append()? else {
            return Ok(());
        };
        // One write, so that the entries of several processes do not mix.
        file.write_all(self.line(level, words).as_bytes())
            .context("write to the log")
    }

    /// An entry, with its end of line.
    fn line(&self, level: &str, words: &str) -> String {
        let time = now();
        match self.format {
            Format::Json => {
                format!("{}\n", json!({"level": level, "msg": words, "time": time}))
            }
            Format::Text => {
                let words = json!(printable(words));
                format!("time=\"{time}\" level={level} msg={words}\n")
            }
        }
    }
}

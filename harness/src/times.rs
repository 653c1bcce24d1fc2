//! How long each check took the last time, by which they are divided among
//! machines: `target/check-times.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::outcome::{Outcome, Record};
use crate::registry::Entry;
use crate::workspace;

/// Milliseconds for a check of which nothing is known.
const USUAL: u64 = 700;

/// Milliseconds, by `STEP CHECK`.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<String, u64>);

impl Times {
    /// What is known; nothing, if that cannot be read: it is for speed only.
    pub fn read() -> Times {
        let known = fs::read(file()).ok();
        Times(
            known
                .and_then(|json| serde_json::from_slice(&json).ok())
                .unwrap_or_default(),
        )
    }

    /// How long a check takes, in milliseconds.
    pub fn of(&self, step: &str, check: &Entry) -> u64 {
        let known = self.0.get(&key(step, &check.name)).copied();
        known.unwrap_or(check.seconds.map_or(USUAL, |seconds| seconds * 1000))
    }

    /// Notes how long a check took that has passed. One that fails may end at
    /// once, or wait for its time limit.
    pub fn note(&mut self, record: &Record) {
        if record.outcome == Outcome::Pass {
            let key = key(&record.step, &record.check);
            self.0.insert(key, record.millis);
        }
    }

    /// Keeps it for the next run.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self) -> Result<()> {
        let file = file();
        let dir = file.parent().context("target/")?;
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let json = serde_json::to_vec(&self.0).context("write JSON")?;
        // Replaced as a whole: two runs may end at the same time.
        let mut new = tempfile::NamedTempFile::new_in(dir).context("create a file in target/")?;
        new.write_all(&json).context("write check-times.json")?;
        new.persist(&file)
            .with_context(|| format!("rename to {}", file.display()))?;
        Ok(())
    }
}

fn file() -> PathBuf {
    workspace::root().join("target/check-times.json")
}

fn key(step: &str, check: &str) -> String {
    format!("{step} {check}")
}

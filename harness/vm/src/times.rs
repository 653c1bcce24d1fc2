//! Durations of the checks in the last run, by which they are divided among
//! machines: `target/check-times.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use check::outcome::{Outcome, Record};
use check::registry::Entry;
use check::workspace;

/// Milliseconds for a check without a known duration.
const USUAL: u64 = 700;

/// Milliseconds, by `STEP CHECK`.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<String, u64>);

impl Times {
    /// Reads the durations. A missing or broken file counts as empty: it only
    /// affects speed.
    pub fn read() -> Times {
        let known = fs::read(file()).ok();
        Times(
            known
                .and_then(|json| serde_json::from_slice(&json).ok())
                .unwrap_or_default(),
        )
    }

    /// The expected duration of a check, in milliseconds.
    pub fn of(&self, step: &str, check: &Entry) -> u64 {
        let known = self.0.get(&key(step, &check.name)).copied();
        known.unwrap_or(check.seconds.map_or(USUAL, |seconds| seconds * 1000))
    }

    /// Notes the duration of a check that has passed. A failed one may have
    /// ended at once, or waited for its time limit.
    pub fn note(&mut self, record: &Record) {
        if record.outcome == Outcome::Pass {
            let key = key(&record.step, &record.check);
            self.0.insert(key, record.millis);
        }
    }

    /// Saves the durations for the next run.
    pub fn write(&self) -> Result<()> {
        let file = file();
        let dir = file.parent().context("target/")?;
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let json = serde_json::to_vec(&self.0).context("write JSON")?;
        // Replaced in one step: two runs may end at the same time.
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

//! Why an instruction ran: what it was made of the last time.
//!
//! A file for each Dockerfile, by its path, has the inputs of every instruction
//! that was built or found in the cache. It explains; nothing else depends on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use kit::atomic_file::write_file;
use kit::own::make;
use serde::{Deserialize, Serialize};

use crate::build::cache::Inputs;

/// The most files whose digests are remembered of an instruction.
const MOST: usize = 20_000;

/// What is remembered of a Dockerfile.
#[derive(Debug)]
pub struct Why {
    path: PathBuf,
    before: BTreeMap<String, Inputs>,
    now: Mutex<BTreeMap<String, Inputs>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    instructions: BTreeMap<String, Inputs>,
}

impl Why {
    /// What is remembered of the Dockerfile that `name` stands for.
    pub fn read(root: &Path, name: &str) -> Self {
        let path = root
            .join("build/why")
            .join(Digest::of(name.as_bytes()).hex());
        let before = std::fs::read(&path).ok();
        let before = before.and_then(|json| serde_json::from_slice::<Remembered>(&json).ok());
        Why {
            path,
            before: before.unwrap_or_default().instructions,
            now: Mutex::default(),
        }
    }

    /// Why an instruction is not in the cache: `place` is its stage and number,
    /// `text` what it says.
    pub fn explain(&self, place: &str, text: &str, inputs: &Inputs) -> String {
        let by_text = self.before.get(&format!("{place}\n{text}"));
        match by_text {
            Some(before) => match inputs.changed_since(before) {
                Some(change) => change,
                None => "its layer is not in the cache any more".into(),
            },
            None if self.before.is_empty() => "it was not built before".into(),
            None => "the instruction is new, or has changed".into(),
        }
    }

    /// Remembers what an instruction is made of.
    pub fn note(&self, place: &str, text: &str, inputs: &Inputs) {
        let mut inputs = inputs.clone();
        inputs.files.truncate(MOST);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.insert(format!("{place}\n{text}"), inputs);
    }

    /// Writes what this build has noted. What it has not reached stays.
    pub fn write(&self) -> Result<()> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_empty() {
            return Ok(());
        }
        let mut instructions = self.before.clone();
        instructions.extend(now.clone());
        if instructions == self.before {
            return Ok(());
        }
        let directory = self.path.parent().context("a path without a directory")?;
        let above = directory.parent().context("a path without a directory")?;
        make(above, 0o700)?;
        make(directory, 0o700)?;
        let json = serde_json::to_vec(&Remembered { instructions }).context("write JSON")?;
        write_file(&self.path, json)
    }
}

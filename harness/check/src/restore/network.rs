//! Removes the bridge, its links and the nft table, with step 06: it made them,
//! and knows how to remove them and what to restore.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Broom;
use crate::{nft, workspace};

/// Calls step 06 to remove them. Its failure is counted, and not an error here.
pub fn sweep(broom: &mut Broom) -> Result<()> {
    let mut found: Vec<String> = nft::tables()?
        .into_iter()
        .filter(|table| table.ends_with(" drydock"))
        .map(|table| format!("nft table {table}"))
        .collect();
    if Path::new("/sys/class/net/drydock0").exists() {
        found.push("bridge drydock0".to_owned());
    }
    if found.is_empty() && !Path::new("/run/drydock/net").exists() {
        return Ok(());
    }
    let program = workspace::bin().join("step-06");
    for what in &found {
        if broom.is_dry() || !program.exists() {
            broom.take(what, || bail!("step 06 does that: ./just build first"));
        }
    }
    if broom.is_dry() || !program.exists() {
        return Ok(());
    }
    let output = Command::new(&program)
        .arg("restore")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        broom.took(line.strip_prefix("removed ").unwrap_or(line));
    }
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        broom.take("what step 06 has made", || bail!(error));
    }
    Ok(())
}

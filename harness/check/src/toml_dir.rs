//! Directories of TOML files, each of which describes the thing that it is
//! named after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// Reads the files `NAME.toml` of a directory, by name. Other files are
/// ignored.
///
/// # Errors
/// Names the file that cannot be read or parsed.
pub fn read<T: DeserializeOwned>(dir: &Path) -> Result<BTreeMap<String, T>> {
    let listing = || format!("list {}", dir.display());
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        if path.extension().is_none_or(|kind| kind != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let described =
            toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        all.insert(name.into_owned(), described);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_name_and_others_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("b.toml", "n = 2");
        write("a.toml", "n = 1");
        write("notes.md", "none");
        let all: BTreeMap<String, BTreeMap<String, u8>> = read(dir.path()).unwrap();
        let found: Vec<(&str, u8)> = all.iter().map(|(k, v)| (k.as_str(), v["n"])).collect();
        assert_eq!(found, [("a", 1), ("b", 2)]);
        write("c.toml", "n =");
        let error = read::<BTreeMap<String, u8>>(dir.path()).unwrap_err();
        assert!(error.to_string().contains("c.toml"), "{error}");
    }
}

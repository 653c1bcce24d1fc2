//! How an image was made: the `history` of its configuration, beside its layers.

use anyhow::{Context, Result};
use engine::image::record::ImageRecord;
use serde::Deserialize;

use crate::image::config::RawConfig;

/// A step of an image's making, the newest first.
#[derive(Clone, Debug)]
pub struct Row {
    /// The image's ID for the newest, `<missing>` for those below: an image does
    /// not know what its own base was called.
    pub id: String,
    /// When, RFC 3339.
    pub created: String,
    /// By which command.
    pub created_by: String,
    /// The size of its layer as a tar, in bytes; 0 if it made none.
    pub size: u64,
    /// What somebody says about it.
    pub comment: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    history: Option<Vec<Entry>>,
    created: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    created: Option<String>,
    created_by: String,
    comment: String,
    empty_layer: bool,
}

/// The history of an image with this configuration.
// ANCHOR: rows
pub fn rows(record: &ImageRecord, config: &[u8]) -> Result<Vec<Row>> {
    let config = RawConfig::parse(config)?.to_vec()?;
    let document: Document =
        serde_json::from_slice(&config).context("the image's configuration")?;
    let mut entries = document.history.unwrap_or_default();
    // Not every tool writes as much history as there are layers.
    let made = entries.iter().filter(|entry| !entry.empty_layer).count();
    for _ in made..record.layers.len() {
        entries.push(Entry {
            created: document.created.clone(),
            ..Entry::default()
        });
    }
    let mut layers = record.layers.iter();
    let mut rows = Vec::new();
    for entry in entries {
        let size = match entry.empty_layer {
            true => 0,
            false => layers.next().map_or(0, |layer| layer.size),
        };
        rows.push(Row {
            id: "<missing>".into(),
            created: entry.created.unwrap_or_default(),
            created_by: entry.created_by,
            size,
            comment: entry.comment,
        });
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest.id = record.id.to_string();
    }
    Ok(rows)
}
// ANCHOR_END: rows

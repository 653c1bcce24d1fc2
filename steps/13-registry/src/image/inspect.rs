//! All that is known about an image, in the form of `docker image inspect`.

use anyhow::Result;
use engine::image::Images;
use engine::image::config::ImageConfig;
use engine::image::name::familiar;
use engine::image::record::ImageRecord;
use serde_json::{Value, json};

use crate::blobs::BlobStore;
use crate::image::config::RawConfig;

/// The document about an image.
pub fn document(images: &Images, blobs: &BlobStore, record: &ImageRecord) -> Result<Value> {
    let raw = images.store.config(&record.id)?;
    let parsed = ImageConfig::parse(&raw)?;
    let mut raw = RawConfig::parse(&raw)?;
    let raw = raw.whole();
    let text = |name: &str| raw.get(name).cloned().unwrap_or_else(|| json!(""));
    let names = images.store.names()?;
    let mut tags: Vec<&str> = Vec::new();
    for (name, id) in &names {
        if *id == record.id {
            tags.push(name.as_str());
        }
    }
    let last = raw
        .get("history")
        .and_then(Value::as_array)
        .and_then(|history| history.last());
    let comment = last.and_then(|last| last.get("comment")).cloned();
    let diff_ids: Vec<String> = parsed.diff_ids()?.iter().map(|id| id.to_string()).collect();
    let places = blobs.origin(&record.id)?.repo_digests;
    let places: Vec<&str> = places.iter().map(|place| familiar(place)).collect();
    Ok(json!({
        "Id": record.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": places,
        "Parent": "",
        "Comment": comment.unwrap_or_else(|| json!("")),
        "Created": text("created"),
        "Author": text("author"),
        "Config": raw.get("config").cloned().unwrap_or(Value::Null),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": record.size(),
        "RootFS": { "Type": "layers", "Layers": diff_ids },
    }))
}

//! An image's configuration as it came, changed in places.
//!
//! Step 09 reads the fields that a start needs. Whoever makes an image of another
//! one passes on what it does not know: `Healthcheck`, `Shell`, what somebody
//! else has added. So the JSON itself is edited, with its fields under the names
//! that Go writes.

use anyhow::{Context, Result, bail};
use engine::image::config::{Config, ImageConfig};
use engine::image::digest::Digest;
use engine::image::document::{self, Tail};
use serde_json::{Map, Value, json};

use crate::image::fields;

/// A configuration, as JSON.
#[derive(Clone, Debug)]
pub struct RawConfig(Map<String, Value>);

/// How a layer was made: an entry of `history`.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The command.
    pub by: String,
    /// Who did it.
    pub author: String,
    /// What they say about it.
    pub comment: String,
}

impl RawConfig {
    /// Reads a configuration.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let json = document::json(json, Tail::Refused).context("the image's configuration")?;
        match fields::configuration(json) {
            Value::Object(object) => Ok(RawConfig(object)),
            _ => bail!("the image's configuration is not an object"),
        }
    }

    /// The configuration of an image without layers.
    pub fn empty() -> Result<Self> {
        let mut config = ImageConfig::plain(Digest::of(b""), Config::default());
        if let Some(rootfs) = &mut config.rootfs {
            rootfs.diff_ids.clear();
        }
        Self::parse(&serde_json::to_vec(&config).context("write a configuration")?)
    }

    /// The configuration as JSON.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).context("write a configuration")
    }

    /// The whole configuration, to be changed.
    pub fn whole(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// The defaults of the containers, to be changed.
    pub fn container(&mut self) -> Result<&mut Map<String, Value>> {
        object(&mut self.0, "config")
    }

    /// Adds a layer on top, with how it was made.
    pub fn add_layer(&mut self, diff_id: &Digest, made: &Made, now: &str) -> Result<()> {
        let rootfs = object(&mut self.0, "rootfs")?;
        rootfs.insert("type".into(), json!("layers"));
        list(rootfs, "diff_ids")?.push(json!(diff_id.to_string()));
        self.note(made, now)
    }

    /// Notes how the topmost layer was made.
    pub fn note(&mut self, made: &Made, now: &str) -> Result<()> {
        let mut entry = Map::new();
        let texts = [
            ("created", now),
            ("created_by", &made.by),
            ("author", &made.author),
            ("comment", &made.comment),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            entry.insert(name.into(), json!(text));
        }
        list(&mut self.0, "history")?.push(Value::Object(entry));
        self.0.insert("created".into(), json!(now));
        if !made.author.is_empty() {
            self.0.insert("author".into(), json!(made.author));
        }
        Ok(())
    }
}

/// The object of that name. `null` is none.
pub fn object<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .with_context(|| format!("{name} of the configuration is not an object"))
}

/// The list of that name. `null` is none.
pub fn list<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value
        .as_array_mut()
        .with_context(|| format!("{name} of the configuration is not a list"))
}

//! The image so far: the accumulator of the fold. An instruction takes one and
//! returns the next.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use engine::image::config::{Config, ImageConfig, architecture};
use engine::image::digest::{Digest, chain};
use engine::image::record::{ImageRecord, Layer};
use registry::image::config::{RawConfig, list, object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use union::LayerId;

/// The PATH of an image that has none: BuildKit's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What made an entry of the history: BuildKit's comment.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A layer of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The bytes of its files.
    pub size: u64,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// An image that is being made.
#[derive(Clone, Debug)]
pub struct Image {
    /// The configuration, with everything in it that nobody here knows.
    raw: RawConfig,
    layers: Vec<Layer>,
    diff_ids: Vec<Digest>,
    /// The keys of its layers in the cache, each with the layer's number.
    keys: BTreeMap<String, usize>,
    /// The variables at the end of the stage that made it.
    variables: Vec<(String, String)>,
}

/// Where an image's configuration has the keys of its layers.
const KEYS: &str = "drydock.cache.v0";

impl Image {
    /// `FROM scratch`.
    pub fn scratch() -> Result<Self> {
        let mut raw = RawConfig::empty()?;
        let config = raw.container()?;
        config.insert("Env".into(), json!([PATH]));
        config.insert("WorkingDir".into(), json!("/"));
        raw.whole()
            .insert("architecture".into(), json!(architecture()));
        Ok(Image {
            raw,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            keys: BTreeMap::new(),
            variables: Vec::new(),
        })
    }

    /// `FROM` an image that is here.
    pub fn of(record: &ImageRecord, config: &[u8]) -> Result<Self> {
        let mut raw = RawConfig::parse(config)?;
        let env = list(raw.container()?, "Env")?;
        let is_path = |one: &Value| one.as_str().is_some_and(|one| one.starts_with("PATH="));
        if !env.iter().any(is_path) {
            env.push(json!(PATH));
        }
        let diff_ids = ImageConfig::parse(config)?.diff_ids()?;
        Ok(Image {
            raw,
            // An image without layers has one in the store all the same.
            layers: match diff_ids.is_empty() {
                true => Vec::new(),
                false => record.layers.clone(),
            },
            diff_ids,
            keys: BTreeMap::new(),
            variables: Vec::new(),
        })
    }

    /// Keeps the variables at the end of a stage, for those that are based on it.
    pub fn leave_variables(&mut self, values: &[(String, String)]) {
        self.variables = values.to_vec();
    }

    /// The variables at the end of the stage before.
    pub fn take_variables(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.variables)
    }

    /// The layers of a finished image by their keys, if it was built with them.
    pub fn by_key(&mut self) -> BTreeMap<String, (Vec<Digest>, Made)> {
        let created: Vec<String> = match self.raw.whole().get("history") {
            Some(Value::Array(history)) => history
                .iter()
                .filter(|entry| entry["empty_layer"] != json!(true))
                .map(|entry| entry["created"].as_str().unwrap_or_default().to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let keys = self.raw.whole().get(KEYS).cloned().unwrap_or(Value::Null);
        let keys: BTreeMap<String, usize> = serde_json::from_value(keys).unwrap_or_default();
        let made = |number: usize| {
            let made = Made {
                diff_id: self.diff_ids.get(number)?.clone(),
                size: self.layers.get(number)?.size,
                created: created.get(number)?.clone(),
            };
            Some((self.diff_ids[..=number].to_vec(), made))
        };
        keys.into_iter()
            .filter_map(|(key, number)| Some((key, made(number)?)))
            .collect()
    }

    /// Writes the keys of the layers into the configuration, for `--cache-from`.
    pub fn write_keys(&mut self) {
        let whole = self.raw.whole();
        let known = whole.get(KEYS).cloned().unwrap_or(Value::Null);
        let mut keys: BTreeMap<String, usize> = serde_json::from_value(known).unwrap_or_default();
        keys.extend(self.keys.clone());
        whole.insert(KEYS.into(), json!(keys));
    }

    /// The chain IDs of the layers, the lowest first.
    pub fn chains(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.chain)
    }

    /// The digests of the layers.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// The chain ID of the topmost layer; `None` if there is no layer.
    pub fn chain(&self) -> Option<&Digest> {
        self.layers.last().map(|layer| &layer.chain)
    }

    /// The topmost layer in the drivers' stores; `None` if there is none.
    pub fn top(&self) -> Result<Option<LayerId>> {
        self.chain().map(Digest::layer_id).transpose()
    }

    /// The defaults of the containers, as step 09 reads them.
    pub fn config(&self) -> Result<Config> {
        Ok(ImageConfig::parse(&self.raw.to_vec()?)?.config)
    }

    /// The defaults of the containers, to be changed.
    pub fn container(&mut self) -> Result<&mut Map<String, Value>> {
        self.raw.container()
    }

    /// A default of the containers; `null` if there is none.
    pub fn default(&mut self, name: &str) -> Result<Value> {
        let container = self.raw.container()?;
        Ok(container.get(name).cloned().unwrap_or(Value::Null))
    }

    /// A default that is a list of texts.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>> {
        match self.default(name)? {
            Value::Null => Ok(Vec::new()),
            value => serde_json::from_value(value)
                .with_context(|| format!("{name} of the image's configuration")),
        }
    }

    /// The environment, by name.
    pub fn env(&mut self) -> Result<Vec<(String, String)>> {
        let texts = self.texts("Env")?.into_iter();
        Ok(texts
            .filter_map(|text| {
                let (name, value) = text.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect())
    }

    /// Sets a variable, in its place if there is one of that name.
    pub fn set_env(&mut self, name: &str, value: &str) -> Result<()> {
        let env = list(self.raw.container()?, "Env")?;
        let begins = format!("{name}=");
        let text = json!(format!("{name}={value}"));
        let found = env
            .iter_mut()
            .find(|one| one.as_str().is_some_and(|one| one.starts_with(&begins)));
        match found {
            Some(found) => *found = text,
            None => env.push(text),
        }
        Ok(())
    }

    /// Adds to an object of the defaults.
    pub fn add(&mut self, object_name: &str, key: &str, value: Value) -> Result<()> {
        object(self.raw.container()?, object_name)?.insert(key.to_owned(), value);
        Ok(())
    }

    /// Adds to a list of the defaults.
    pub fn push(&mut self, list_name: &str, value: Value) -> Result<()> {
        list(self.raw.container()?, list_name)?.push(value);
        Ok(())
    }

    /// Sets the processor that the image is for.
    pub fn set_architecture(&mut self, architecture: &str, variant: &str) {
        let whole = self.raw.whole();
        whole.insert("architecture".into(), json!(architecture));
        if !variant.is_empty() {
            whole.insert("variant".into(), json!(variant));
        }
    }

    /// Sets the author.
    pub fn set_author(&mut self, author: &str) {
        self.raw.whole().insert("author".into(), json!(author));
    }

    /// Notes an instruction that has changed the defaults only.
    pub fn note(&mut self, by: &str) -> Result<()> {
        self.history()?.push(json!({
            "created_by": by, "comment": COMMENT, "empty_layer": true,
        }));
        Ok(())
    }

    /// Adds a layer, with its key in the cache and the instruction that has made it.
    pub fn add_layer(&mut self, (made, key): &(Made, Digest), by: &str) -> Result<()> {
        self.keys.insert(key.hex().to_owned(), self.layers.len());
        self.diff_ids.push(made.diff_id.clone());
        let chain = chain(&self.diff_ids).pop().context("no layer")?;
        self.layers.push(Layer {
            chain,
            size: made.size,
        });
        let rootfs = object(self.raw.whole(), "rootfs")?;
        rootfs.insert("type".into(), json!("layers"));
        list(rootfs, "diff_ids")?.push(json!(made.diff_id));
        self.history()?.push(json!({
            "created": made.created, "created_by": by, "comment": COMMENT,
        }));
        Ok(())
    }

    fn history(&mut self) -> Result<&mut Vec<Value>> {
        list(self.raw.whole(), "history")
    }

    /// The finished image: its configuration, and its record. What has changed
    /// the defaults only happened, as for BuildKit, when the layer before it was
    /// made: so an image that is built again from the cache is the same.
    // ANCHOR: finish
    pub fn finish(mut self, now: &str, epoch: Option<&str>) -> Result<(ImageRecord, Vec<u8>)> {
        let history = self.history()?;
        let time = |entry: &Value| entry["created"].as_str().map(str::to_owned);
        // The first layer of ours, or the last one of the base.
        let mut last = None;
        let mut ours = false;
        for entry in history.iter() {
            match time(entry) {
                Some(found) => {
                    last = Some(found);
                    if ours {
                        break;
                    }
                }
                None => ours = true,
            }
        }
        let mut last = last.unwrap_or_else(|| epoch.unwrap_or(now).to_owned());
        let mut ours = false;
        for entry in history.iter_mut() {
            match time(entry) {
                Some(found) if ours => last = found,
                Some(_) => {}
                None => {
                    ours = true;
                    entry["created"] = json!(last);
                }
            }
        }
        let created = history
            .last()
            .and_then(time)
            .unwrap_or_else(|| last.clone());
        let created = epoch.map_or(created, str::to_owned);
        self.raw.whole().insert("created".into(), json!(created));
        let raw = self.raw.to_vec()?;
        let parsed = ImageConfig::parse(&raw)?;
        let layers = match self.layers.is_empty() {
            false => self.layers,
            true => vec![Layer {
                chain: Digest::of(b""),
                size: 0,
            }],
        };
        let record = ImageRecord {
            id: Digest::of(&raw),
            layers,
            created: parsed.created,
            config: parsed.config,
        };
        Ok((record, raw))
    }
    // ANCHOR_END: finish
}

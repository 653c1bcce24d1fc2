//! Commit: an image of a container. The container's own layer becomes the top
//! layer of a new image, on those of the image that it was made of.

use std::ffi::OsString;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use cgroups::NamedGroup;
use engine::cli::defaults::image_user;
use engine::container::Record;
use engine::image::Images;
use engine::image::config::ImageConfig;
use engine::image::digest::Digest;
use engine::image::name::Name;
use engine::image::source::parts::Parts;
use engine::volume::options::{MountSource, from_root};
use kit::{SignalNumber, warn};
use lifecycle::health;
use lifecycle::settings::Stay;
use nix::unistd::Pid;
use serde_json::json;
use union::{Kind, LayerId, detect};

use crate::blobs::BlobStore;
use crate::blobs::adopt::Form;
use crate::image::change;
use crate::image::config::{Made, RawConfig, object};

/// What is to be said about the new image.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its name, if it gets one.
    pub name: Option<Name>,
    /// Who makes it.
    pub author: String,
    /// What they say about it.
    pub message: String,
    /// Instructions that change its defaults.
    pub changes: Vec<String>,
    /// Whether the container pauses meanwhile.
    pub pause: bool,
}

/// The processes of a container, stopped as long as this lives.
struct Paused(NamedGroup);

impl Paused {
    fn of(record: &Record) -> Result<Option<Self>> {
        if !record.is_running() || record.pid == 0 {
            return Ok(None);
        }
        let group = NamedGroup::of_process(Pid::from_raw(record.pid))?;
        if group.is_empty() || !record.launcher.is_parent_of(record.pid) || group.is_frozen()? {
            return Ok(None);
        }
        group.freeze(true)?;
        Ok(Some(Paused(group)))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.0.freeze(false) {
            warn!("the container stays paused: {error:#}");
        }
    }
}

/// Makes an image of a container. Returns its ID.
pub fn commit(
    images: &Images,
    blobs: &BlobStore,
    record: &Record,
    wanted: &Wanted,
) -> Result<Digest> {
    let spec = &record.spec;
    let kind = spec.driver;
    let loader = images.loader();
    let lock = loader.changing(kind)?;
    let _held = blobs.hold()?;
    let base = spec.image_id.parse::<Digest>().ok();
    let base = base
        .map(|id| images.store.record(&id))
        .transpose()?
        .flatten();
    let (mut config, mut layers) = match &base {
        Some(base) => {
            blobs.require(images, base, kind)?;
            let config = RawConfig::parse(&images.store.config(&base.id)?)?;
            let manifest = blobs
                .manifest(&base.id)?
                .context("the image has no manifest")?;
            (config, manifest.2.layers)
        }
        // A directory: it has no layers of its own, and all becomes one.
        None => (RawConfig::empty()?, Vec::new()),
    };
    let made_before = layers.len();
    let mut tar = blobs.new_tar()?;
    {
        let _paused = match wanted.pause {
            true => Paused::of(record)?,
            false => None,
        };
        let mut writer = BufWriter::with_capacity(1 << 16, &mut tar);
        let id: LayerId = spec.id.parse()?;
        let driver = detect::open(kind, images.root())?;
        let has_started = driver.exists(&id)?;
        match &base {
            Some(_) if has_started => driver.diff(&id, &mut writer)?,
            Some(_) => tar::Builder::new(&mut writer)
                .finish()
                .context("write a layer")?,
            None if !has_started => super::archive::whole(&*driver, &spec.layer, &mut writer)?,
            None => super::archive::whole(&*driver, &id, &mut writer)?,
        }
        writer.flush().context("write the layer")?;
    }
    let (diff_id, tar) = tar.finish()?;
    let layer = blobs.adopt_layer(&tar, None, &diff_id, u64::MAX, Form::Compressed)?;
    take_over(&mut config, record)?;
    for change in &wanted.changes {
        change::apply(&mut config, change).context("--change")?;
    }
    let made = Made {
        by: texts(&spec.command).join(" "),
        author: wanted.author.clone(),
        comment: wanted.message.clone(),
    };
    config.add_layer(&diff_id, &made, &kit::time::now())?;
    let config = config.to_vec()?;
    layers.push(layer);
    blobs.keep_manifest(&config, layers.clone())?;
    let mut parts = Vec::new();
    for layer in &layers {
        parts.push((
            blobs.blob(&layer.digest)?,
            Some(layer.digest.clone().into()),
        ));
    }
    debug_assert_eq!(parts.len(), made_before + 1);
    let parts = Parts {
        names: Vec::new(),
        config,
        manifest: None,
        layers: parts,
    };
    let driver = detect::open(kind, images.root())?;
    let image = loader.keep(&parts, &*driver, &lock)?;
    if let Some(name) = &wanted.name {
        images.store.name(name, &image.id, &lock)?;
    }
    Ok(image.id)
}

/// The container's own defaults become those of the image, as Docker does it.
/// `ONBUILD` and `SHELL` of the image that it ran are not taken over.
fn take_over(config: &mut RawConfig, record: &Record) -> Result<()> {
    let spec = &record.spec;
    let stay = Stay::of(record)?;
    let known = ImageConfig::parse(&config.to_vec()?)?.config;
    let container = config.container()?;
    for trigger in ["OnBuild", "Shell"] {
        container.remove(trigger);
    }
    let words = texts(&spec.command);
    let (entrypoint, command) = words.split_at(spec.entrypoint.min(words.len()));
    for (name, words) in [("Entrypoint", entrypoint), ("Cmd", command)] {
        match words {
            [] => drop(container.remove(name)),
            words => drop(container.insert(name.into(), json!(words))),
        }
    }
    // The variable that a terminal brings is neither the image's nor the caller's.
    let is_own = |one: &String| spec.tty && one == "TERM=xterm" && !known.env.contains(one);
    let mut env = texts(&spec.env);
    env.retain(|one| !is_own(one));
    container.insert("Env".into(), json!(env));
    container.insert("Labels".into(), json!(spec.labels));
    if spec.workdir != from_root(&known.working_dir) {
        container.insert("WorkingDir".into(), json!(spec.workdir));
    }
    if let Some(user) = &spec.user.user
        && *user != image_user(&known)?
    {
        container.insert("User".into(), json!(user.to_string()));
    }
    let signal = known.stop_signal.unwrap_or_default().parse();
    let signal = signal.map_or_else(
        |_| "SIGTERM".into(),
        |known: SignalNumber| known.to_string(),
    );
    if spec.stop_signal != signal {
        container.insert("StopSignal".into(), json!(spec.stop_signal));
    }
    match (&stay.health, &known.healthcheck) {
        (Some(check), of_image) if Some(check) != of_image.as_ref() => {
            container.insert("Healthcheck".into(), json!(check));
        }
        // The caller does without the image's.
        (None, Some(check)) if health::command(check).is_some() => {
            container.insert("Healthcheck".into(), json!({ "Test": ["NONE"] }));
        }
        _ => {}
    }
    let published = spec.net.publish.iter();
    let published = published.map(|one| format!("{}/{}", one.port, one.protocol));
    for port in stay.exposed.into_iter().chain(published) {
        object(container, "ExposedPorts")?.insert(port, json!({}));
    }
    for mounted in &spec.files.mounted {
        let of_image = known
            .volumes
            .keys()
            .any(|path| from_root(path) == mounted.target);
        if matches!(
            mounted.source,
            MountSource::Volume {
                anonymous: true,
                ..
            }
        ) && !of_image
        {
            let target = mounted.target.to_string_lossy().into_owned();
            object(container, "Volumes")?.insert(target, json!({}));
        }
    }
    Ok(())
}

fn texts(words: &[OsString]) -> Vec<String> {
    let words = words.iter();
    words.map(|word| word.to_string_lossy().into()).collect()
}

impl BlobStore {
    /// Makes sure that the blobs of an image are here. Those of one that an
    /// earlier step has loaded are made of its layers, if they come out the same.
    ///
    /// # Errors
    /// If they do not.
    pub fn require(
        &self,
        images: &Images,
        image: &engine::image::record::ImageRecord,
        kind: Kind,
    ) -> Result<()> {
        if self.manifest(&image.id)?.is_some() {
            return Ok(());
        }
        let config = images.store.config(&image.id)?;
        let diff_ids = ImageConfig::parse(&config)?.diff_ids()?;
        let driver = detect::open(kind, images.root())?;
        let mut layers = Vec::new();
        for (layer, expected) in image.layers.iter().zip(&diff_ids) {
            if let Some(known) = self.layer_of(expected)? {
                layers.push(known);
                continue;
            }
            let mut tar = self.new_tar()?;
            let mut writer = BufWriter::with_capacity(1 << 16, &mut tar);
            driver.diff(&layer.chain.layer_id()?, &mut writer)?;
            writer.flush().context("write a layer")?;
            drop(writer);
            let (found, tar) = tar.finish()?;
            anyhow::ensure!(
                found == *expected,
                "the layers of image {} are unpacked here, and packed again they would be others: \
                 load or pull it again",
                &image.id.hex()[..12]
            );
            layers.push(self.adopt_layer(&tar, None, &found, u64::MAX, Form::Compressed)?);
        }
        self.keep_manifest(&config, layers)
    }
}

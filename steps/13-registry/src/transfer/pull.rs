//! Pull: an image from a registry.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use anyhow::{Context, Error, Result, bail, ensure};
use engine::image::Images;
use engine::image::config::ImageConfig;
use engine::image::digest::Digest;
use engine::image::source::parts::Parts;
use engine::image::source::verify::{Expected, content};
use kit::{say, warn};
use union::detect::has_layer;
use union::{Kind, detect};

use crate::blobs::BlobStore;
use crate::blobs::adopt::descriptor;
use crate::http::client::{Client, Refused};
use crate::manifest::{Descriptor, Document, LARGEST, Manifest, Platform};
use crate::progress::Progress;
use crate::reference::{Remote as Place, Repository};
use crate::settings::Registries;
use crate::transfer::ahead::Ahead;
use crate::transfer::fetch::{Fetched, Remote, Watch};
use crate::transfer::{connect, several};

/// The deepest nesting of indexes.
const DEEPEST: usize = 3;

/// What to pull, and how.
#[derive(Debug)]
pub struct Pull<'a> {
    /// The images.
    pub images: &'a Images,
    /// The blobs.
    pub blobs: &'a BlobStore,
    /// The storage driver of the layers.
    pub kind: Kind,
    /// The machine that the image is for.
    pub platform: Option<Platform>,
    /// What is known about registries.
    pub registries: &'a Registries,
    /// Registries that are insecure by option.
    pub insecure: &'a [String],
    /// Who is told.
    pub progress: &'a Progress,
}

/// What a pull has brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub id: Digest,
    /// What the registry knows it by: the digest of the index, if there is one.
    pub digest: Digest,
    /// Whether something has changed here.
    pub is_new: bool,
}

/// The manifest of an image, and how it was found.
struct Found {
    /// The digest by which the registry's tag leads to it.
    top: Digest,
    manifest: Manifest,
    fetched: Fetched,
}

impl Pull<'_> {
    /// Pulls an image: from a mirror if there is one, else from the registry
    /// itself.
    pub fn run(&self, place: &Place) -> Result<Pulled> {
        self.sweep()?;
        let unpacking = Cell::new(false);
        let pulled = self.held(place, &unpacking);
        // A transfer that has broken off goes on another time. What has no room
        // here, or cannot be unpacked, does not.
        if let Err(error) = &pulled
            && (unpacking.get() || is_full(error))
        {
            let lock = self.images.store.lock()?;
            let freed = self.blobs.collect(self.images, &lock)?;
            say!("{} blobs of it are removed", freed.blobs);
        }
        pulled
    }

    /// Removes what killed pulls have left, unless somebody pulls: what that one
    /// has unpacked belongs to no image, either.
    fn sweep(&self) -> Result<()> {
        let lock = self.images.store.lock()?;
        match self.blobs.is_used()? {
            true => Ok(()),
            false => self.images.loader().sweep(self.kind, &lock),
        }
    }

    fn held(&self, place: &Place, unpacking: &Cell<bool>) -> Result<Pulled> {
        // No blob of ours is garbage before the image is there.
        let _held = self.blobs.hold()?;
        for mirror in &self.registries.about(&place.repository.host).mirrors {
            let repository = Repository {
                host: mirror.clone(),
                path: place.repository.path.clone(),
            };
            match self.from(&repository, place, unpacking) {
                Ok(pulled) => return Ok(pulled),
                Err(error) => say!("the mirror {mirror}: {error:#}"),
            }
        }
        let pulled = self.from(&place.repository, place, unpacking);
        if let Err(error) = &pulled
            && let Some(refused) = Refused::of(error)
        {
            return Err(said(refused, place));
        }
        pulled
    }

    fn from(
        &self,
        repository: &Repository,
        place: &Place,
        unpacking: &Cell<bool>,
    ) -> Result<Pulled> {
        let client = connect(self.registries, repository, self.insecure)?;
        let remote = Remote {
            client: &client,
            repository,
        };
        let found = self.find(remote, &place.asked())?;
        let config = self.configuration(remote, &found.manifest)?;
        let parsed = ImageConfig::parse(&config)?;
        self.check_platform(&parsed);
        let diff_ids = parsed.diff_ids()?;
        let (listed, there) = (diff_ids.len(), found.manifest.layers.len());
        ensure!(
            listed == there,
            "the manifest has {there} layers, and the configuration lists {listed}"
        );
        let id = Digest::of(&config);
        let is_known = self.images.store.record(&id)?.is_some();
        let fetched = self.layers(remote, &found.manifest, &diff_ids, is_known, unpacking);
        let kept = fetched.and_then(|sizes| {
            unpacking.set(true);
            self.keep(place, found, config, &diff_ids, &sizes)
        });
        // What was unpacked belongs to no image then.
        if kept.is_err()
            && let Err(error) = self.images.loader().changing(self.kind)
        {
            warn!("{error:#}");
        }
        kept
    }

    /// The manifest for the platform: the one that is asked for, or the one in
    /// the index that is.
    // ANCHOR: find
    fn find(&self, remote: Remote<'_>, asked: &str) -> Result<Found> {
        let mut fetched = remote.document(asked)?;
        let top = fetched.digest.clone();
        let platform = self.platform.clone().unwrap_or_else(Platform::here);
        for _ in 0..DEEPEST {
            let document = Document::parse(&fetched.bytes, &fetched.media_type)
                .with_context(|| format!("manifest {}", fetched.digest))?;
            let index = match document {
                Document::Manifest(manifest) => {
                    return Ok(Found {
                        top,
                        manifest: *manifest,
                        fetched,
                    });
                }
                Document::Index(index) => index,
            };
            let chosen = platform.choose(&index)?;
            ensure!(
                chosen.size <= LARGEST,
                "a manifest of {} bytes is not read",
                chosen.size
            );
            fetched = remote.document(&chosen.digest.to_string())?;
            ensure!(
                fetched.bytes.len() as u64 == chosen.size,
                "manifest {} has {} bytes, and the index says {}",
                chosen.digest,
                fetched.bytes.len(),
                chosen.size
            );
        }
        bail!("an index in an index in an index, and so on: refused")
    }
    // ANCHOR_END: find

    fn configuration(&self, remote: Remote<'_>, manifest: &Manifest) -> Result<Vec<u8>> {
        remote.blob(self.blobs, &manifest.config, &())?;
        self.blobs.document(&manifest.config.digest)
    }

    fn check_platform(&self, config: &ImageConfig) {
        let wanted = self.platform.clone().unwrap_or_else(Platform::here);
        let is = Platform::from((&*config.os, &*config.architecture, ""));
        let index = [Descriptor {
            platform: Some(is.clone()),
            ..descriptor("", Digest::of(b""), 0)
        }];
        if !config.architecture.is_empty() && wanted.choose(&index).is_err() {
            warn!("the image is made for {is}, not for {wanted}");
        }
    }

    // ANCHOR: layers
    fn layers(
        &self,
        remote: Remote<'_>,
        manifest: &Manifest,
        diff_ids: &[Digest],
        is_known: bool,
        unpacking: &Cell<bool>,
    ) -> Result<BTreeMap<Digest, u64>> {
        let room = self.images.loader().room()?;
        let mut missing: u64 = 0;
        for layer in &manifest.layers {
            let here = self.blobs.size(&layer.digest)?;
            ensure!(
                here.is_none_or(|size| size == layer.size),
                "layer {} has {} bytes here, and the manifest says {}",
                layer.digest,
                here.unwrap_or_default(),
                layer.size
            );
            if here.is_none() {
                self.progress
                    .state(short(&layer.digest), "Pulling fs layer");
                missing = layer.size.saturating_add(missing);
            }
        }
        if missing > room {
            return Err(io::Error::from(ErrorKind::StorageFull))
                .with_context(|| format!("the image has {missing} bytes, and {room} are free"));
        }
        let fetch = |_, layer: &Descriptor| {
            let watch = Told {
                progress: self.progress,
                layer,
            };
            let key = short(&layer.digest);
            match remote.blob(self.blobs, layer, &watch)? {
                // There is nothing to say of an image that is here.
                true if is_known => {}
                true => self.progress.state(key, "Already exists"),
                false => self.progress.state(key, "Download complete"),
            }
            Ok(())
        };
        if is_known {
            several(&manifest.layers, fetch, |_| Ok(()))?;
            return Ok(BTreeMap::new());
        }
        let layers = &manifest.layers;
        let mut ahead = Ahead::new(self.images, self.blobs, self.kind, layers, diff_ids)?;
        let unpacked = |n: usize| {
            let key = short(&layers[n].digest);
            self.progress.state(key, "Pull complete");
        };
        several(layers, fetch, |n| {
            unpacking.set(true);
            ahead.arrived(n, &unpacked)?;
            unpacking.set(false);
            Ok(())
        })?;
        Ok(ahead.into_sizes())
    }
    // ANCHOR_END: layers

    /// Unpacks what is missing, and keeps the image. All threads have ended.
    /// `sizes` are those of layers that were unpacked while others arrived.
    // ANCHOR: keep
    fn keep(
        &self,
        place: &Place,
        found: Found,
        config: Vec<u8>,
        diff_ids: &[Digest],
        sizes: &BTreeMap<Digest, u64>,
    ) -> Result<Pulled> {
        let id = Digest::of(&config);
        let Found {
            top,
            manifest,
            fetched,
        } = found;
        self.blobs.put(&fetched.bytes)?;
        let chains = engine::image::digest::chain(diff_ids);
        let keys: Vec<&str> = manifest
            .layers
            .iter()
            .map(|layer| short(&layer.digest))
            .collect();
        let is_known = Cell::new(false);
        let unpacked = |n: usize| {
            // The others have been told of before.
            let is_new = chains
                .get(n)
                .is_some_and(|chain| !sizes.contains_key(chain));
            if let Some(key) = keys.get(n).filter(|_| is_new && !is_known.get()) {
                self.progress.state(key, "Pull complete");
            }
        };
        let mut loader = self.images.loader();
        loader.unpacked = Some(&unpacked);
        loader.sizes = Some(sizes);
        // What belongs to no image yet may be ours.
        let lock = self.images.store.lock()?;
        let was_there = self.images.store.record(&id)?.is_some();
        is_known.set(was_there);
        let name = place.name()?;
        let before = match &name {
            Some(name) => self.images.store.named(name)?.map(|record| record.id),
            None => None,
        };
        let mut layers = Vec::new();
        for (n, layer) in manifest.layers.iter().enumerate() {
            let blob = self.blobs.blob(&layer.digest)?;
            // A layer that somebody has unpacked is not unpacked again, and would
            // not be verified.
            let chain = chains.get(n).context("a layer without a chain ID")?;
            let is_ours = sizes.contains_key(chain);
            if !was_there
                && !is_ours
                && has_layer(self.images.root(), self.kind, &chain.layer_id()?)
            {
                let expected = Expected {
                    digest: Some(layer.digest.clone().into()),
                    diff_id: Some(diff_ids[n].clone()),
                    at_most: loader.room()?,
                };
                content(&blob, &expected)?;
            }
            layers.push((blob, Some(layer.digest.clone().into())));
        }
        let parts = Parts {
            names: Vec::new(),
            config,
            manifest: None,
            layers,
        };
        let manifest = descriptor(
            &kind_of(&fetched, &manifest),
            fetched.digest.clone(),
            fetched.bytes.len() as u64,
        );
        self.blobs.note(&id, |origin| {
            origin.add_manifest(manifest);
            origin.add_place(&place.repository, &fetched.digest);
            origin.add_place(&place.repository, &top);
        })?;
        let driver = detect::open(self.kind, self.images.root())?;
        loader.keep(&parts, &*driver, &lock)?;
        if let Some(name) = &name {
            self.images.store.name(name, &id, &lock)?;
        }
        Ok(Pulled {
            is_new: !was_there || name.is_some() && before.as_ref() != Some(&id),
            id,
            digest: top,
        })
    }
    // ANCHOR_END: keep
}

/// Whether an error says that there is no space left.
fn is_full(error: &Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        )
    })
}

/// The type of a manifest: what it says itself, else what the registry says.
fn kind_of(fetched: &Fetched, manifest: &Manifest) -> String {
    match manifest.media_type.is_empty() {
        true => fetched.media_type.clone(),
        false => manifest.media_type.clone(),
    }
}

/// The beginning of a digest, by which people know layers.
pub fn short(digest: &Digest) -> &str {
    &digest.hex()[..12]
}

/// What a refusal means, in the words that people know.
fn said(refused: &Refused, place: &Place) -> anyhow::Error {
    let repository = &place.repository;
    match (refused.status, &*refused.code) {
        (404, "NAME_UNKNOWN") | (404, "MANIFEST_UNKNOWN") | (404, _) => {
            anyhow::anyhow!("manifest for {place} not found: {refused}")
        }
        (401 | 403, _) => anyhow::anyhow!(
            "pull access denied for {repository}, repository does not exist or may require \
             'drydock login {}': {refused}",
            repository.host
        ),
        _ => anyhow::anyhow!("{place}: {refused}"),
    }
}

struct Told<'a> {
    progress: &'a Progress,
    layer: &'a Descriptor,
}

impl Watch for Told<'_> {
    fn waiting(&self) {
        self.progress.state(short(&self.layer.digest), "Waiting");
    }

    fn arrived(&self, bytes: u64) {
        let key = short(&self.layer.digest);
        self.progress
            .amount(key, "Downloading", bytes, self.layer.size);
    }

    fn verifying(&self) {
        self.progress
            .state(short(&self.layer.digest), "Verifying Checksum");
    }
}

/// The tags of a repository.
pub fn tags(client: &Client, repository: &Repository) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct List {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    /// The most pages that are read.
    const MOST_PAGES: usize = 100;
    let mut url = client.url(&format!("/v2/{}/tags/list", repository.path));
    let mut all = Vec::new();
    for _ in 0..MOST_PAGES {
        let scopes = [crate::transfer::scope(repository, "pull")];
        let none = crate::http::client::Payload::None;
        let response = client.send(&ureq::http::Method::GET, &url, &[], &none, &scopes)?;
        if !response.status().is_success() {
            return Err(crate::http::client::error_of(response, client.patience()));
        }
        let next = crate::http::client::value(&response, "link");
        let bytes = crate::http::client::read_small(response, LARGEST, client.patience())?;
        let list: List = serde_json::from_slice(&bytes).context("the list of tags")?;
        all.extend(list.tags.unwrap_or_default());
        // Link: </v2/…>; rel="next"
        let target = next
            .as_deref()
            .and_then(|link| link.split_once('<')?.1.split_once('>'));
        let Some((target, _)) = target else {
            return Ok(all);
        };
        url = url.join(target)?;
        client.check_target(&url)?;
    }
    bail!("{repository} has more tags than are read")
}

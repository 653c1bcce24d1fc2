//! Push: an image into a registry. The blobs go first, then the manifest that
//! names them: a registry refuses one that names what it does not have.

use anyhow::{Context, Result, bail};
use engine::image::Images;
use engine::image::digest::Digest;
use engine::image::record::ImageRecord;

use crate::blobs::BlobStore;
use crate::http::client::Refused;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::reference::Remote as Place;
use crate::settings::Registries;
use crate::transfer::pull::short;
use crate::transfer::upload::{Arrived, Target};
use crate::transfer::{connect, several};

/// How to push.
#[derive(Debug)]
pub struct Push<'a> {
    /// The images.
    pub images: &'a Images,
    /// The blobs.
    pub blobs: &'a BlobStore,
    /// What is known about registries.
    pub registries: &'a Registries,
    /// Registries that are insecure by option.
    pub insecure: &'a [String],
    /// Who is told.
    pub progress: &'a Progress,
}

/// What a push has made.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The digest of the manifest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Push<'_> {
    /// Pushes the image of a record, under the tag of `place`.
    // ANCHOR: run
    pub fn run(&self, record: &ImageRecord, place: &Place) -> Result<Pushed> {
        let _held = self.blobs.hold()?;
        let Some((descriptor, bytes, manifest)) = self.blobs.manifest(&record.id)? else {
            bail!(
                "the compressed layers of {} are not here: it was loaded by an earlier step, or \
                 made by run. Load it again with this one",
                short(&record.id)
            );
        };
        let client = connect(self.registries, &place.repository, self.insecure)?;
        let target = Target {
            client: &client,
            repository: &place.repository,
            blobs: self.blobs,
        };
        let host = &place.repository.host;
        let pushed = || -> Result<()> {
            for layer in &manifest.layers {
                self.progress.state(short(&layer.digest), "Preparing");
            }
            let push = |_, layer: &Descriptor| {
                let key = short(&layer.digest);
                let others = self.others(host, &layer.digest, place)?;
                let arrived = |bytes| self.progress.amount(key, "Pushing", bytes, layer.size);
                let state = match target.blob(layer, &others, &arrived)? {
                    Arrived::Before => "Layer already exists".to_owned(),
                    Arrived::Mounted(other) => format!("Mounted from {}", other.path),
                    Arrived::Uploaded => "Pushed".to_owned(),
                };
                self.progress.state(key, &state);
                Ok(())
            };
            several(&manifest.layers, push, |_| Ok(()))?;
            target.blob(&manifest.config, &[], &|_| {})?;
            target.manifest(&place.asked(), &descriptor.media_type, &bytes)
        };
        pushed().map_err(|error| match Refused::of(&error) {
            Some(refused) if matches!(refused.status, 401 | 403) => {
                anyhow::anyhow!("{refused}: see drydock login {host}")
            }
            _ => error,
        })?;
        let lock = self.images.store.lock()?;
        self.blobs.note(&record.id, |origin| {
            origin.add_place(&place.repository, &descriptor.digest)
        })?;
        drop(lock);
        Ok(Pushed {
            digest: descriptor.digest,
            size: descriptor.size,
        })
    }
    // ANCHOR_END: run

    /// Other repositories of the same registry in which a blob should be.
    fn others(
        &self,
        host: &str,
        blob: &Digest,
        place: &Place,
    ) -> Result<Vec<crate::reference::Repository>> {
        /// The most that are asked for.
        const MOST: usize = 3;
        let mut others = Vec::new();
        for id in self.blobs.originals()? {
            let origin = self.blobs.origin(&id)?;
            let mut known = origin.repositories(host).peekable();
            if known.peek().is_none() {
                continue;
            }
            let manifest = self.blobs.manifest(&id).context("a manifest")?;
            let has = manifest.is_some_and(|(_, _, manifest)| {
                manifest.layers.iter().any(|layer| layer.digest == *blob)
            });
            if has {
                others.extend(known.filter(|one| *one != place.repository));
            }
        }
        others.sort();
        others.dedup();
        others.truncate(MOST);
        Ok(others)
    }
}

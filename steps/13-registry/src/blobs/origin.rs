//! The manifests of an image, and where they are known.
//!
//! An image's ID is the digest of its configuration. A registry knows it by the
//! digest of a manifest, which also depends on how its layers are compressed: an
//! image may have several.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use engine::image::store::names;
use kit::atomic_file::write_file;
use serde::{Deserialize, Serialize};

use crate::blobs::BlobStore;
use crate::manifest::{Descriptor, Manifest};
use crate::reference::Repository;

/// The most places that are remembered.
const MOST: usize = 200;

/// What is known about an image's manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its manifests, the newest last. Their bytes are blobs.
    pub manifests: Vec<Descriptor>,
    /// Where a manifest, or an index with it, is: `HOST/PATH@DIGEST`.
    pub repo_digests: Vec<String>,
}

impl Origin {
    /// Notes a manifest, as the newest.
    pub fn add_manifest(&mut self, manifest: Descriptor) {
        self.manifests.retain(|one| one.digest != manifest.digest);
        self.manifests.push(manifest);
    }

    /// Notes where a manifest is.
    pub fn add_place(&mut self, repository: &Repository, digest: &Digest) {
        let place = format!("{repository}@{digest}");
        self.repo_digests.retain(|one| *one != place);
        self.repo_digests.push(place);
        let surplus = self.repo_digests.len().saturating_sub(MOST);
        self.repo_digests.drain(..surplus);
    }

    /// The repositories of the registry `host` in which the image is.
    pub fn repositories<'a>(&'a self, host: &'a str) -> impl Iterator<Item = Repository> + 'a {
        self.repo_digests.iter().filter_map(move |place| {
            let (name, _) = place.split_once('@')?;
            let path = name.strip_prefix(host)?.strip_prefix('/')?;
            Some(Repository {
                host: host.to_owned(),
                path: path.to_owned(),
            })
        })
    }
}

impl BlobStore {
    /// What is known about the manifests of the image `id`.
    pub fn origin(&self, id: &Digest) -> Result<Origin> {
        let path = self.images.join("manifest").join(id.hex());
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).with_context(|| format!("{path:?} is damaged"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Origin::default()),
            Err(error) => Err(error).with_context(|| format!("read {path:?}")),
        }
    }

    /// Changes what is known about the manifests of the image `id`. The caller
    /// holds the lock of the images.
    pub fn note(&self, id: &Digest, change: impl FnOnce(&mut Origin)) -> Result<()> {
        let mut origin = self.origin(id)?;
        change(&mut origin);
        let json = serde_json::to_vec(&origin).context("write the manifests as JSON")?;
        write_file(&self.images.join("manifest").join(id.hex()), json)
    }

    /// The images of which manifests are known.
    pub fn originals(&self) -> Result<Vec<Digest>> {
        let path = self.images.join("manifest");
        let names = names(&path)?.into_iter();
        Ok(names
            .filter_map(|name| Digest::from_hex(&name).ok())
            .collect())
    }

    /// The newest manifest of the image `id` of which all is here: its
    /// descriptor, its bytes, what it says.
    pub fn manifest(&self, id: &Digest) -> Result<Option<(Descriptor, Vec<u8>, Manifest)>> {
        for descriptor in self.origin(id)?.manifests.into_iter().rev() {
            if !self.has(&descriptor.digest)? {
                continue;
            }
            let bytes = self.document(&descriptor.digest)?;
            let manifest = Manifest::parse(&bytes)
                .with_context(|| format!("manifest {}", descriptor.digest))?;
            let mut whole = true;
            for part in manifest.parts() {
                whole &= self.size(&part.digest)? == Some(part.size);
            }
            if whole {
                return Ok(Some((descriptor, bytes, manifest)));
            }
        }
        Ok(None)
    }

    /// The image that a registry knows by this digest.
    pub fn by_place(&self, repository: &Repository, digest: &Digest) -> Result<Option<Digest>> {
        let place = format!("{repository}@{digest}");
        for id in self.originals()? {
            if self.origin(&id)?.repo_digests.contains(&place) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

//! Uploading one blob (OCI Distribution Specification, “Push”).
//!
//! The registry is asked whether it has the blob; then whether it can take it
//! from another repository; and only then it gets the bytes. Where they go is in
//! the `Location` of each answer, which may be relative and holds the state of
//! the upload in its query. After a broken connection the registry is asked how
//! much it has.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use crate::blobs::BlobStore;
use crate::http::client::{Client, Payload, error_of, value};
use crate::http::url::Url;
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::transfer::fetch::again;
use crate::transfer::scope;

/// The largest blob that goes in one request, and the size of the pieces of
/// larger ones, in bytes.
const PIECE: u64 = 16 << 20;

/// How a blob has got into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It was there.
    Before,
    /// The registry took it from another repository.
    Mounted(Repository),
    /// It was uploaded.
    Uploaded,
}

/// A repository that can be written to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The registry.
    pub client: &'a Client,
    /// The repository.
    pub repository: &'a Repository,
    /// The store.
    pub blobs: &'a BlobStore,
}

impl Target<'_> {
    fn scopes(&self) -> Vec<String> {
        vec![scope(self.repository, "pull,push")]
    }

    fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> Result<Response<Body>> {
        self.client
            .send(method, url, headers, payload, &self.scopes())
    }

    /// Brings a blob into the repository. It may be in one of `others`.
    // ANCHOR: blob
    pub fn blob(
        &self,
        blob: &Descriptor,
        others: &[Repository],
        arrived: &dyn Fn(u64),
    ) -> Result<Arrived> {
        let context = || format!("blob {}", blob.digest);
        if again(|| self.has(blob)).with_context(context)? {
            return Ok(Arrived::Before);
        }
        for other in others {
            if again(|| self.mount(blob, other)).with_context(context)? {
                return Ok(Arrived::Mounted(other.clone()));
            }
        }
        let mut begun = None;
        again(|| self.upload(blob, &mut begun, arrived)).with_context(context)?;
        Ok(Arrived::Uploaded)
    }
    // ANCHOR_END: blob

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let path = format!("/v2/{}/blobs/{}", self.repository.path, blob.digest);
        let response = self.send(&Method::HEAD, &self.client.url(&path), &[], &Payload::None)?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(error_of(response, self.client.patience())),
        }
    }

    fn uploads(&self) -> Url {
        self.client
            .url(&format!("/v2/{}/blobs/uploads/", self.repository.path))
    }

    /// Asks the registry to take the blob from another repository. It may
    /// decline, and begins an upload then: that one is cancelled.
    // ANCHOR: mount
    fn mount(&self, blob: &Descriptor, other: &Repository) -> Result<bool> {
        let url = self
            .uploads()
            .with("mount", &blob.digest.to_string())
            .with("from", &other.path);
        let mut scopes = self.scopes();
        scopes.push(scope(other, "pull"));
        let response = self
            .client
            .send(&Method::POST, &url, &[], &Payload::None, &scopes)?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                let upload = self.location(&url, &response)?;
                let cancelled = self.send(&Method::DELETE, &upload, &[], &Payload::None);
                kit::say!(
                    "{upload}: cancelled: {:?}",
                    cancelled.map(|answer| answer.status())
                );
                Ok(false)
            }
            // Whoever may not read the other one uploads.
            _ => Ok(false),
        }
    }
    // ANCHOR_END: mount

    /// Asks how far an upload has got that has broken off: where it goes on, and
    /// the bytes that the registry has of it. `None` if it has none, or does not
    /// say: docker-registry 2.8 signs the offset into the query of a Location, and
    /// knows no upload that has got further.
    // ANCHOR: resumed
    fn resumed(&self, upload: &Url) -> Result<Option<(Url, u64)>> {
        let response = self.send(&Method::GET, upload, &[], &Payload::None)?;
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(None);
        }
        // The first and the last byte. Of none, registries say `0-0`.
        let range = value(&response, "range").unwrap_or_default();
        let last = range.strip_prefix("0-").and_then(|last| last.parse().ok());
        match last.unwrap_or(0_u64).checked_add(1) {
            None | Some(1) => Ok(None),
            Some(sent) => Ok(Some((self.location(upload, &response)?, sent))),
        }
    }
    // ANCHOR_END: resumed

    /// Uploads a blob, or the rest of one: `begun` is where the upload goes on, if
    /// there is one.
    // ANCHOR: upload
    fn upload(
        &self,
        blob: &Descriptor,
        begun: &mut Option<Url>,
        arrived: &dyn Fn(u64),
    ) -> Result<()> {
        // ANCHOR: exercise_upload
        let path = self.blobs.path(&blob.digest);
        let file = File::open(&path).with_context(|| format!("open({path:?})"))?;
        let part = |offset, length| Payload::Part {
            file: &file,
            offset,
            length,
        };
        let known = match begun {
            Some(upload) => self.resumed(upload)?,
            None => None,
        };
        let (mut url, mut sent) = match known.filter(|(_, sent)| *sent <= blob.size) {
            Some(known) => known,
            None => {
                let start = self.uploads();
                let response = self.send(&Method::POST, &start, &[], &Payload::None)?;
                (self.accepted(&start, response)?, 0)
            }
        };
        *begun = Some(url.clone());
        let octets = ("content-type", "application/octet-stream");
        // Large ones in pieces, and what has been begun.
        while sent < blob.size && (sent > 0 || blob.size > PIECE) {
            let length = PIECE.min(blob.size - sent);
            let range = format!("{sent}-{}", sent + length - 1);
            let headers = [octets, ("content-range", range.as_str())];
            let response = self.send(&Method::PATCH, &url, &headers, &part(sent, length))?;
            url = self.accepted(&url, response)?;
            *begun = Some(url.clone());
            sent += length;
            arrived(sent);
        }
        let rest = match sent {
            0 => part(0, blob.size),
            _ => Payload::None,
        };
        let url = url.with("digest", &blob.digest.to_string());
        let response = self.send(&Method::PUT, &url, &[octets], &rest)?;
        if response.status() != StatusCode::CREATED {
            return Err(error_of(response, self.client.patience()));
        }
        arrived(blob.size);
        Ok(())
        // ANCHOR_END: exercise_upload
    }
    // ANCHOR_END: upload

    /// Where an upload goes on that the registry has accepted so far.
    fn accepted(&self, from: &Url, response: Response<Body>) -> Result<Url> {
        match response.status() {
            StatusCode::ACCEPTED => self.location(from, &response),
            _ => Err(error_of(response, self.client.patience())),
        }
    }

    /// Where an upload goes on.
    fn location(&self, from: &Url, response: &Response<Body>) -> Result<Url> {
        let location = value(response, "location").context("an upload without a Location")?;
        let url = from.join(&location).context("the Location of an upload")?;
        self.client.check_target(&url)?;
        Ok(url)
    }

    /// Gives the repository a manifest, under a tag or its digest.
    pub fn manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("/v2/{}/manifests/{reference}", self.repository.path);
        let url = self.client.url(&path);
        let headers = [("content-type", media_type)];
        again(|| {
            let response = self.send(&Method::PUT, &url, &headers, &Payload::Bytes(bytes))?;
            ensure_created(response, self.client)
        })
        .context("manifest")
    }
}

fn ensure_created(response: Response<Body>, client: &Client) -> Result<()> {
    let status = response.status();
    if !status.is_success() {
        return Err(error_of(response, client.patience()));
    }
    ensure!(
        status == StatusCode::CREATED,
        "the registry answers {status}"
    );
    Ok(())
}

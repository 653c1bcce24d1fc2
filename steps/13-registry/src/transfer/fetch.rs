//! Fetching: one document, one blob.
//!
//! Nothing that a registry says is believed. A document has a limit; a blob has
//! the size and the digest that its manifest states, which the digest of the
//! manifest vouches for. What is too much is not read, and what is too slow is
//! not waited for.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use engine::image::digest::Digest;
use kit::say;
use ureq::http::{Method, StatusCode};

use crate::blobs::BlobStore;
use crate::blobs::partial::{Begun, Partial};
use crate::http::client::{Broken, Client, Payload, error_of, read_small, value};
use crate::http::pace::Paced;
use crate::manifest::{ACCEPT, Descriptor, LARGEST};
use crate::reference::Repository;
use crate::transfer::scope;

/// How often a transfer is taken up again that does not get on.
const ATTEMPTS: u32 = 5;
/// The fewest bytes of an attempt that gets on.
const STEP: u64 = 64 << 10;

/// A manifest or an index, as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// The type that the registry gives it.
    pub media_type: String,
}

/// What is told of a blob that comes.
pub trait Watch {
    /// Somebody else fetches it; we wait.
    fn waiting(&self) {}
    /// So many bytes have arrived.
    fn arrived(&self, _bytes: u64) {}
    /// All have arrived, and are verified.
    fn verifying(&self) {}
}

impl Watch for () {}

/// A repository that can be read.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// The registry.
    pub client: &'a Client,
    /// The repository.
    pub repository: &'a Repository,
}

impl Remote<'_> {
    /// Fetches a manifest or an index, by a tag or a digest.
    ///
    /// # Errors
    /// If there is none, or it has another digest than the one it is asked by.
    pub fn document(&self, reference: &str) -> Result<Fetched> {
        let url = self.client.url(&format!(
            "/v2/{}/manifests/{reference}",
            self.repository.path
        ));
        let accept = ACCEPT.join(", ");
        let scopes = [scope(self.repository, "pull")];
        let send = || {
            let headers = [("accept", accept.as_str())];
            let response =
                self.client
                    .send(&Method::GET, &url, &headers, &Payload::None, &scopes)?;
            if response.status() != StatusCode::OK {
                return Err(error_of(response, self.client.patience()));
            }
            let media_type = value(&response, "content-type").unwrap_or_default();
            let said = value(&response, "docker-content-digest");
            let bytes = read_small(response, LARGEST, self.client.patience())
                .with_context(|| format!("manifest {reference}"))?;
            Ok((bytes, media_type, said))
        };
        let (bytes, media_type, said) = again(send)?;
        let digest = Digest::of(&bytes);
        // Asked by a digest, or said in the answer: neither may differ.
        let asked = reference.parse::<Digest>().ok();
        let said = said.and_then(|text| text.parse::<Digest>().ok());
        for other in [asked, said].into_iter().flatten() {
            ensure!(
                other == digest,
                "manifest {reference}: its digest is {digest}, not {other}"
            );
        }
        Ok(Fetched {
            bytes,
            digest,
            media_type,
        })
    }

    /// Fetches a blob into the store, unless it is there. Returns whether it was.
    ///
    /// # Errors
    /// If it is not what its descriptor says, or the registry gives up first.
    // ANCHOR: blob
    pub fn blob(&self, store: &BlobStore, blob: &Descriptor, watch: &dyn Watch) -> Result<bool> {
        let context = || format!("blob {}", blob.digest);
        let mut partial = match store.begin(&blob.digest, &|| watch.waiting())? {
            Begun::There => return Ok(true),
            Begun::Partial(partial) => *partial,
        };
        let mut was_resumed = partial.length() > 0;
        if partial.length() > blob.size {
            partial.restart()?;
        }
        loop {
            self.whole(&mut partial, blob, watch)
                .with_context(context)?;
            watch.verifying();
            match partial.finish() {
                Ok(()) => return Ok(false),
                // What lay there from an earlier time may be to blame.
                Err(error) if was_resumed => say!("{error:#}: from the beginning"),
                Err(error) => return Err(error).with_context(context),
            }
            was_resumed = false;
            partial = match store.begin(&blob.digest, &|| watch.waiting())? {
                Begun::There => return Ok(true),
                Begun::Partial(partial) => *partial,
            };
            partial.restart()?;
        }
    }
    // ANCHOR_END: blob

    /// Goes on until all bytes are there.
    // ANCHOR: whole
    fn whole(&self, partial: &mut Partial, blob: &Descriptor, watch: &dyn Watch) -> Result<()> {
        // ANCHOR: exercise_whole
        let mut failures = 0;
        // The most that was ever here: a server that has us begin again may send
        // the same bytes for ever.
        let mut most = partial.length();
        while partial.length() < blob.size {
            let Err(error) = self.some(partial, blob, watch) else {
                continue;
            };
            if error.downcast_ref::<Broken>().is_none() {
                return Err(error);
            }
            if partial.length() >= most.saturating_add(STEP) {
                failures = 0;
                most = partial.length();
            }
            failures += 1;
            if failures == ATTEMPTS {
                return Err(error).context("the transfer breaks off again and again");
            }
            say!("{error:#}: on from byte {}", partial.length());
            sleep(pause(failures));
        }
        Ok(())
        // ANCHOR_END: exercise_whole
    }
    // ANCHOR_END: whole

    /// One request for what is missing.
    // ANCHOR: some
    fn some(&self, partial: &mut Partial, blob: &Descriptor, watch: &dyn Watch) -> Result<()> {
        // ANCHOR: exercise_some
        let path = format!("/v2/{}/blobs/{}", self.repository.path, blob.digest);
        let have = partial.length();
        let range = format!("bytes={have}-");
        let headers = [("range", range.as_str())];
        let headers = if have > 0 { &headers[..] } else { &[] };
        let scopes = [scope(self.repository, "pull")];
        let url = self.client.url(&path);
        let response = self
            .client
            .send(&Method::GET, &url, headers, &Payload::None, &scopes)?;
        let length = value(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
        let begins = match response.status().as_u16() {
            // The whole, although a part was asked for.
            200 => {
                partial.restart()?;
                0
            }
            206 => {
                let range = value(&response, "content-range").unwrap_or_default();
                let begins = begin_of(&range).context("a part without a Content-Range")?;
                ensure!(
                    begins == have,
                    "asked for what follows byte {have}, it sends {range:.80?}"
                );
                begins
            }
            416 => {
                partial.restart()?;
                return Err(Broken("the registry has no such part".into()).into());
            }
            500 | 502 | 504 => {
                let error = error_of(response, self.client.patience());
                return Err(Broken(format!("{error:#}")).into());
            }
            _ => return Err(error_of(response, self.client.patience())),
        };
        if let Some(length) = length
            && begins.checked_add(length).is_none_or(|end| end > blob.size)
        {
            bail!(
                "the registry sends {length} bytes, and the manifest says {}",
                blob.size
            );
        }
        let body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut body = Paced::new(body, self.client.patience());
        let mut buffer = vec![0; 64 << 10];
        while let Some(read) = next(&mut body, &mut buffer)? {
            ensure!(
                partial.length() + read as u64 <= blob.size,
                "the registry sends more than the {} bytes that the manifest says",
                blob.size
            );
            partial.write(&buffer[..read])?;
            watch.arrived(partial.length());
        }
        match partial.length() == blob.size {
            true => Ok(()),
            false => Err(Broken(format!(
                "it ends after {} of {} bytes",
                partial.length(),
                blob.size
            ))
            .into()),
        }
        // ANCHOR_END: exercise_some
    }
    // ANCHOR_END: some
}

/// The next bytes of a body; `None` at its end.
fn next(body: &mut impl Read, buffer: &mut [u8]) -> Result<Option<usize>> {
    match body.read(buffer) {
        Ok(0) => Ok(None),
        Ok(read) => Ok(Some(read)),
        Err(error) => Err(Error::new(Broken(format!("it breaks off: {error}")))),
    }
}

/// Where the part of a `Content-Range` begins: `bytes 5-9/10`.
fn begin_of(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Makes a request again that has broken off.
pub(crate) fn again<T>(mut request: impl FnMut() -> Result<T>) -> Result<T> {
    let mut failures = 0;
    loop {
        match request() {
            Err(error) if error.downcast_ref::<Broken>().is_some() && failures + 1 < ATTEMPTS => {
                failures += 1;
                say!("{error:#}: again");
                sleep(pause(failures));
            }
            result => return result,
        }
    }
}

/// How long to wait before another attempt.
fn pause(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(5))
}

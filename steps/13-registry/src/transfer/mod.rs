//! Pull and push: the distribution protocol (OCI Distribution Specification).
//!
//! | module | what |
//! |---|---|
//! | this file | finding the way to a registry; several layers at once |
//! | [`fetch`] | one document, one blob: resumed, limited, verified |
//! | [`pull`] | an image from a registry into the store |
//! | [`ahead`] | layers that are unpacked while others arrive |
//! | [`upload`] | one blob into a registry |
//! | [`push`] | an image from the store into a registry |

pub mod ahead;
pub mod fetch;
pub mod pull;
pub mod push;
pub mod upload;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Error, Result};

use crate::credentials;
use crate::http::client::Client;
use crate::reference::Repository;
use crate::settings::Registries;

/// How many layers are on their way at once: Docker's number.
const AT_ONCE: usize = 3;

/// Connects to the registry of a repository, with the login that somebody has
/// kept for it.
pub fn connect(
    registries: &Registries,
    repository: &Repository,
    insecure: &[String],
) -> Result<Client> {
    let host = &repository.host;
    let insecure = registries.about(host).insecure || insecure.contains(host);
    let login = credentials::find(host, &repository.path)?;
    Client::connect(host, insecure, login, registries.patience())
}

/// The right to read a repository, or to write to it.
pub fn scope(repository: &Repository, actions: &str) -> String {
    format!("repository:{}:{actions}", repository.path)
}

/// Does `work` for each of `items`, some at a time, each in a thread. Meanwhile
/// the caller's own thread is told of each that is `done`, as they come. All
/// threads have ended when this returns. After an error nothing further is begun.
///
/// # Errors
/// The first error.
pub(crate) fn several<T: Sync>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<()> + Sync,
    mut done: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let fail = |error| {
        stop.store(true, Ordering::Relaxed);
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    };
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            let sender = sender.clone();
            let (work, fail, next, stop) = (&work, &fail, &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(n) else {
                        return;
                    };
                    // The receiver lives longer than the threads.
                    match work(n, item) {
                        Ok(()) => sender.send(n).unwrap_or_default(),
                        Err(error) => fail(error),
                    }
                }
            });
        }
        drop(sender);
        for n in receiver {
            if !stop.load(Ordering::Relaxed)
                && let Err(error) = done(n)
            {
                fail(error);
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

//! Open files and directories, by the numbers that the kernel knows them by.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::Union;
use crate::attr::reopen;
use crate::beneath::Result;
use crate::readdir::Entry;

/// All open files and directories.
#[derive(Default)]
pub(crate) struct Handles {
    files: RwLock<HashMap<u64, Arc<File>>>,
    listings: RwLock<HashMap<u64, Arc<Listing>>>,
    next: AtomicU64,
    /// Whether the kernel has granted passthrough.
    pub(crate) passthrough: AtomicBool,
}

/// An open file.
pub(crate) struct File {
    pub(crate) node: u64,
    flags: OFlags,
    fd: RwLock<Arc<OwnedFd>>,
}

/// An open directory, and its names when reading began.
pub(crate) struct Listing {
    pub(crate) node: u64,
    pub(crate) entries: Mutex<Vec<Entry>>,
}

impl File {
    /// The current descriptor: copy_up replaces it.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handles {
    /// Adds an open file and returns its number.
    pub(crate) fn add(&self, node: u64, flags: OFlags, fd: OwnedFd) -> u64 {
        let file = File {
            node,
            flags,
            fd: RwLock::new(Arc::new(fd)),
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(number, Arc::new(file));
        number
    }

    /// The open file with this number; `EBADF` if there is none.
    pub(crate) fn get(&self, number: u64) -> Result<Arc<File>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Removes a file and returns it.
    pub(crate) fn remove(&self, number: u64) -> Option<Arc<File>> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.remove(&number)
    }

    /// Adds an open directory and returns its number.
    pub(crate) fn add_listing(&self, node: u64) -> u64 {
        let listing = Listing {
            node,
            entries: Mutex::default(),
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self
            .listings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(number, Arc::new(listing));
        number
    }

    /// The open directory with this number; `EBADF` if there is none.
    pub(crate) fn listing(&self, number: u64) -> Result<Arc<Listing>> {
        let all = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Removes a directory and returns it.
    pub(crate) fn remove_listing(&self, number: u64) -> Option<Arc<Listing>> {
        let mut all = self
            .listings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&number)
    }

    /// Switches files that are open on the original to the copy, as AUFS does.
    /// Files that the kernel reads past this server stay on the original.
    pub(crate) fn follow(&self, node: u64, union: &Union) -> Result<()> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<Arc<File>> = files.values().filter(|f| f.node == node).cloned().collect();
        drop(files);
        for file in open {
            let copy = reopen(&*union.place(node)?, file.flags)?;
            *file.fd.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(copy);
        }
        Ok(())
    }
}

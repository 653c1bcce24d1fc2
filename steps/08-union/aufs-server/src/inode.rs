//! Inode numbers that stay the same when a file is copied up. AUFS keeps them
//! in its xino files, this server in its memory, for as long as it is mounted.

use std::collections::HashMap;

use rustix::fs::Statx;

/// The identity of a file in a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) branch: usize,
    /// Directories of one branch may be on several devices: btrfs subvolumes.
    dev: (u32, u32),
    pub(crate) ino: u64,
}

impl Key {
    /// The key of a file with these attributes in `branch`.
    pub(crate) fn of(branch: usize, stat: &Statx) -> Self {
        Key {
            branch,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
        }
    }
}

/// The identity of a file for the kernel. The generation, made of the time of
/// birth, tells apart two files that had the same number one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) ino: u64,
    pub(crate) generation: u64,
}

/// The numbers of files for which they are not computed: those that were copied
/// up, and the few that fit no rule.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Each with the file's time of birth, because a branch reuses the numbers
    /// of deleted files.
    known: HashMap<Key, (u64, Identity)>,
    odd: u64,
}

/// Numbers of a branch are `(branch + 1) << 48 | number there`: the same after
/// each mount, and computed without a table.
const BRANCH_SHIFT: u32 = 48;
/// The first of the numbers that follow no rule.
const ODD: u64 = 1 << 62;

impl Numbers {
    /// The identity of a file in a branch.
    pub(crate) fn identity(&mut self, key: Key, stat: &Statx, root_dev: (u32, u32)) -> Identity {
        let birth = birth(stat);
        if let Some((known, identity)) = self.known.get(&key) {
            if *known == birth {
                return *identity;
            }
            self.known.remove(&key);
        }
        let regular = key.ino >> BRANCH_SHIFT == 0 && key.dev == root_dev;
        if regular {
            return Identity {
                ino: computed(key.branch, key.ino),
                generation: birth,
            };
        }
        self.odd += 1;
        let identity = Identity {
            ino: ODD + self.odd,
            generation: birth,
        };
        self.known.insert(key, (birth, identity));
        identity
    }

    /// The number of a directory entry, if it can be computed without the
    /// file's attributes; `None` if they are needed.
    pub(crate) fn of_entry(&self, branch: usize, ino: u64, dev: (u32, u32)) -> Option<u64> {
        let key = Key { branch, dev, ino };
        let computable = ino >> BRANCH_SHIFT == 0 && !self.known.contains_key(&key);
        computable.then(|| computed(branch, ino))
    }

    /// Makes the file with `stat` in a branch keep `identity` from now on: it
    /// was copied up.
    pub(crate) fn keep(&mut self, key: Key, stat: &Statx, identity: Identity) {
        self.known.insert(key, (birth(stat), identity));
    }
}

fn computed(branch: usize, ino: u64) -> u64 {
    ((branch as u64 + 1) << BRANCH_SHIFT) | ino
}

/// The time of birth in nanoseconds; 0 on file systems without one.
pub(crate) fn birth(stat: &Statx) -> u64 {
    let time = &stat.stx_btime;
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(time.tv_nsec))
}

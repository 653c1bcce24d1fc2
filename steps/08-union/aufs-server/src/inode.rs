//! Inode numbers that stay the same when a file is copied up: what AUFS keeps
//! in its xino files, here in the server's memory for as long as it is mounted.

use std::collections::HashMap;

use rustix::fs::Statx;

/// Which file of which branch it is.
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

/// What the kernel knows a file by. The generation tells apart two files that
/// had the same number, one after the other: it is made of the time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) ino: u64,
    pub(crate) generation: u64,
}

/// The numbers of all files whose number is not simply computed: those that
/// were copied up, and the few that fit no rule.
#[derive(Default)]
pub(crate) struct Numbers {
    /// With the birth of the file that was meant, since the numbers of deleted
    /// files come back in the branch.
    known: HashMap<Key, (u64, Identity)>,
    odd: u64,
}

/// Numbers of a branch are `(branch + 1) << 48 | number there`: the same after
/// each mount, and found without a table.
const BRANCH_SHIFT: u32 = 48;
/// Where numbers begin that follow no rule.
const ODD: u64 = 1 << 62;

impl Numbers {
    /// The identity of a file that was found in a branch.
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

    /// The number of a directory entry, as far as it can be told without the
    /// file's attributes; `None` where they are needed.
    pub(crate) fn of_entry(&self, branch: usize, ino: u64, dev: (u32, u32)) -> Option<u64> {
        let key = Key { branch, dev, ino };
        let computable = ino >> BRANCH_SHIFT == 0 && !self.known.contains_key(&key);
        computable.then(|| computed(branch, ino))
    }

    /// Says that the file with `stat` in a branch goes by `identity` from now
    /// on: it was copied up.
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

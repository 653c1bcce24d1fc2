//! The choice of a writable branch for a new file or a copy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::fstatvfs;
use rustix::io::Errno;

use crate::Union;
use crate::beneath::Result;
use crate::node::{Dir, lock};
use crate::options::CreatePolicy;

/// The state of the policies.
#[derive(Default)]
pub(crate) struct Policy {
    turn: AtomicUsize,
    /// The branch with the most free space, and when it was measured.
    freest: Mutex<Option<(Instant, usize)>>,
}

impl Union {
    /// The branch for a new file in `dir`: not below `floor`, where the file
    /// would be hidden.
    ///
    /// # Errors
    /// `EROFS` if no branch is writable.
    pub(crate) fn branch_for_new(&self, dir: &Dir, floor: usize, is_dir: bool) -> Result<usize> {
        let writable: Vec<usize> = self.writable(floor).collect();
        match self.options.create {
            // Round-robin spreads files: aufs(5) keeps directories together.
            CreatePolicy::RoundRobin if !is_dir && !writable.is_empty() => {
                let turn = self.policy.turn.fetch_add(1, Ordering::Relaxed);
                Ok(writable[turn % writable.len()])
            }
            CreatePolicy::MostFreeSpace(_) if writable.len() > 1 => self.freest(&writable),
            _ => self.top_down_parent(dir, floor),
        }
    }

    /// The branch for a copy of a file of `dir` that is in branch `from`: one
    /// above it.
    ///
    /// # Errors
    /// `EROFS` if no branch above is writable.
    pub(crate) fn branch_for_copy(&self, dir: &Dir, from: usize) -> Result<usize> {
        let above = from.checked_sub(1).ok_or(Errno::ROFS)?;
        self.top_down_parent(dir, above.min(dir.floor))
    }

    /// The highest writable branch that has the directory, else the nearest
    /// writable one above its highest, else the highest.
    fn top_down_parent(&self, dir: &Dir, floor: usize) -> Result<usize> {
        let has = |index: &usize| dir.layers.contains(index);
        let top = dir.layers.first().copied().unwrap_or(floor).min(floor);
        self.writable(floor)
            .find(has)
            .or_else(|| self.writable(top).last())
            .or_else(|| self.writable(floor).next())
            .ok_or(Errno::ROFS)
    }

    /// The writable branches down to `floor`, the highest first.
    pub(crate) fn writable(&self, floor: usize) -> impl Iterator<Item = usize> + '_ {
        let branches = self.branches.iter().enumerate().take(floor + 1);
        branches
            .filter(|(_, b)| b.writable())
            .map(|(index, _)| index)
    }

    fn freest(&self, among: &[usize]) -> Result<usize> {
        let CreatePolicy::MostFreeSpace(every) = self.options.create else {
            return among.first().copied().ok_or(Errno::ROFS);
        };
        let mut remembered = lock(&self.policy.freest);
        if let Some((when, branch)) = *remembered
            && when.elapsed() < every
            && among.contains(&branch)
        {
            return Ok(branch);
        }
        let free = |&index: &usize| {
            fstatvfs(&self.branches[index].root).map_or(0, |fs| fs.f_bavail * fs.f_frsize)
        };
        // The highest of several with the same space.
        let best = among.iter().rev().copied().max_by_key(free);
        let best = best.ok_or(Errno::ROFS)?;
        *remembered = Some((Instant::now(), best));
        Ok(best)
    }
}

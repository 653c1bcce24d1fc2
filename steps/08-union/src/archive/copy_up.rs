//! copy_up of files of the layers below: a new name of one makes it a file of
//! this layer, as overlay and AUFS do when a container writes to it.

use std::path::Path;

use anyhow::Result;
use rustix::fs::FileType;

use super::below::Lower;
use super::layer::Layer;
use super::places::{Here, Missing};
use crate::tree::Place;
use crate::tree::copy::{Copied, copy_file, link};
use crate::tree::node::Metadata;

impl Layer<'_> {
    /// Copies the file `lower`, which shows at `path`, to `place` in the layer,
    /// with all of its names that show, so that they stay one file.
    pub(super) fn copy_up(&mut self, path: &Path, place: &Place, lower: &Lower) -> Result<()> {
        self.check_name(place)?;
        self.room
            .take(match FileType::from_raw_mode(lower.stat.st_mode) {
                FileType::RegularFile => lower.stat.st_size.unsigned_abs(),
                _ => 0,
            })?;
        let tree = self.below.tree(lower.layer);
        copy_file(tree, self.tree, path, &lower.stat, &mut Copied::default())?;
        if lower.stat.st_nlink > 1 {
            for other in self.below.names(lower)? {
                if self.is_shown_at(&other, lower)? {
                    // Its directory shows, so no link is on the way.
                    self.find(&other, Missing::Refuse)?;
                    self.room.take(0)?;
                    link(self.tree, path, &other)?;
                }
            }
        }
        Metadata::read(tree, path, &lower.stat)?.write(place)
    }

    fn is_shown_at(&mut self, other: &Path, lower: &Lower) -> Result<bool> {
        for above in other.ancestors().skip(1) {
            if !matches!(self.here(above)?, Here::Nothing | Here::Directory) {
                return Ok(false);
            }
        }
        let is_same = |shown: Lower| {
            shown.layer == lower.layer
                && (shown.stat.st_dev, shown.stat.st_ino) == (lower.stat.st_dev, lower.stat.st_ino)
        };
        Ok(self.here(other)? == Here::Nothing && self.shows_through(other)?.is_some_and(is_same))
    }
}

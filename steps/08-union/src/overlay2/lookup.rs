//! The lookup of overlay and AUFS, from the topmost layer down, repeated in
//! user space: it shows which layer a file comes from.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use rustix::fs::FileType;

use crate::archive::{Marks, is_opaque, is_whited_out};
use crate::layers::finding::{Finding, What};
use crate::layers::id::LayerId;
use crate::tree::{Tree, file_type};

// ANCHOR: lookup
/// What each layer says about `path`, the topmost first, down to the one that
/// ends the search.
pub(crate) fn lookup(stack: &[(LayerId, Tree)], marks: Marks, path: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (layer, tree) in stack {
        let what = ask(tree, marks, path)?;
        let ends = what.ends();
        findings.push(Finding {
            layer: layer.clone(),
            what,
        });
        if ends {
            break;
        }
    }
    Ok(findings)
}
// ANCHOR_END: lookup

/// The names in the directory `path` of each layer, whiteouts included.
pub(crate) fn names(stack: &[(LayerId, Tree)], path: &Path) -> Result<BTreeSet<OsString>> {
    let mut all = BTreeSet::new();
    for (_, tree) in stack {
        if is_directory(tree, path)? {
            all.extend(tree.names(path)?);
        }
    }
    Ok(all)
}

/// Whether `path` is a directory of the layer.
pub(crate) fn is_directory(tree: &Tree, path: &Path) -> Result<bool> {
    let stat = tree.stat(path)?;
    Ok(stat.is_some_and(|stat| file_type(&stat) == FileType::Directory))
}

fn ask(tree: &Tree, marks: Marks, path: &Path) -> Result<What> {
    let mut opaque = None;
    if is_opaque(tree, marks, Path::new(""))? {
        opaque = Some(Path::new("").to_path_buf());
    }
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let mut last = What::Directory;
    for at in above.into_iter().skip(1) {
        let hides = opaque.clone().map(|at| What::Opaque { at, found: false });
        if is_whited_out(tree, marks, at)? {
            return Ok(What::Whiteout { at: at.into() });
        }
        let Some(stat) = tree.stat(at)? else {
            return Ok(hides.unwrap_or(What::Absent));
        };
        last = What::of(&stat);
        if file_type(&stat) == FileType::Directory {
            if is_opaque(tree, marks, at)? {
                opaque = Some(at.into());
            }
        } else if at != path {
            return Ok(What::NotDirectory { at: at.into() });
        }
    }
    Ok(match (last, opaque) {
        (What::Directory, Some(at)) => What::Opaque { at, found: true },
        (last, _) => last,
    })
}

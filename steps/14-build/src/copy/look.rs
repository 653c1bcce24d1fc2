//! What a file is to look like: its mode, owner, time and attributes. The files of
//! an unpacked archive are all the caller's, and their looks stand beside them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use union::tree::node::Xattrs;

/// What a file looks like.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Look {
    /// Permissions: the lower 12 bits of `st_mode`.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// The time of the last change: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Extended attributes.
    #[serde(with = "attributes_as_list")]
    pub xattrs: Xattrs,
}

/// Names of attributes may be any bytes, which no key of JSON may.
mod attributes_as_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use union::tree::node::Xattrs;

    use crate::copy::look::Named;

    pub(super) fn serialize<S: Serializer>(xattrs: &Xattrs, to: S) -> Result<S::Ok, S::Error> {
        let list: Vec<_> = xattrs
            .iter()
            .map(|(name, value)| (Named(name.clone()), value))
            .collect();
        list.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Xattrs, D::Error> {
        let list = Vec::<(Named, Vec<u8>)>::deserialize(from)?;
        Ok(list
            .into_iter()
            .map(|(name, value)| (name.0, value))
            .collect())
    }
}

/// What the files of an unpacked archive are to look like.
#[derive(Debug)]
pub struct Looks(HashMap<OsString, Look>);

impl Looks {
    /// Reads what [`Spool::unpack`](crate::context::spool::Spool::unpack) has written beside `files`.
    pub fn read(files: &Path) -> Result<Self> {
        let path = files.with_file_name("looks");
        let file = File::open(&path).with_context(|| format!("open {path:?}"))?;
        let mut looks = HashMap::new();
        for line in BufReader::with_capacity(1 << 16, file).lines() {
            let line = line.with_context(|| format!("read {path:?}"))?;
            let (name, look): (Named, Look) =
                serde_json::from_str(&line).with_context(|| format!("read {path:?}"))?;
            looks.insert(name.0, look);
        }
        Ok(Looks(looks))
    }

    /// What the file at `path` is to look like, if the archive has said so.
    pub fn of(&self, path: &Path) -> Option<&Look> {
        self.0.get(path.as_os_str())
    }
}

/// A name of any bytes, in a document.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Named(#[serde(with = "kit::text")] pub OsString);

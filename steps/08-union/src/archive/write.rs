//! Output of a layer as a tar archive. PAX records carry what plain tar has no
//! field for: nanoseconds as `mtime`, extended attributes as
//! `SCHILY.xattr.NAME`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{major, minor};
use rustix::fs::{FileType, Stat};
use rustix::process::{getegid, geteuid};
use tar::{Builder, EntryType, Header};

use super::{Marks, OPAQUE, is_aufs_own, is_whiteout, whited_out, whiteout};
use crate::tree::compare::{Change, changes};
use crate::tree::node::{Metadata, xattr};
use crate::tree::{Tree, file_type};

/// Writes a layer that is kept as its changes (overlay, AUFS). No file in it is
/// younger than `latest`.
///
/// # Errors
/// If a file's own name looks like a whiteout.
pub fn layer(tree: &Tree, marks: Marks, latest: Option<i64>, to: &mut dyn Write) -> Result<()> {
    let mut archive = Archive::new(tree, latest, to);
    archive.file(Path::new(""))?;
    if let Some(stat) = tree.stat(Path::new(""))? {
        archive.opaque(Path::new(""), &stat, marks)?;
    }
    tree.walk(Path::new(""), &mut |path, stat| {
        let name = path.file_name().unwrap_or_default();
        match marks {
            Marks::Aufs if is_aufs_own(name) => return Ok(false),
            Marks::Aufs if whited_out(name).is_some() => {
                archive.mark(path)?;
                return Ok(true);
            }
            Marks::Overlay { .. } if is_whiteout(stat) => {
                archive.mark(&path.with_file_name(whiteout(name)))?;
                return Ok(true);
            }
            _ => {}
        }
        archive.file(path)?;
        archive.opaque(path, stat, marks)?;
        Ok(true)
    })?;
    archive.finish()
}

/// Writes the changes that turn the whole tree `before` into `after`. No file in
/// them is younger than `latest`.
pub fn difference(
    before: &Tree,
    after: &Tree,
    latest: Option<i64>,
    to: &mut dyn Write,
) -> Result<()> {
    let mut archive = Archive::new(after, latest, to);
    let mut changes = changes(before, after)?;
    // Drivers that keep changes only always have the root among them: the same
    // changes are the same archive.
    changes.entry(PathBuf::new()).or_insert(Change::Changed);
    for (path, change) in changes {
        match change {
            Change::Changed => archive.file(&path)?,
            Change::Deleted => {
                let name = path.file_name().unwrap_or_default();
                archive.mark(&path.with_file_name(whiteout(name)))?;
            }
        }
    }
    archive.finish()
}

/// Writes a whole tree, as the changes of a layer without a parent.
pub fn whole(tree: &Tree, to: &mut dyn Write) -> Result<()> {
    layer(tree, Marks::Whole, None, to)
}

struct Archive<'a> {
    tree: &'a Tree,
    builder: Builder<&'a mut dyn Write>,
    /// The first name of every file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    /// The latest time, in seconds since 1970.
    latest: Option<i64>,
    /// The caller's user and group, unless that is root.
    caller: Option<(u32, u32)>,
}

impl<'a> Archive<'a> {
    fn new(tree: &'a Tree, latest: Option<i64>, to: &'a mut dyn Write) -> Self {
        Archive {
            tree,
            latest,
            caller: match geteuid() {
                uid if uid.is_root() => None,
                uid => Some((uid.as_raw(), getegid().as_raw())),
            },
            builder: Builder::new(to),
            links: HashMap::new(),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.builder.finish().context("write the archive")
    }

    /// Writes an empty file that marks a deletion.
    fn mark(&mut self, path: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        fill_numbers(&mut header);
        self.builder
            .append_data(&mut header, path, std::io::empty())
            .with_context(|| format!("write the whiteout {path:?}"))
    }

    fn opaque(&mut self, path: &Path, stat: &Stat, marks: Marks) -> Result<()> {
        let Marks::Overlay { opaque } = marks else {
            return Ok(());
        };
        if file_type(stat) == FileType::Directory
            && xattr(self.tree, path, opaque)?.as_deref() == Some(b"y")
        {
            self.mark(&path.join(OPAQUE))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let Some(mut stat) = self.tree.stat(path)? else {
            return Ok(());
        };
        // The files of an ordinary user's root are the user's own.
        if let Some((uid, gid)) = self.caller {
            stat.st_uid = if stat.st_uid == uid { 0 } else { stat.st_uid };
            stat.st_gid = if stat.st_gid == gid { 0 } else { stat.st_gid };
        }
        if let Some(latest) = self.latest
            && (stat.st_mtime, stat.st_mtime_nsec) > (latest, 0)
        {
            (stat.st_mtime, stat.st_mtime_nsec) = (latest, 0);
        }
        let name = path.file_name().unwrap_or_default();
        if whited_out(name).is_some() {
            bail!(
                "{path:?} cannot be held by a layer's archive: a name that begins with .wh. stands \
                 for a deleted file there; rename it"
            );
        }
        // A socket is an end of a connection, not a file to keep.
        if file_type(&stat) == FileType::Socket {
            return Ok(());
        }
        if stat.st_nlink > 1 && file_type(&stat) != FileType::Directory {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                return self.link(path, &first, &stat);
            }
            self.links.insert(key, path.to_owned());
        }
        self.contents(path, &stat)
            .with_context(|| format!("write {path:?} to the archive"))
    }

    fn link(&mut self, path: &Path, first: &Path, stat: &Stat) -> Result<()> {
        let mut header = header(stat, EntryType::Link);
        self.builder
            .append_link(&mut header, path, first)
            .with_context(|| format!("write the link {path:?} to the archive"))
    }

    fn contents(&mut self, path: &Path, stat: &Stat) -> Result<()> {
        let metadata = Metadata::read(self.tree, path, stat)?;
        let mut records = vec![("mtime".to_owned(), time(metadata.mtime).into_bytes())];
        for (name, value) in metadata.xattrs {
            let name = name
                .to_str()
                .with_context(|| format!("the attribute {name:?} is not UTF-8"))?;
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        let type_of = match file_type(stat) {
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            _ => EntryType::Regular,
        };
        let mut header = header(stat, type_of);
        match type_of {
            EntryType::Symlink => {
                let target = self.tree.link(path)?;
                // The field has 100 bytes.
                if target.len() > 100 {
                    records.push(("linkpath".into(), target.as_bytes().to_vec()));
                }
                let shown = &target.as_bytes()[..target.len().min(100)];
                header.set_link_name_literal(shown)?;
            }
            EntryType::Char | EntryType::Block => {
                header.set_device_major(major(stat.st_rdev) as u32)?;
                header.set_device_minor(minor(stat.st_rdev) as u32)?;
            }
            EntryType::Regular => header.set_size(stat.st_size as u64),
            _ => {}
        }
        append_pax(&mut self.builder, path, &records)?;
        let name = match path.as_os_str().is_empty() {
            true => Path::new("./"),
            false => path,
        };
        if type_of == EntryType::Regular {
            let file = self.tree.file(path)?;
            let content = Exactly::new(file, stat.st_size as u64);
            self.builder.append_data(&mut header, name, content)?;
        } else {
            self.builder
                .append_data(&mut header, name, std::io::empty())?;
        }
        Ok(())
    }
}

/// Writes a header of PAX (pax(1)) with `records` for the entry `path`, which
/// follows. It has a name: for busybox a header without one is the end.
pub fn append_pax(
    builder: &mut Builder<impl Write>,
    path: &Path,
    records: &[(String, Vec<u8>)],
) -> Result<()> {
    let mut data = Vec::new();
    for (key, value) in records {
        // The length counts itself: " key=value\n" and its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    fill_numbers(&mut header);
    let base = path.file_name().unwrap_or(OsStr::new("."));
    let mut name = [b"PaxHeaders/", base.as_bytes()].concat();
    name.truncate(99);
    if let Some(field) = header.as_old_mut().name.get_mut(..name.len()) {
        field.copy_from_slice(&name);
    }
    header.set_cksum();
    builder
        .append(&header, data.as_slice())
        .context("write the header of PAX")
}

/// Fills the numeric fields of a header that stands for no file of its own: to
/// some readers an empty one is damaged.
fn fill_numbers(header: &mut Header) {
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
}

/// The header of an entry without content.
pub fn header(stat: &Stat, type_of: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(type_of);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// A time in the format of PAX: decimal seconds. Before 1970 the fraction
/// counts away from zero.
pub fn time((seconds, nanoseconds): (i64, i64)) -> String {
    match seconds {
        0.. => format!("{seconds}.{nanoseconds:09}"),
        _ if nanoseconds == 0 => format!("{seconds}"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

/// A reader of exactly as many bytes of a file as its header promised. If the
/// file becomes shorter meanwhile, zeroes follow.
#[derive(Debug)]
pub struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exactly<R> {
    /// A reader of the next `left` bytes of `inner`.
    pub fn new(inner: R, left: u64) -> Self {
        Exactly { inner, left }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let mut read = self.inner.read(buffer)?;
        if read == 0 {
            buffer.fill(0);
            read = wanted;
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// The path that a whiteout or an opaque mark of an archive deletes, `*`
/// standing for the content of an opaque directory; `None` for other paths.
pub fn deletion(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    if name == OPAQUE {
        return Some(path.with_file_name(OsStr::new("*")));
    }
    whited_out(name).map(|name| path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_decimal_on_both_sides_of_1970() {
        assert_eq!(time((1, 5)), "1.000000005");
        assert_eq!(time((-1, 0)), "-1");
        // Half a second before 1970 is kept as -1 s + 500 000 000 ns.
        assert_eq!(time((-1, 500_000_000)), "-0.500000000");
    }
}

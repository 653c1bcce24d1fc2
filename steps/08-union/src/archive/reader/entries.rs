//! The entries of an archive, one by one.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use kit::say;

use super::header::{self, Header};
use super::pax::{self, Records};
use super::sparse::{self, Extent};
use super::{BLOCK, HEADERS, numbers};
use crate::tree::node::Xattrs;

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file; also one with holes, and one of an unknown type.
    Regular,
    /// A hard link to an earlier entry.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// A reader of an archive. The archive ends with two blocks of zeroes, or where
/// the file ends; bytes after the blocks are not read.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// Skips bytes, and returns how many there were.
    skip: fn(&mut R, u64) -> io::Result<u64>,
    /// The number of bytes read so far.
    at: u64,
    /// The number of entries read so far.
    number: u64,
    /// Unread bytes of the last entry: its content, and the padding of its last
    /// block.
    left: u64,
    padding: u64,
    /// Records that apply to all entries that follow.
    global: Records,
}

/// An entry. Reading yields the content of a regular file, holes as zeroes.
#[derive(Debug)]
pub struct Entry<'a, R> {
    reader: &'a mut Reader<R>,
    head: Head,
    /// The position in the file, holes included, and the index of the piece.
    position: u64,
    piece: usize,
}

/// The metadata of an entry.
#[derive(Debug)]
struct Head {
    path: Vec<u8>,
    link: Vec<u8>,
    entry_type: EntryType,
    size: u64,
    mode: u32,
    uid: i64,
    gid: i64,
    mtime: (i64, i64),
    device: (u32, u32),
    xattrs: Xattrs,
    extents: Option<Vec<Extent>>,
}

/// The headers that describe the entry after them.
#[derive(Default)]
struct About {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
    /// Their length in bytes.
    bytes: u64,
    /// Whether there were any.
    is_due: bool,
}

impl<R: Read> Reader<R> {
    /// A reader of the archive that `from` yields.
    pub fn new(from: R) -> Self {
        Self::with(from, |from, length| {
            io::copy(&mut from.take(length), &mut io::sink())
        })
    }

    fn with(from: R, skip: fn(&mut R, u64) -> io::Result<u64>) -> Self {
        Reader {
            from,
            skip,
            at: 0,
            number: 0,
            left: 0,
            padding: 0,
            global: Records::new(),
        }
    }

    /// The next entry; the unread rest of the last one is skipped.
    ///
    /// # Errors
    /// If the input is no archive, or if an entry is not understood: with the
    /// number of the entry and the byte at which it begins.
    #[allow(clippy::should_implement_trait)] // an entry borrows the reader
    pub fn next(&mut self) -> Result<Option<Entry<'_, R>>> {
        self.pass().with_context(|| self.place(self.at))?;
        self.number += 1;
        let began = self.at;
        let head = self.head().with_context(|| self.place(began))?;
        Ok(head.map(|head| Entry {
            reader: self,
            head,
            position: 0,
            piece: 0,
        }))
    }

    fn place(&self, at: u64) -> String {
        format!("entry {} of the archive, at byte {at}", self.number)
    }

    /// Skips the rest of the last entry.
    fn pass(&mut self) -> Result<()> {
        let left = std::mem::take(&mut self.left);
        let passed = (self.skip)(&mut self.from, left).context("read")?;
        self.at += passed;
        if passed < left {
            bail!("the archive ends before the file does");
        }
        // Some programs, such as umoci, do not fill up the last block.
        let padding = std::mem::take(&mut self.padding);
        let passed = io::copy(&mut (&mut self.from).take(padding), &mut io::sink());
        self.at += passed.context("read")?;
        Ok(())
    }

    fn head(&mut self) -> Result<Option<Head>> {
        let mut about = About::default();
        while let Some(header) = self.header()? {
            match header.flag() {
                // Solaris has X for x.
                b'x' | b'X' => about.records = pax::records(&self.special(&header, &mut about)?)?,
                b'g' => {
                    let records = pax::records(&self.special(&header, &mut about)?)?;
                    self.globally(records);
                    continue;
                }
                b'L' => about.path = long(&self.special(&header, &mut about)?),
                b'K' => about.link = long(&self.special(&header, &mut about)?),
                // The name of the volume.
                b'V' => {
                    self.content(&header)?;
                    self.pass()?;
                    continue;
                }
                _ => {
                    let path = path(&header, &about, &self.global);
                    return self
                        .entry(&header, about, path.clone())
                        .with_context(|| format!("{:?}", String::from_utf8_lossy(&path)))
                        .map(Some);
                }
            }
            about.is_due = true;
        }
        if about.is_due {
            bail!("the archive ends after the headers of an entry");
        }
        Ok(None)
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        let header = Header::new(block);
        if !header.is_zero() {
            if !header.is_valid() {
                bail!("this is not a header: its checksum is wrong");
            }
            return Ok(Some(header));
        }
        // One block of zeroes is enough for GNU tar, and what follows is lost.
        let next = self.block().unwrap_or_default().map(Header::new);
        if next.is_some_and(|next| !next.is_zero() && next.is_valid()) {
            bail!("a block of zeroes is in the middle of the archive, and entries follow it");
        }
        Ok(None)
    }

    /// The next block; `None` at the end of the file.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => bail!("the archive ends within a header"),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read"),
            }
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    /// Starts with the content of a header, whose size is in it.
    fn content(&mut self, header: &Header) -> Result<()> {
        self.content_of(u64::try_from(header.size()?).context("its size is negative")?);
        Ok(())
    }

    fn content_of(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The content of a header that describes the next entry.
    fn special(&mut self, header: &Header, about: &mut About) -> Result<Vec<u8>> {
        self.content(header)?;
        about.bytes = about.bytes.saturating_add(self.left + BLOCK as u64);
        if about.bytes > HEADERS {
            bail!("the headers of an entry have more than {HEADERS} bytes: refused");
        }
        let mut content = Vec::new();
        let read = (&mut self.from).take(self.left).read_to_end(&mut content);
        let read = read.context("read")? as u64;
        self.at += read;
        self.left -= read;
        self.pass()?;
        Ok(content)
    }

    /// Keeps the records of POSIX that apply to all entries that follow. Others
    /// would give their attributes to every file, and each file would keep a
    /// copy of them.
    fn globally(&mut self, records: Records) {
        for (key, value) in records {
            let is_known = matches!(
                &key[..],
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime"
            );
            if is_known {
                self.global.insert(key, value);
            }
        }
    }

    fn entry(&mut self, header: &Header, about: About, path: Vec<u8>) -> Result<Head> {
        let record = |key: &str| record(&about.records, &self.global, key);
        let number = |key: &str, field: Result<i64>| match record(key) {
            Some(text) => {
                numbers::decimal(text).with_context(|| format!("its {key} is not a number"))
            }
            None => field,
        };
        let mut head = Head {
            link: match (&about.link, record("linkpath")) {
                (Some(link), _) => link.clone(),
                (None, Some(link)) => link.to_owned(),
                (None, None) => header.link().to_owned(),
            },
            entry_type: EntryType::Regular,
            size: 0,
            mode: (header.mode()? & 0o7777) as u32,
            uid: number("uid", header.uid())?,
            gid: number("gid", header.gid())?,
            mtime: match record("mtime") {
                Some(text) => numbers::time(text).context("its mtime is not a time")?,
                None => (header.mtime()?, 0),
            },
            device: (0, 0),
            xattrs: pax::xattrs(&about.records),
            extents: None,
            path,
        };
        let size = || -> Result<u64> {
            u64::try_from(number("size", header.size())?).context("its size is negative")
        };
        let is_directory = head.path.ends_with(b"/");
        head.entry_type = match header.flag() {
            // V7 had no type for directories.
            0 if is_directory => EntryType::Directory,
            b'0' | b'7' if is_directory && size()? == 0 => EntryType::Directory,
            b'1' => EntryType::Link,
            b'2' => EntryType::Symlink,
            b'3' => EntryType::Char,
            b'4' => EntryType::Block,
            b'5' => EntryType::Directory,
            b'6' => EntryType::Fifo,
            // A directory with the names in it as content, for incremental
            // backups.
            b'D' => {
                head.entry_type = EntryType::Directory;
                self.content_of(size()?);
                return Ok(head);
            }
            b'M' => bail!("it begins in another archive, of which this is the next volume"),
            b'N' => bail!("it is a list of renames by an old GNU tar, which is not supported"),
            0 | b'0' | b'7' | b'S' => EntryType::Regular,
            flag => {
                // POSIX: a type that is not known is a regular file.
                let name = String::from_utf8_lossy(&head.path);
                say!("{name:?} has the unknown type {:?}", char::from(flag));
                EntryType::Regular
            }
        };
        if matches!(head.entry_type, EntryType::Char | EntryType::Block) {
            let (major, minor) = header.device()?;
            // A number that the kernel has not enough bits for would mean
            // another device.
            let fits = (0..1 << 12).contains(&major) && (0..1 << 20).contains(&minor);
            if !fits {
                bail!("there is no device {major}:{minor}");
            }
            head.device = (major as u32, minor as u32);
        }
        // Other types have no content, whatever size they claim.
        if head.entry_type == EntryType::Regular {
            let size = size()?;
            self.content_of(size);
            head.size = size;
            self.sparse(header, &about.records, &mut head)?;
        }
        Ok(head)
    }

    /// Reads the map of a file with holes.
    fn sparse(&mut self, header: &Header, records: &Records, head: &mut Head) -> Result<()> {
        let extents = if header.flag() == b'S' {
            let sparse = header.sparse();
            let (entries, mut continued, size) = sparse
                .context("it is a sparse file in the format of star, which is not supported")?;
            let size = numbers::field(size).and_then(|size| u64::try_from(size).ok());
            head.size = size.context("it is sparse, and its size is not a number")?;
            let mut extents = Vec::new();
            sparse::in_header(entries, &mut extents)?;
            while continued {
                let block = self.block()?.context("the archive ends within a header")?;
                sparse::in_header(&block[..504], &mut extents)?;
                continued = block[504] != 0;
            }
            extents
        } else {
            let Some(format) = sparse::format(records)? else {
                return Ok(());
            };
            head.size = sparse::size(records)?.unwrap_or(head.size);
            match format {
                sparse::Format::InRecords(extents) => extents,
                sparse::Format::InContent => sparse::in_content(|| {
                    let left = self.left.checked_sub(BLOCK as u64);
                    self.left = left.context("it is sparse, and its map has no end")?;
                    self.block()?.context("the archive ends within a map")
                })?,
            }
        };
        sparse::check(&extents, head.size, self.left)?;
        head.extents = Some(extents);
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// A reader that skips unread content with lseek(2).
    pub fn seeking(from: R) -> Self {
        Self::with(from, |from, length| {
            let Some(but_one) = length.checked_sub(1) else {
                return Ok(0);
            };
            // The last byte is read: lseek(2) does not stop at the end.
            let by = i64::try_from(but_one).map_err(|_| ErrorKind::UnexpectedEof)?;
            from.seek(SeekFrom::Current(by))?;
            Ok(match from.read(&mut [0])? {
                0 => 0,
                _ => length,
            })
        })
    }
}

/// The path of an entry, in Go's order of precedence. A sparse file has it in a
/// record of its own, so that programs that do not know holes do not take its
/// data for the file.
fn path(header: &Header, about: &About, global: &Records) -> Vec<u8> {
    let record = |key| record(&about.records, global, key).map(<[u8]>::to_vec);
    record("GNU.sparse.name")
        .or(about.path.clone())
        .or(record("path"))
        .unwrap_or_else(|| header.path())
}

/// The value of a key. An empty one cancels what other headers say.
fn record<'a>(records: &'a Records, global: &'a Records, key: &str) -> Option<&'a [u8]> {
    let key = key.as_bytes();
    let value = records.get(key).or(global.get(key))?;
    Some(&value[..]).filter(|value| !value.is_empty())
}

/// A long name, up to the first NUL.
fn long(content: &[u8]) -> Option<Vec<u8>> {
    Some(header::text(content).to_vec()).filter(|name| !name.is_empty())
}

impl<R> Entry<'_, R> {
    /// The path as the archive has it: perhaps empty, absolute, or with `..`.
    pub fn path_bytes(&self) -> &[u8] {
        &self.head.path
    }

    /// The target of a link, if there is one.
    pub fn link_name_bytes(&self) -> Option<&[u8]> {
        Some(&self.head.link[..]).filter(|link| !link.is_empty())
    }

    /// The type of the entry.
    pub fn entry_type(&self) -> EntryType {
        self.head.entry_type
    }

    /// The size of a regular file in bytes, holes included.
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// Whether the file has holes.
    pub fn is_sparse(&self) -> bool {
        self.head.extents.is_some()
    }

    /// The pieces of a file with holes. Their data follow one another in the
    /// archive.
    pub fn extents(&self) -> Option<&[Extent]> {
        self.head.extents.as_deref()
    }

    /// Permissions: the lower 12 bits of `st_mode`.
    pub fn mode(&self) -> u32 {
        self.head.mode
    }

    /// User and group ID as the archive has them: perhaps more than a `uid_t`
    /// holds.
    pub fn owner(&self) -> (i64, i64) {
        (self.head.uid, self.head.gid)
    }

    /// Time of the last change: seconds and nanoseconds since 1970.
    pub fn mtime(&self) -> (i64, i64) {
        self.head.mtime
    }

    /// Major and minor number of a device; 0 and 0 for other types.
    pub fn device(&self) -> (u32, u32) {
        self.head.device
    }

    /// Extended attributes.
    pub fn xattrs(&self) -> &Xattrs {
        &self.head.xattrs
    }

    /// The number of bytes of the archive that have been read: before the first
    /// read of an entry, the offset of its content.
    pub fn offset(&self) -> u64 {
        self.reader.at
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (is_hole, end) = self.stretch();
        let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = &mut buffer[..wanted];
        if is_hole {
            buffer.fill(0);
            self.position += wanted as u64;
            return Ok(wanted);
        }
        let read = self.reader.from.read(buffer)?;
        if read == 0 && wanted > 0 {
            let why = "the archive ends before the file does";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
        }
        self.reader.at += read as u64;
        self.reader.left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read> Entry<'_, R> {
    /// Writes the content into a new file. Zeroes become holes.
    pub fn write_to(&mut self, file: &File) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        loop {
            let hole = self.skip_hole();
            if hole > 0 {
                at += hole;
                continue;
            }
            let length = self.read(&mut buffer).context("read the archive")?;
            if length == 0 {
                break;
            }
            for block in buffer[..length].chunks(4096) {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, at).context("write")?;
                }
                at += block.len() as u64;
            }
        }
        file.set_len(at).context("ftruncate")
    }
}

impl<R> Entry<'_, R> {
    /// Skips the hole that comes next, if one does, and returns its length.
    pub fn skip_hole(&mut self) -> u64 {
        match self.stretch() {
            (true, end) => end - std::mem::replace(&mut self.position, end),
            (false, _) => 0,
        }
    }

    /// The next stretch of the file: whether it is a hole, and where it ends.
    fn stretch(&mut self) -> (bool, u64) {
        let Some(extents) = &self.head.extents else {
            return (false, self.head.size);
        };
        while let Some(extent) = extents.get(self.piece) {
            if self.position < extent.offset {
                return (true, extent.offset);
            }
            let end = extent.offset + extent.length;
            if self.position < end {
                return (false, end);
            }
            self.piece += 1;
        }
        (true, self.head.size)
    }
}

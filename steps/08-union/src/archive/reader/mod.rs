//! A reader of tar archives that reads them as Go's archive/tar and GNU tar do:
//! images come from both, and each has its own interpretation of what tar(5)
//! and POSIX's pax(1) leave open.
//!
//! | module | what |
//! |---|---|
//! | [`entries`] | entries one by one, with the headers before them |
//! | header | a block of 512 bytes: fields, formats, the checksum |
//! | numbers | octal, base-256, decimal, and times |
//! | pax | records of extended headers |
//! | sparse | the map of a file with holes: four formats |
//!
//! The crate `tar` writes our archives and does not read them. Its reader
//! (0.4.46) splits PAX records at newlines, which the binary value of a
//! capability may hold; takes the size in the header of a link for content and
//! swallows the file behind it; knows no PAX sparse format, which yields files
//! called `GNUSparseFile.0/NAME`; refuses empty numeric fields, and a long name
//! that comes twice. `astral-tokio-tar` is asynchronous, and `tar-core` is at
//! version 0.1.0.
//!
//! Where Go and GNU tar differ, the rules are these:
//!
//! 1. What both accept is accepted, with the same resulting tree.
//! 2. No file is silently missing or renamed: what is not understood is an
//!    error that names the entry and the byte at which it begins.
//! 3. Of several headers about one entry the last counts, as a whole; a long
//!    name comes before a PAX path (Go).
//! 4. Memory is bounded by [`HEADERS`] and [`EXTENTS`], whatever size a header
//!    claims.
//!
//! `tests/archives.rs` compares the trees with those of GNU tar and of Python.

pub mod entries;
mod header;
mod numbers;
mod pax;
mod sparse;

pub use entries::{Entry, EntryType, Reader};
pub use sparse::{EXTENTS, Extent};

/// The largest size of the headers of one entry, in bytes: its long names and
/// its PAX records. The kernel's limit on one extended attribute is 64 KiB, on
/// a path 4 KiB; Go has the same limit on one header.
pub const HEADERS: u64 = 1 << 20;

/// The size of the blocks of an archive, in bytes (tar(5)).
const BLOCK: usize = 512;

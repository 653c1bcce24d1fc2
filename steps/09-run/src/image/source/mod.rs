//! Sources of images: what a path, or the data on standard input, contains.
//!
//! | module | what |
//! |---|---|
//! | [`oci`], [`docker`] | the two layouts of archives: `index.json` and `manifest.json` |
//! | [`files`] | the files of an archive or of a directory |
//! | [`blob`], [`decompress`], [`verify`] | content, decompressed and verified while it streams |
//! | [`parts`] | the result: a configuration, and where its layers are |

pub mod blob;
pub mod decompress;
pub(crate) mod docker;
pub(crate) mod files;
pub(crate) mod oci;
pub mod parts;
pub mod verify;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::warn;
use union::archive::reader::Reader;

use crate::image::digest::Digest;
use crate::image::source::blob::Blob;
use crate::image::source::decompress::Packing;
use crate::image::source::files::{Contents, ImageFiles, is_of_a_root_file_system, plain};
use crate::image::source::parts::Parts;
use crate::image::source::verify::{Content, Expected, checked, content};

/// The contents of an archive, or of a directory with `index.json`.
#[derive(Debug)]
pub enum Source {
    /// Images, which [`images`] lists.
    Images(ImageFiles),
    /// A root file system: the tar, perhaps compressed, and its digest and
    /// size.
    RootFileSystem(Blob, Content),
}

/// The treatment of an archive that holds neither images nor the usual
/// directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Else {
    /// It is an error.
    Refuse,
    /// It is a root file system, for instance of a single program.
    Files,
}

/// Splits `reference` into the path of a file or directory that exists, and the
/// tag behind it; `None` if there is no such path.
pub fn path_and_tag(reference: &str) -> Option<(PathBuf, Option<&str>)> {
    if Path::new(reference).exists() {
        return Some((reference.into(), None));
    }
    let (path, tag) = reference.rsplit_once(':')?;
    Path::new(path).exists().then(|| (path.into(), Some(tag)))
}

/// Whether a directory is an OCI image layout.
pub fn is_layout(directory: &Path) -> bool {
    oci::is_layout(&ImageFiles::Directory(directory.into()))
}

impl Source {
    /// Determines what is at `path`.
    ///
    /// # Errors
    /// If no image can be made of it.
    pub fn at(
        path: &Path,
        or: Else,
        spool: &dyn Fn() -> Result<File>,
        at_most: u64,
    ) -> Result<Self> {
        if path.is_dir() {
            if !is_layout(path) {
                bail!("{path:?} is a directory, but not an OCI image layout: it has no index.json");
            }
            return Ok(Source::Images(ImageFiles::Directory(path.into())));
        }
        Self::of(Blob::open(path)?, or, spool, at_most)
    }

    /// Determines what an archive contains. `spool` makes a file without a
    /// name, into which an archive of images that is compressed as a whole is
    /// unpacked: its parts are not in the order in which they are needed. At
    /// most `at_most` bytes are unpacked.
    ///
    /// # Errors
    /// If no image can be made of it.
    pub fn of(
        blob: Blob,
        or: Else,
        spool: &dyn Fn() -> Result<File>,
        at_most: u64,
    ) -> Result<Self> {
        let mut first = [0; 8];
        let length = blob.reader().read(&mut first).unwrap_or(0);
        let expected = Expected {
            at_most,
            ..Expected::default()
        };
        if Packing::of(&first[..length]) == Packing::Plain {
            let contents = Contents::of(blob)?;
            let is_else = || or == Else::Files && !holds_images(&contents);
            if contents.is_root_file_system() || is_else() {
                let blob = contents.into_blob();
                let content = content(&blob, &expected)?;
                return Ok(Source::RootFileSystem(blob, content));
            }
            return Self::of_files(contents);
        }
        let mut holds_images = false;
        let content = checked(&blob, &expected, |from| {
            holds_images = look_for_images(from)?;
            Ok(())
        })?;
        if !holds_images {
            return Ok(Source::RootFileSystem(blob, content));
        }
        let mut file = spool()?;
        checked(&blob, &expected, |from| {
            io::copy(from, &mut file).context("write the unpacked archive")?;
            file.flush().context("write the unpacked archive")
        })?;
        file.rewind().context("lseek of the unpacked archive")?;
        let unpacked = Blob::of(file, format!("{}, unpacked", blob.what()))?;
        Self::of_files(Contents::of(unpacked)?)
    }

    fn of_files(contents: Contents) -> Result<Self> {
        let what = contents.what().to_owned();
        let holds_images = holds_images(&contents);
        let files = ImageFiles::Archive(contents);
        if !holds_images {
            bail!(
                "{what} is neither a root file system (it has no bin, etc or usr), nor an OCI \
                 image layout (no index.json), nor one of docker save (no manifest.json)"
            );
        }
        Ok(Source::Images(files))
    }
}

fn holds_images(contents: &Contents) -> bool {
    let has = |&name: &&str| contents.has(name);
    oci::LAYOUT.iter().all(has) || docker::ARCHIVE.iter().any(has)
}

/// The images in `files`; only those called `tag`, if one is given.
///
/// # Errors
/// If a part is missing or damaged.
pub fn images(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    if !oci::is_layout(files) {
        return docker::images(files, tag);
    }
    // Since Docker 25 its archives are layouts too. Which of the two files
    // lists an image, and which names it, depends on who wrote the archive.
    match oci::images(files, tag) {
        Err(error) if error.is::<oci::NoImage>() && docker::is_archive(files) => {
            docker::images(files, tag)
        }
        Ok(mut images) if docker::has_manifest(files) => {
            match docker::repo_tags(files) {
                Ok(repo_tags) => add_names(&mut images, &repo_tags),
                Err(error) => warn!("the names in manifest.json are ignored: {error:#}"),
            }
            Ok(images)
        }
        images => images,
    }
}

/// Adds the names that `manifest.json` has for images of `index.json`, where a
/// name is often no more than a tag.
fn add_names(images: &mut [Parts], repo_tags: &BTreeMap<String, Vec<String>>) {
    for parts in images {
        let id = Digest::of(&parts.config).to_string();
        if let Some(names) = repo_tags.get(&id).filter(|names| !names.is_empty()) {
            parts.names.retain(|name| !is_bare_tag(name));
            parts.names.extend(names.iter().cloned());
        }
    }
}

/// Whether a name is a tag only.
pub(crate) fn is_bare_tag(name: &str) -> bool {
    !name.contains([':', '/'])
}

/// Reads an archive to its end. Returns whether it holds images, and not a root
/// file system.
fn look_for_images(from: &mut dyn Read) -> Result<bool> {
    let mut archive = Reader::new(&mut *from);
    let (mut is_root, mut has_index) = (false, false);
    while let Some(entry) = archive.next()? {
        let path = plain(Path::new(OsStr::from_bytes(entry.path_bytes())));
        is_root |= is_of_a_root_file_system(&path);
        has_index |= path == Path::new("index.json") || path == Path::new("manifest.json");
    }
    io::copy(from, &mut io::sink()).context("read the archive to its end")?;
    Ok(has_index && !is_root)
}

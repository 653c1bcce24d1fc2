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

/// What the caller wants of an archive. A tree may have a file `manifest.json`,
/// and an archive of images a directory `etc`: as in Docker, the verb decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Images, if there are any in it.
    Images,
    /// The files that it holds, whatever they are: a root file system, for
    /// instance of a single program.
    Files,
    /// What it looks like: nobody has said. A root file system, if it has the
    /// usual directories.
    Either,
}

/// What an archive looks like.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    /// It has a list of images.
    like_images: bool,
    /// It has directories of a root file system.
    like_a_root: bool,
}

impl Wanted {
    /// Whether an archive is taken as images; `None` if it does not look like
    /// anything.
    fn as_images(self, what: &str, looks: Looks) -> Option<bool> {
        match (self, looks.like_images, looks.like_a_root) {
            (Wanted::Files, like_images, like_a_root) => {
                if like_images && !like_a_root {
                    warn!(
                        "{what} may be an archive of images, and becomes an image with its files: \
                         drydock load loads images"
                    );
                }
                Some(false)
            }
            (Wanted::Images, true, _) | (Wanted::Either, true, false) => Some(true),
            (_, _, true) => Some(false),
            (_, false, false) => None,
        }
    }
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
        wanted: Wanted,
        spool: &dyn Fn() -> Result<File>,
        at_most: u64,
    ) -> Result<Self> {
        if path.is_dir() {
            let files = ImageFiles::Directory(path.into());
            if !oci::has_index(&files) {
                bail!("{path:?} is a directory, but not an OCI image layout: it has no index.json");
            }
            return Ok(Source::Images(files));
        }
        Self::of(Blob::open(path)?, wanted, spool, at_most)
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
        wanted: Wanted,
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
            return match wanted.as_images(contents.what(), Looks::of(contents.paths())) {
                Some(true) => Ok(Source::Images(ImageFiles::Archive(contents))),
                Some(false) => {
                    let blob = contents.into_blob();
                    let content = content(&blob, &expected)?;
                    Ok(Source::RootFileSystem(blob, content))
                }
                None => bail!(
                    "{} is neither a root file system (it has no bin, etc or usr), nor an OCI \
                     image layout (no index.json), nor one of docker save (no manifest.json)",
                    contents.what()
                ),
            };
        }
        let mut looks = Looks::default();
        let content = checked(&blob, &expected, |from| {
            looks = looks_of(from)?;
            Ok(())
        })?;
        if wanted.as_images(blob.what(), looks) != Some(true) {
            return Ok(Source::RootFileSystem(blob, content));
        }
        let mut file = spool()?;
        checked(&blob, &expected, |from| {
            io::copy(from, &mut file).context("write the unpacked archive")?;
            file.flush().context("write the unpacked archive")
        })?;
        file.rewind().context("lseek of the unpacked archive")?;
        let unpacked = Blob::of(file, format!("{}, unpacked", blob.what()))?;
        let contents = Contents::of(unpacked)?;
        Ok(Source::Images(ImageFiles::Archive(contents)))
    }
}

impl Looks {
    /// What an archive with these entries looks like.
    fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let mut looks = Looks::default();
        paths.for_each(|path| looks.see(path));
        looks
    }

    /// Adds what an entry of the archive says.
    fn see(&mut self, path: &Path) {
        let is_list = |name: &&str| path == Path::new(name);
        self.like_images |= path == Path::new(oci::INDEX) || docker::ARCHIVE.iter().any(is_list);
        self.like_a_root |= is_of_a_root_file_system(path);
    }
}

/// The images in `files`; only those called `tag`, if one is given.
///
/// # Errors
/// If a part is missing or damaged.
pub fn images(files: &ImageFiles, tag: Option<&str>) -> Result<Vec<Parts>> {
    let is_layout = match docker::is_archive(files) {
        true => oci::is_layout(files),
        false => oci::has_index(files),
    };
    if !is_layout {
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

/// Reads an archive to its end.
fn looks_of(from: &mut dyn Read) -> Result<Looks> {
    let mut archive = Reader::new(&mut *from);
    let mut looks = Looks::default();
    while let Some(entry) = archive.next()? {
        looks.see(&plain(Path::new(OsStr::from_bytes(entry.path_bytes()))));
    }
    io::copy(from, &mut io::sink()).context("read the archive to its end")?;
    Ok(looks)
}

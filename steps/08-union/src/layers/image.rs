//! The layers below a container's own: a directory as an image, and the `-init`
//! layer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tar::{Builder, EntryType, Header};

use crate::archive::write;
use crate::driver::StorageDriver;
use crate::layers::id::LayerId;
use crate::tree::Tree;

/// Copies a directory into a new layer.
pub fn import_directory(
    driver: &dyn StorageDriver,
    id: &LayerId,
    parent: Option<&LayerId>,
    directory: &Path,
) -> Result<()> {
    let metadata = fs::metadata(directory).with_context(|| format!("stat({directory:?})"))?;
    if !metadata.is_dir() {
        bail!("{directory:?} is not a directory");
    }
    let tree = Tree::open(directory)?;
    let (mut reader, mut writer) = std::io::pipe().context("pipe")?;
    // The thread ends before any process is cloned.
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write::whole(&tree, &mut writer));
        let imported = driver.import(id, parent, &mut reader);
        drop(reader);
        match (imported, writing.join()) {
            // If the writer fails, the archive ends too early.
            (_, Ok(Err(error))) if !is_broken_pipe(&error) => {
                if driver.exists(id)? {
                    driver.remove(id)?;
                }
                Err(error)
            }
            (Ok(()), Err(_)) => bail!("the thread that reads {directory:?} panicked"),
            (imported, _) => imported,
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The `-init` layer as a tar archive: the mount points of every container,
/// which are the directories of step 04 and the files of step 06. The
/// container's own layer then does not show them as changes.
///
/// `more` are those of one container, and whether each is a directory.
pub fn mount_points(more: &[(PathBuf, bool)]) -> Result<Vec<u8>> {
    const DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];
    // No entry for /etc: in a layer that holds a whole tree, it stays as in the
    // image.
    const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
    let directories = DIRECTORIES.map(|name| (name, EntryType::Directory, 0o755));
    let files = FILES.map(|name| (name, EntryType::Regular, 0o644));
    let mut archive = Builder::new(Vec::new());
    let usual = directories.into_iter().chain(files);
    let usual = usual.map(|(name, kind, mode)| (Path::new(name), kind, mode));
    let more = more.iter().filter_map(|(path, is_directory)| {
        let path = path.strip_prefix("/").unwrap_or(path);
        let named = path.file_name().is_some();
        named.then_some(match is_directory {
            true => (path, EntryType::Directory, 0o755),
            false => (path, EntryType::Regular, 0o644),
        })
    });
    for (name, kind, mode) in usual.chain(more) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        archive
            .append_data(&mut header, name, std::io::empty())
            .context("write the archive of -init")?;
    }
    archive.into_inner().context("write the archive of -init")
}

//! `step-08 layer`: layers without containers.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use rustix::fs::FileType;

use super::StoreArgs;
use crate::archive::reader::Reader;
use crate::archive::write::deletion;
use crate::driver::{Access, StorageDriver};
use crate::isolation::{remove_container, sweep};
use crate::layers::finding::What;
use crate::layers::id::LayerId;
use crate::layers::image::import_directory;
use crate::mounts::private;
use crate::tree::{Tree, file_type};

/// What can be done with layers.
#[derive(Subcommand, Clone, Debug)]
pub enum LayerTool {
    /// Create a layer: empty, from a directory, or from an archive
    Create {
        /// Name of the layer
        id: LayerId,
        /// Parent layer
        #[arg(long, value_name = "ID")]
        parent: Option<LayerId>,
        /// Copy the contents of a directory into the layer
        #[arg(long, value_name = "DIR", conflicts_with = "tar")]
        from: Option<PathBuf>,
        /// Apply the changes in a tar archive (- is standard input), with
        /// whiteouts as in layers of OCI images
        #[arg(long, value_name = "FILE")]
        tar: Option<PathBuf>,
        /// Which store
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List the changes of a layer: + added or changed, - deleted, o opaque
    Diff {
        /// Layer
        id: LayerId,
        /// Write the changes to standard output as a tar archive
        #[arg(long)]
        tar: bool,
        /// Which store
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List the files of a layer and the layers below it, each with its layer
    Tree {
        /// Layer
        id: LayerId,
        /// Which store
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Remove layers, or containers with their layers
    Rm {
        /// Layers or containers to remove
        #[arg(required = true)]
        ids: Vec<LayerId>,
        /// Which store
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List the layers, their parents and sizes
    Ls {
        /// Which store
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Runs the command.
pub fn run(tool: LayerTool) -> Result<()> {
    match tool {
        LayerTool::Create {
            id,
            parent,
            from,
            tar,
            store,
        } => {
            let driver = store.open()?;
            sweep(&*driver)?;
            create(&*driver, &id, parent.as_ref(), from, tar)
        }
        LayerTool::Diff { id, tar, store } => diff(&*store.open()?, &id, tar),
        LayerTool::Tree { id, store } => tree(&*store.open()?, &id),
        LayerTool::Rm { ids, store } => {
            let driver = store.open()?;
            sweep(&*driver)?;
            ids.iter().try_for_each(|id| rm(&*driver, id))
        }
        LayerTool::Ls { store } => ls(&*store.open()?),
    }
}

fn create(
    driver: &dyn StorageDriver,
    id: &LayerId,
    parent: Option<&LayerId>,
    from: Option<PathBuf>,
    tar: Option<PathBuf>,
) -> Result<()> {
    match (from, tar) {
        (Some(directory), _) => import_directory(driver, id, parent, &directory),
        (None, Some(path)) => {
            let mut archive: Box<dyn Read> = match path.as_os_str() == "-" {
                true => Box::new(stdin()),
                false => Box::new(File::open(&path).with_context(|| format!("open({path:?})"))?),
            };
            driver.import(id, parent, &mut archive)
        }
        (None, None) => driver.create(id, parent),
    }
}

fn diff(driver: &dyn StorageDriver, id: &LayerId, tar: bool) -> Result<()> {
    if tar {
        if stdout().is_terminal() {
            bail!("standard output is a terminal: send the archive to a file or a program");
        }
        return driver.diff(id, &mut stdout().lock());
    }
    let mut archive = Vec::new();
    driver.diff(id, &mut archive)?;
    let mut out = stdout().lock();
    let mut entries = Reader::new(&archive[..]);
    while let Some(entry) = entries.next().context("read the diff")? {
        let path = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        let (mark, path) = match deletion(&path) {
            Some(path) if path.ends_with("*") => ('o', path),
            Some(path) => ('-', path),
            None => ('+', path),
        };
        let path = path.strip_prefix(".").unwrap_or(&path);
        writeln!(out, "{mark} /{}", shown(path)).context("write")?;
    }
    Ok(())
}

fn tree(driver: &dyn StorageDriver, id: &LayerId) -> Result<()> {
    driver.parents(id)?;
    // The view is mounted read-only, where nobody else sees it.
    private::enter()?;
    let mut view = driver.view(id, Access::ReadOnly)?;
    let tree = Tree::at(view.detached()?)?;
    let mut out = stdout().lock();
    tree.walk(Path::new(""), &mut |path, stat| {
        let layers: Vec<String> = driver
            .lookup(id, path)?
            .into_iter()
            .filter(|finding| {
                matches!(
                    finding.what,
                    What::File { .. } | What::Directory | What::Opaque { found: true, .. }
                )
            })
            .map(|finding| finding.layer.to_string())
            .collect();
        let slash = match file_type(stat) {
            FileType::Directory => "/",
            _ => "",
        };
        writeln!(out, "/{}{slash}\t{}", shown(path), layers.join(" ")).context("write")?;
        Ok(true)
    })
}

fn rm(driver: &dyn StorageDriver, id: &LayerId) -> Result<()> {
    let is_container = driver.parents(id)?.first() == Some(&id.init()?);
    if !is_container {
        return driver.remove(id);
    }
    // Held, so that nobody starts the container meanwhile. Fails if it runs.
    let _note = driver.store().note(id, "")?;
    remove_container(driver, id)?;
    driver.store().forget(id)
}

fn ls(driver: &dyn StorageDriver) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{:<24} {:<24} {:>12}", "LAYER", "ON", "BYTES").context("write")?;
    for id in driver.layers()? {
        let parents = driver.parents(&id)?;
        let on = parents.first().map_or("-", LayerId::as_str);
        writeln!(out, "{id:<24} {on:<24} {:>12}", driver.usage(&id)?).context("write")?;
    }
    Ok(())
}

/// A path for one line of output: control characters become `?`.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?")
}

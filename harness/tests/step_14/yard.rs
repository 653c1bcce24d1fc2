//! What the checks of this step begin with.

use std::fs;
use std::path::{Path, PathBuf};

use check::prelude::*;

/// An engine with an image `box`, and a context.
pub(crate) struct Yard<'a> {
    pub(crate) c: &'a Check,
    pub(crate) root: PathBuf,
    pub(crate) context: PathBuf,
}

impl<'a> Yard<'a> {
    /// `prepare` changes the files of the image.
    pub(crate) fn new(c: &'a Check, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let (root, context) = (c.dir().join("root"), c.dir().join("context"));
        for directory in [&root, &context] {
            fs::create_dir(directory).context("mkdir")?;
        }
        let yard = Yard { c, root, context };
        let image = c.rootfs()?;
        prepare(&image)?;
        yard.call(&["import", &image.display().to_string(), "box"])
            .run()?
            .success()?;
        Ok(yard)
    }

    /// A command of the engine.
    pub(crate) fn call(&self, words: &[&str]) -> Step {
        self.c
            .step()
            .env("DRYDOCK_STATE", self.c.dir().join("net"))
            .args(["--root".as_ref(), self.root.as_os_str()])
            .args(words)
    }

    /// Writes a file of the context, with the directories above it.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.context.join(path);
        fs::create_dir_all(path.parent().context("no parent")?).context("mkdir")?;
        fs::write(&path, content).context("write")?;
        Ok(path)
    }
}

//! What the checks of step 09 have in common: a state directory of the check's
//! own, and an image to run.

use std::ffi::OsStr;
use std::path::PathBuf;

use check::prelude::*;

pub(crate) use crate::screen::{Screen, ended};

/// A state directory and an image.
pub(crate) struct Engine<'a> {
    check: &'a Check,
    pub root: PathBuf,
    pub image: PathBuf,
    image_name: String,
}

impl<'a> Engine<'a> {
    /// An empty state directory, and a directory to be the image.
    pub(crate) fn new(check: &'a Check) -> Result<Self> {
        let image = check.rootfs()?;
        let root = check.dir().join("root");
        std::fs::create_dir(&root).context("mkdir")?;
        Ok(Engine {
            check,
            root,
            image_name: image.to_string_lossy().into_owned(),
            image,
        })
    }

    /// The image, as a word of the command line.
    pub(crate) fn image(&self) -> &str {
        &self.image_name
    }

    /// A command of the engine, on this state directory.
    pub(crate) fn tool<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Step {
        self.check
            .step()
            .env("DRYDOCK_STATE", self.check.dir().join("net"))
            .args(["--root".as_ref(), self.root.as_os_str()])
            .args(args)
    }

    /// `run --rm -i` without a network; options, image and command follow.
    pub(crate) fn run(&self, options: &[&str]) -> Step {
        self.tool(["run", "--rm", "-i", "--network", "none"])
            .args(options)
    }

    /// The same on the bridge.
    pub(crate) fn bridged(&self, options: &[&str]) -> Step {
        self.tool(["run", "--rm", "-i"]).args(options)
    }

    /// The bytes that the state directory takes on the disk.
    pub(crate) fn space(&self) -> Result<u64> {
        let du = std::process::Command::new("du")
            .args(["-skx"])
            .arg(&self.root)
            .output()
            .context("run du")?;
        let text = String::from_utf8_lossy(&du.stdout).into_owned();
        let kib: u64 = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("du said {text:?}"))?;
        Ok(kib << 10)
    }
}

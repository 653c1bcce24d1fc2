//! The zip that Gradescope makes an autograder from ("Autograder
//! Specifications" there). Gradescope unpacks it to `/autograder/source`.
//! `setup.sh` runs once, when the image is built, and `run_autograder` for each
//! submission, in a container without KVM.
//!
//! ```text
//! setup.sh run_autograder environment
//! drydock/   a handout of the step, without its solution
//! kernel/    the kernel that the virtual machine boots
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::exercise::skeleton::{read, write};
use crate::handout;
use check::registry::Step;
use check::workspace;
use vm::Kernel;
use vm::modules::Modules;

/// The parts of a handout that a grader does not need.
const LEFT_OUT: [&str; 3] = ["book", ".github", "README.md"];

/// The two scripts that Gradescope runs, and the settings that both read.
const SCRIPTS: [&str; 3] = ["setup.sh", "run_autograder", "environment"];

/// Writes the zip for step `number` to `file`. `limit` is the time limit of one
/// submission. Requires x86_64, the architecture of Gradescope's machines.
pub fn pack(number: &str, limit: Duration, file: &Path) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("Gradescope's machines are of x86_64, and the kernel here is not: pack it there");
    }
    let dir = tempfile::tempdir().context("make a temporary directory")?;
    lay_out(number, limit, dir.path())?;
    carry_kernel(&dir.path().join("kernel"))?;
    let new = File::create(file).with_context(|| format!("create {}", file.display()))?;
    archive(dir.path(), new).with_context(|| format!("write {}", file.display()))
}

/// Writes the content of the zip except the kernel into `dir`.
pub fn lay_out(number: &str, limit: Duration, dir: &Path) -> Result<()> {
    let repository = dir.join("drydock");
    handout::lay_out(&repository, number, number)?;
    for name in LEFT_OUT {
        let path = repository.join(name);
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    let step = Step::read(&workspace::checks(), number)?;
    let requires = |what: &str| {
        let mut all = step.checks.iter().flat_map(|check| &check.requires);
        all.any(|requirement| requirement == what)
    };
    let other_rootfs = match requires("rootfs:debian") {
        true => {
            "drydock/vm/rootfs.sh debian || echo 'setup: the checks that want it will not count'"
        }
        false => "# This step needs no other root file system.",
    };
    for name in SCRIPTS {
        let from = workspace::root().join("harness/autograder").join(name);
        let text = read(&from)?
            .replace("OTHER_ROOTFS", other_rootfs)
            .replace("STEP", number)
            .replace("LIMIT", &limit.as_secs().to_string())
            .replace("RUST}", &format!("{}}}", rust()?));
        write(&dir.join(name), &text)?;
        let mode = fs::metadata(&from).with_context(|| format!("stat {}", from.display()))?;
        fs::set_permissions(dir.join(name), mode.permissions())
            .with_context(|| format!("chmod {name}"))?;
    }
    Ok(())
}

/// Copies the parts of the distribution's kernel that the virtual machine uses
/// to `to`, which can then be `kernels/distribution` in another machine's
/// cache.
fn carry_kernel(to: &Path) -> Result<()> {
    let image = Kernel::Distribution.image()?;
    let from = workspace::cache().join("kernels/distribution");
    let mut files = vec![from.join("manifest.json"), image.file];
    if let Some(dir) = image.modules {
        let modules = Modules::read(&dir)?;
        let indexes = ["modules.dep", "modules.alias", "modules.builtin"];
        let indexes = indexes.iter().map(|name| dir.join(name));
        files.extend(indexes.filter(|path| path.exists()));
        files.extend(modules.needed().iter().map(|module| dir.join(module)));
    }
    for file in files {
        let below = file
            .strip_prefix(&from)
            .with_context(|| format!("{} is not in {}", file.display(), from.display()))?;
        let copy = to.join(below);
        if let Some(dir) = copy.parent() {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        fs::copy(&file, &copy).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

/// The version of the installed compiler: `1.95.0`.
fn rust() -> Result<String> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .context("run rustc --version")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(1);
    Ok(version
        .with_context(|| format!("rustc --version says {text:?}"))?
        .to_owned())
}

/// Writes all files below `dir` into an archive, with their modes.
fn archive(dir: &Path, to: File) -> Result<()> {
    let mut zip = ZipWriter::new(to);
    let mut dirs = vec![PathBuf::new()];
    while let Some(within) = dirs.pop() {
        let list = dir.join(&within);
        let mut entries = fs::read_dir(&list)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .with_context(|| format!("list {}", list.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = within.join(entry.file_name());
            let from = entry.path();
            let about = fs::metadata(&from).with_context(|| format!("stat {}", from.display()))?;
            if about.is_dir() {
                dirs.push(path);
                continue;
            }
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .unix_permissions(about.permissions().mode() & 0o777);
            zip.start_file_from_path(&path, options)
                .with_context(|| format!("begin {}", path.display()))?;
            let mut file = File::open(&from).with_context(|| format!("open {}", from.display()))?;
            io::copy(&mut file, &mut zip).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    zip.finish().context("end the archive")?;
    Ok(())
}

//! Kernels to boot, and their sources.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::{Apt, os_release};
use super::arch::ARCH;
use super::cached::publish;
use super::suites::{self, short};
use super::{busybox, modules};
use check::workspace;

/// The kernel to boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The distribution's package for virtual machines.
    #[default]
    Distribution,
    /// The same package in another version, such as `6.12`, from this suite of
    /// the distribution or another.
    Version(String),
    /// The kernel of this host.
    Host,
    /// A kernel image. Its modules are in `lib/modules/RELEASE` beside it or
    /// one directory up.
    File(PathBuf),
}

/// The files of a kernel.
#[derive(Clone, Debug)]
pub struct Image {
    /// The image for QEMU's `-kernel`.
    pub file: PathBuf,
    /// The directory of its modules; `None` without modules.
    pub modules: Option<PathBuf>,
    /// Its release, as uname(1) `-r` prints it.
    pub release: String,
    /// Its name for people, such as `Debian 6.1`.
    pub name: String,
}

/// The description of a kernel in the cache. Paths are relative to its
/// directory.
#[derive(Serialize, Deserialize)]
struct Manifest {
    file: PathBuf,
    modules: PathBuf,
    release: String,
    name: String,
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Kernel> {
        let is_version = text.split('.').all(|n| n.parse::<u16>().is_ok());
        Ok(match text {
            "distribution" => Kernel::Distribution,
            "host" => Kernel::Host,
            _ if is_version => Kernel::Version(text.to_owned()),
            _ if Path::new(text).is_file() => Kernel::File(PathBuf::from(text)),
            _ => bail!("neither `distribution`, `host`, a version such as 6.12, nor a file"),
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Distribution => f.write_str("distribution"),
            Kernel::Version(version) => f.write_str(version),
            Kernel::Host => f.write_str("host"),
            Kernel::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Kernel {
    /// Returns the kernel's files. Fetches them if they are not in the cache.
    pub fn image(&self) -> Result<Image> {
        match self {
            Kernel::Distribution => packaged("distribution", |dir| {
                Apt::with_lists(|apt| unpack(apt, &suites::package(), dir))
            }),
            Kernel::Version(version) => packaged(version, |dir| match suites::are_named() {
                true => unpack(&suites::find(version)?, &suites::package(), dir),
                false => Apt::with_lists(|apt| {
                    unpack(apt, &format!("linux-image-{version}-{}", ARCH.flavour), dir)
                }),
            }),
            Kernel::Host => host(),
            Kernel::File(path) => from_file(path),
        }
    }
}

/// The kernel in a directory of the cache, which `fill` fills if it is missing.
fn packaged(key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Image> {
    let dir = workspace::cache().join("kernels").join(key);
    publish(&dir, |dir| {
        fill(&dir.join("files"))
            .and_then(|()| describe(dir))
            .with_context(|| format!("fetch the kernel `{key}`"))
    })?;
    let path = dir.join("manifest.json");
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    Ok(Image {
        file: dir.join(manifest.file),
        modules: Some(dir.join(manifest.modules)),
        release: manifest.release,
        name: manifest.name,
    })
}

/// Unpacks the newest kernel on which `package` depends.
fn unpack(apt: &Apt, package: &str, files: &Path) -> Result<()> {
    if files.exists() {
        fs::remove_dir_all(files).context("remove what was left")?;
    }
    fs::create_dir(files).with_context(|| format!("mkdir {}", files.display()))?;
    // An image package contains the modules, or depends on them, or is empty
    // and depends on both image and modules.
    for image in kernel_packages(&apt.depends(package)?) {
        apt.unpack(&image, files)?;
        for part in kernel_packages(&apt.depends(&image).unwrap_or_default()) {
            apt.unpack(&part, files)?;
        }
    }
    Ok(())
}

/// Runs depmod on an unpacked kernel and writes its manifest.
fn describe(dir: &Path) -> Result<()> {
    let files = dir.join("files");
    // Newer packages install into /usr/lib; an installed system has a link to
    // it.
    if !files.join("lib").exists() {
        symlink("usr/lib", files.join("lib")).context("symlink lib")?;
    }
    let release = only_entry(&files.join("lib/modules"))?;
    modules::depmod(&busybox::find()?, &files, &release)?;
    // The image is in /boot, or beside the modules.
    let places = [
        format!("files/boot/vmlinuz-{release}"),
        format!("files/lib/modules/{release}/vmlinuz"),
    ];
    let Some(file) = places.iter().find(|place| dir.join(place).is_file()) else {
        bail!("the package has no {}", places[0]);
    };
    let manifest = Manifest {
        file: PathBuf::from(file),
        modules: PathBuf::from(format!("files/lib/modules/{release}")),
        name: format!("{} {}", distribution(), short(&release)),
        release,
    };
    let json = serde_json::to_vec_pretty(&manifest).context("write the manifest as JSON")?;
    fs::write(dir.join("manifest.json"), json).context("write manifest.json")
}

fn kernel_packages(names: &[String]) -> Vec<String> {
    let is_kernel = |name: &&String| {
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    names.iter().filter(is_kernel).cloned().collect()
}

fn only_entry(dir: &Path) -> Result<String> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    match (entries.next(), entries.next()) {
        (Some(Ok(entry)), None) => Ok(entry.file_name().to_string_lossy().into_owned()),
        _ => bail!("{} should have one entry", dir.display()),
    }
}

fn host() -> Result<Image> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let modules = PathBuf::from("/lib/modules").join(&release);
    let file = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    if let Err(error) = fs::File::open(&file) {
        bail!(
            "the host's kernel, {}, cannot be read ({error}): leave `--kernel host` out, or name a copy of it",
            file.display()
        );
    }
    Ok(Image {
        file,
        modules: modules.join("modules.dep").exists().then_some(modules),
        name: format!("{} {}", distribution(), short(&release)),
        release,
    })
}

fn from_file(file: &Path) -> Result<Image> {
    let file = fs::canonicalize(file).with_context(|| format!("open {}", file.display()))?;
    let release = release_of(&file)?;
    let modules = file
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("lib/modules").join(&release))
        .find(|dir| dir.join("modules.dep").exists());
    Ok(Image {
        name: format!("Linux {}", short(&release)),
        file,
        modules,
        release,
    })
}

/// The release of an x86 kernel image, from its header: the kernel's
/// `Documentation/arch/x86/boot.rst`, `kernel_version`. For any other file, its
/// name.
fn release_of(file: &Path) -> Result<String> {
    let mut head = Vec::new();
    fs::File::open(file)
        .and_then(|f| f.take(0x8000).read_to_end(&mut head))
        .with_context(|| format!("read {}", file.display()))?;
    let version = (head.get(0x202..0x206) == Some(b"HdrS"))
        .then(|| {
            let offset = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
            let text = head.get(usize::from(offset) + 0x200..)?;
            let word = text.split(|b| *b == b' ' || *b == 0).next()?;
            String::from_utf8(word.to_vec()).ok()
        })
        .flatten();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(version.unwrap_or_else(|| name.into_owned()))
}

/// The first word of the distribution's name.
fn distribution() -> String {
    os_release("NAME")
        .and_then(|name| name.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "Linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_as_people_name_them() {
        assert_eq!(
            "6.12".parse::<Kernel>().unwrap(),
            Kernel::Version("6.12".into())
        );
        assert_eq!("host".parse::<Kernel>().unwrap(), Kernel::Host);
        assert!("no-such-file".parse::<Kernel>().is_err());
        assert_eq!(short("6.1.0-56-cloud-amd64"), "6.1");
    }
}

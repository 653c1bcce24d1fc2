//! What the checks of images have in common: a state directory of the check's
//! own, tars, and OCI layouts made by hand, right and wrong.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use check::prelude::*;
use check::workspace;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A state directory.
pub(crate) struct State<'a> {
    check: &'a Check,
    pub root: PathBuf,
}

impl<'a> State<'a> {
    /// One that does not exist yet.
    pub(crate) fn new(check: &'a Check) -> Result<Self> {
        check::check::open_to_all(check.dir())?;
        Ok(State {
            check,
            root: check.dir().join(check.word("state")),
        })
    }

    /// A command of the engine on this state.
    pub(crate) fn drydock(&self, args: &[&str]) -> Step {
        let root = self.root.to_string_lossy().into_owned();
        self.check.step().args(["--root", &root]).args(args)
    }

    /// A container of `image` that runs `script`.
    pub(crate) fn run(&self, image: &str, script: &str) -> Result<Ran> {
        self.drydock(&["run", "--rm", "--network", "none", image])
            .args(["sh", "-c", script])
            .run()
    }

    /// The names in `drydock images`, and the first digits of their ids.
    pub(crate) fn images(&self) -> Result<Vec<(String, String)>> {
        let listed = self.drydock(&["images"]).run()?.success()?.stdout;
        let rows = listed.lines().skip(1).map(str::split_whitespace);
        Ok(rows
            .filter_map(|mut row| Some((row.next()?.to_owned(), row.next()?.to_owned())))
            .collect())
    }

    /// The layers in the store of a driver, also those that are half made, but
    /// without the `-init` that all containers of an image share.
    pub(crate) fn layers(&self, driver: &str) -> Vec<String> {
        let mut layers = self.all_layers(driver);
        layers.retain(|name| !name.ends_with("-init"));
        layers
    }

    fn all_layers(&self, driver: &str) -> Vec<String> {
        let place = match driver {
            "overlay2" => "overlay2",
            "aufs" => "aufs/diff",
            _ => "vfs/dir",
        };
        let entries = fs::read_dir(self.root.join(place));
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "l").collect()
    }

    /// Nothing is there but what was there before any image came.
    pub(crate) fn expect_empty(&self, driver: &str, after: &str) -> Result<()> {
        expect_eq(&format!("the images after {after}"), self.images()?, vec![])?;
        expect_eq(
            &format!("the layers of {driver} after {after}"),
            self.all_layers(driver),
            vec![],
        )
    }
}

/// The bytes that the files below a directory take on the disk. What goes
/// meanwhile takes nothing.
pub(crate) fn bytes_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(|| format!("read {directory:?}"))?,
    };
    for entry in entries {
        let path = entry.context("read a directory")?.path();
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata.with_context(|| format!("stat {path:?}"))?,
        };
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += bytes_of(&path)?;
        }
    }
    Ok(bytes)
}

/// Runs a program of the host, which must succeed.
pub(crate) fn tool(name: &str, args: &[&str]) -> Result<String> {
    let done = Command::new(name)
        .args(args)
        .output()
        .with_context(|| format!("run {name}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "{name} {args:?}: {said}");
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// A directory as a tar.
pub(crate) fn tar_of(directory: &Path) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder
        .append_dir_all(".", directory)
        .context("make a tar")?;
    builder.into_inner().context("make a tar")
}

/// The smallest root file system in which a shell runs, as a tar.
pub(crate) fn small_root() -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let busybox = workspace::rootfs("busybox").join("bin/busybox");
    builder
        .append_path_with_name(busybox, "bin/busybox")
        .context("make a tar")?;
    for name in [
        "sh", "cat", "ls", "id", "env", "pwd", "true", "echo", "rm", "stat",
    ] {
        let mut header = header(EntryType::Symlink, 0);
        builder
            .append_link(&mut header, format!("bin/{name}"), "busybox")
            .context("make a tar")?;
    }
    builder.into_inner().context("make a tar")
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    header
}

/// An entry of a tar: kind, name, target of a link, content.
pub(crate) type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// A tar, written past the library, which would not write such names.
pub(crate) fn tar(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, target, content) in entries {
        let mut header = header(*kind, content.len() as u64);
        if *kind == EntryType::Char {
            header.set_device_major(0)?;
            header.set_device_minor(0)?;
        }
        let bytes = name.as_bytes();
        let length = bytes.len().min(100);
        header.as_mut_bytes()[..length].copy_from_slice(&bytes[..length]);
        header.set_link_name_literal(target)?;
        header.set_cksum();
        builder.append(&header, *content)?;
    }
    Ok(builder.into_inner()?)
}

/// A file of a tar.
pub(crate) fn file<'a>(name: &'a str, content: &'a str) -> Entry<'a> {
    (EntryType::Regular, name, "", content.as_bytes())
}

/// `bytes`, packed by gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes)?;
    Ok(to.finish()?)
}

/// `bytes`, packed by zstd.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// `bytes`, packed by a program of the host: bzip2 or xz.
pub(crate) fn packed_by(c: &Check, program: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let path = c.dir().join(c.word("packed"));
    fs::write(&path, bytes).context("write what is to be packed")?;
    let done = Command::new(program)
        .arg("--stdout")
        .arg(&path)
        .output()
        .with_context(|| format!("run {program}"))?;
    anyhow::ensure!(done.status.success(), "{program}: {}", done.status);
    Ok(done.stdout)
}

/// The digest of `bytes`, as images spell it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An OCI image layout in a directory.
pub(crate) struct Layout {
    pub directory: PathBuf,
}

impl Layout {
    /// One with a single image: layers as tars, and the part `config` of its
    /// configuration.
    pub(crate) fn new(
        directory: PathBuf,
        tag: &str,
        layers: &[Vec<u8>],
        config: Value,
    ) -> Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256")).context("make a layout")?;
        let layout = Layout { directory };
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let mut descriptors = Vec::new();
        for layer in layers {
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            descriptors.push(layout.blob(kind, &gzip(layer)?)?);
        }
        let config = json!({
            "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = layout.blob(kind, config.to_string().as_bytes())?;
        layout.manifest(tag, config, descriptors)?;
        Ok(layout)
    }

    /// Writes the manifest and the index, which then has this image only.
    pub(crate) fn manifest(&self, tag: &str, config: Value, layers: Vec<Value>) -> Result<()> {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut descriptor = self.blob(kind, manifest.to_string().as_bytes())?;
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        self.write("index.json", index.to_string().as_bytes())
    }

    /// The manifest of the only image.
    pub(crate) fn read_manifest(&self) -> Result<Value> {
        let index = fs::read(self.directory.join("index.json")).context("read the index")?;
        let index: Value = serde_json::from_slice(&index).context("parse the index")?;
        let path = self.path(&index["manifests"][0]);
        serde_json::from_slice(&fs::read(path).context("read the manifest")?)
            .context("parse the manifest")
    }

    /// Adds a blob, and describes it.
    pub(crate) fn blob(&self, kind: &str, bytes: &[u8]) -> Result<Value> {
        let descriptor = json!({
            "mediaType": kind, "digest": digest(bytes), "size": bytes.len(),
        });
        fs::write(self.path(&descriptor), bytes).context("write a blob")?;
        Ok(descriptor)
    }

    /// The file of a blob.
    pub(crate) fn path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        self.directory.join("blobs").join(digest.replace(':', "/"))
    }

    /// The directory, as a string.
    pub(crate) fn name(&self) -> String {
        self.directory.to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.directory.join(name), bytes).with_context(|| format!("write {name}"))
    }
}

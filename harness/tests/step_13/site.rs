//! A place with a registry, images in it, and an engine that knows nothing of
//! them yet.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use check::prelude::*;
use check::workspace;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::server::{CONFIG, LAYER, MANIFEST, Server, digest};

/// An engine with a state directory and a home of its own, and a registry.
pub(crate) struct Site<'a> {
    pub(crate) c: &'a Check,
    pub(crate) root: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) server: Server,
}

/// An image in the registry.
pub(crate) struct Built {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    /// What its last layer has in `/etc/word`.
    pub(crate) word: String,
}

impl Built {
    /// The digest of its manifest.
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Its ID.
    pub(crate) fn id(&self) -> String {
        digest(&self.config)
    }
}

impl<'a> Site<'a> {
    pub(crate) fn new(c: &'a Check) -> Result<Self> {
        let (root, home) = (c.dir().join("root"), c.dir().join("home"));
        for directory in [&root, &home.join(".config/drydock"), &home.join(".docker")] {
            fs::create_dir_all(directory).context("mkdir")?;
        }
        Ok(Site {
            c,
            root,
            home,
            server: Server::start()?,
        })
    }

    /// A command of the engine.
    pub(crate) fn call(&self, words: &[&str]) -> Step {
        self.at(&self.root, words)
    }

    /// A command of an engine with another state directory.
    pub(crate) fn at(&self, root: &std::path::Path, words: &[&str]) -> Step {
        self.c
            .step()
            .env("DRYDOCK_STATE", self.c.dir().join("net"))
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join(".config"))
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("DOCKER_CONFIG", self.home.join(".docker"))
            .env("REGISTRY_AUTH_FILE", "")
            .env("DRYDOCK_REGISTRY", "")
            .args(["--root".as_ref(), root.as_os_str()])
            .args(words)
    }

    /// A command that succeeds, and what it prints.
    pub(crate) fn said(&self, words: &[&str]) -> Result<String> {
        let ran = self.call(words).run()?.success()?;
        Ok(ran.stdout.trim_end().to_owned())
    }

    /// A command that is left to itself.
    pub(crate) fn begun(&self, words: &[&str]) -> Result<Child> {
        let mut command = self.call(words).command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().context("start the program")
    }

    /// Writes `registries.toml`.
    pub(crate) fn configure(&self, text: &str) -> Result<()> {
        let path = self.home.join(".config/drydock/registries.toml");
        fs::write(path, text).context("write registries.toml")
    }

    /// Puts an image of two layers into the registry. Nobody has seen it before.
    pub(crate) fn image(&self, repository: &str, tag: &str) -> Result<Built> {
        let word = self.c.word("word");
        let top = archive(&[("etc/word", word.as_bytes())])?;
        let config = json!({"Cmd": ["cat", "/etc/word"], "Env": ["PATH=/bin"]});
        self.image_of(repository, tag, &[small_root()?, top], config, &word)
    }

    /// Puts an image of these layers, as tars, into the registry.
    pub(crate) fn image_of(
        &self,
        repository: &str,
        tag: &str,
        tars: &[Vec<u8>],
        config: Value,
        word: &str,
    ) -> Result<Built> {
        let built = build(tars, config, word)?;
        self.put(repository, tag, &built);
        Ok(built)
    }

    /// Puts an image into the registry.
    pub(crate) fn put(&self, repository: &str, tag: &str, built: &Built) {
        self.server.blob(repository, CONFIG, &built.config);
        for layer in &built.layers {
            self.server.blob(repository, LAYER, layer);
        }
        self.server
            .manifest(repository, tag, MANIFEST, &built.manifest);
    }

    /// Runs an image's own command.
    pub(crate) fn run_image(&self, options: &[&str], image: &str) -> Result<Ran> {
        let base = ["run", "--rm", "--network", "none"];
        self.call(&[&base[..], options, &[image]].concat()).run()
    }

    /// Expects that an image prints its word.
    pub(crate) fn expect_runs(&self, image: &str, word: &str) -> Result<()> {
        let ran = self.run_image(&["--pull", "never"], image)?.success()?;
        expect_eq("what the image prints", ran.stdout.trim(), word)
    }

    /// The names of what lies in a directory of the state.
    pub(crate) fn left_in(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory));
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// Expects that no image is here, and no layer of one.
    pub(crate) fn expect_no_image(&self, after: &str) -> Result<()> {
        let images = self.said(&["images", "-q"])?;
        expect(
            images.is_empty(),
            format!("no image after {after}"),
            &images,
        )?;
        for directory in ["images/record", "images/name"] {
            let left = self.left_in(directory);
            expect(
                left.is_empty(),
                format!("nothing in {directory} after {after}"),
                format!("{left:?}"),
            )?;
        }
        let layers: Vec<String> = ["overlay2", "vfs"]
            .iter()
            .flat_map(|driver| self.left_in(driver))
            .filter(|name| name.starts_with("sha256-"))
            .collect();
        expect(
            layers.is_empty(),
            format!("no layer after {after}"),
            format!("{layers:?}"),
        )
    }
}

/// The parts of an image of these layers.
pub(crate) fn build(tars: &[Vec<u8>], config: Value, word: &str) -> Result<Built> {
    let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
    let layers = tars
        .iter()
        .map(|tar| gzip(tar))
        .collect::<Result<Vec<_>>>()?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2020-01-02T03:04:05Z",
        "config": config,
        "history": (0..tars.len()).map(|n| json!({
            "created": "2020-01-02T03:04:05Z", "created_by": format!("layer {n}"),
        })).collect::<Vec<_>>(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(CONFIG, &config),
        "layers": layers.iter().map(|layer| described(LAYER, layer)).collect::<Vec<_>>(),
    });
    Ok(Built {
        // Written as no library would write it: who writes it again has another
        // digest.
        manifest: format!(" {manifest:#}\n").into_bytes(),
        config,
        layers,
        word: word.to_owned(),
    })
}

/// This machine's processor, in Go's terms.
pub(crate) fn architecture() -> &'static str {
    match cfg!(target_arch = "x86_64") {
        true => "amd64",
        false => "arm64",
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    header
}

/// Files as a tar.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = header(EntryType::Regular, content.len() as u64);
        builder
            .append_data(&mut header, name, *content)
            .context("make a tar")?;
    }
    builder.into_inner().context("make a tar")
}

/// The smallest root file system in which a shell runs, as a tar.
pub(crate) fn small_root() -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let busybox = workspace::rootfs("busybox").join("bin/busybox");
    builder
        .append_path_with_name(busybox, "bin/busybox")
        .context("make a tar")?;
    for name in ["sh", "cat", "ls", "env", "true", "echo", "rm", "sleep"] {
        let mut header = header(EntryType::Symlink, 0);
        builder
            .append_link(&mut header, format!("bin/{name}"), "busybox")
            .context("make a tar")?;
    }
    builder.into_inner().context("make a tar")
}

/// `bytes`, packed by gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes)?;
    Ok(to.finish()?)
}

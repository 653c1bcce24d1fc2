//! `RUN --mount`: what a container is to see.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine::spec::Spec;
use engine::volume::beside::{Secret, Viewed};
use engine::volume::options::from_root;

use crate::build::cache::Inputs;
use crate::build::mounts::{Filling, Mounts, Secrets, Shared, Used};
use crate::build::options::SecretSource;
use crate::build::stage::Stage;
use crate::copy::{From, Job};
use crate::dockerfile::instruction::Run;
use crate::dockerfile::mount::{Kind, RunMount, Sharing};

/// The largest secret, in bytes: BuildKit's.
const LARGEST: u64 = 500 << 10;

impl Stage<'_> {
    /// Reads the mounts of a `RUN`, and adds them to the description of its
    /// container and to what its layer depends on.
    pub fn mounts(&self, run: &Run, spec: &mut Spec, inputs: &mut Inputs) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        spec.files.traceless = !run.mounts.is_empty();
        for text in &run.mounts {
            let text = self.variables().word(text)?;
            let mount = RunMount::parse(&text)?;
            self.mount(&mount, spec, inputs, &mut mounts)
                .with_context(|| format!("--mount={text}"))?;
        }
        Ok(mounts)
    }

    fn mount(
        &self,
        mount: &RunMount,
        spec: &mut Spec,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Result<()> {
        let workdir = spec.workdir.clone();
        let inside = |path: &str| from_root(&workdir.join(path).to_string_lossy());
        let target = mount.target.as_deref().map(inside);
        let needed = || {
            let target = target.clone().context("a target is needed")?;
            ensure!(target != Path::new("/"), "invalid mount target \"/\"");
            Ok(target)
        };
        match mount.kind {
            Kind::Ssh => bail!("type=ssh is not supported: use a secret"),
            Kind::Tmpfs => {
                let target = needed()?;
                let size = mount.size.map(|size| format!(":size={size}"));
                spec.files
                    .tmpfs
                    .push(format!("{}{}", target.display(), size.unwrap_or_default()));
            }
            Kind::Cache => {
                let target = needed()?;
                let from = self.filling(mount, &target, inputs)?;
                mounts.caches.push(Used {
                    id: match &mount.id {
                        Some(id) => id.clone(),
                        None => target.display().to_string(),
                    },
                    target,
                    read_only: mount.readonly,
                    sharing: match mount.sharing {
                        Sharing::Shared => Shared::All,
                        Sharing::Locked => Shared::One,
                        Sharing::Private => Shared::Own,
                    },
                    from,
                    looks: (mount.mode, mount.uid, mount.gid),
                });
            }
            Kind::Secret => self.secret(mount, target, &mut mounts.secrets)?,
            Kind::Bind => {
                let viewed = self.bind(mount, needed()?, inputs)?;
                spec.files.viewed.push(viewed);
            }
        }
        Ok(())
    }

    /// What a cache is filled with at first. Another image makes another cache, and
    /// is another thing that the layer depends on.
    fn filling(
        &self,
        mount: &RunMount,
        target: &Path,
        inputs: &mut Inputs,
    ) -> Result<Option<Filling>> {
        let source = from_root(mount.source.as_deref().unwrap_or("/"));
        let source = source.display().to_string();
        let Some(from) = &mount.from else {
            ensure!(
                source == "/",
                "source={source} without from: there is nothing in a cache at first"
            );
            return Ok(None);
        };
        let layer = match self.image_of_copy(from)?.top()? {
            Some(layer) => layer,
            None => self.build().empty_layer()?,
        };
        let place = format!("the cache on {}", target.display());
        let what = format!("{source} of {layer}");
        inputs.besides.insert(place, what);
        Ok(Some(Filling { layer, source }))
    }

    fn secret(
        &self,
        mount: &RunMount,
        target: Option<PathBuf>,
        secrets: &mut Secrets,
    ) -> Result<()> {
        let of_target = target.as_ref().and_then(|target| target.file_name());
        let id = mount
            .id
            .clone()
            .or_else(|| mount.source.clone())
            .or_else(|| Some(of_target?.to_string_lossy().into_owned()))
            .context("a secret needs an id")?;
        let Some(source) = self.build().options.secrets.get(&id) else {
            ensure!(!mount.required, "secret {id}: not found");
            return Ok(());
        };
        let content = read_secret(source).with_context(|| format!("secret {id}"))?;
        if let Some(name) = &mount.env {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(OsString::from_vec(content.clone()));
            secrets.variables.push(pair);
            if target.is_none() {
                return Ok(());
            }
        }
        let usual = || from_root(&format!("/run/secrets/{id}"));
        secrets.files.push(Secret {
            content,
            target: target.unwrap_or_else(usual),
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        });
        Ok(())
    }

    fn bind(&self, mount: &RunMount, target: PathBuf, inputs: &mut Inputs) -> Result<Viewed> {
        let source = mount.source.clone().unwrap_or_else(|| "/".into());
        let shown = target.display().to_string();
        if let Some(from) = &mount.from {
            let image = self.image_of_copy(from)?;
            let layer = match image.top()? {
                Some(layer) => layer,
                None => self.build().empty_layer()?,
            };
            let path = from_root(&source);
            // The layers below are in the name of the topmost one.
            let what = format!("{} of {}", path.display(), layer);
            inputs.besides.insert(format!("the mount on {shown}"), what);
            return Ok(Viewed {
                layer,
                path,
                target,
                read_only: mount.readonly,
            });
        }
        // Files of the context become a layer of their own, without those that
        // `.dockerignore` leaves out.
        let source = source.trim_start_matches('/').to_owned();
        let source = match source.is_empty() {
            true => ".".to_owned(),
            false => source,
        };
        let job = Job {
            latest: self.build().options.epoch,
            ..Job::as_it_is(From::Context(self.build().context.files.clone()), &source)
        };
        let (layer, files) = self.layer_of(job, &format!("{source} for {shown}"))?;
        // A directory's content is copied, a file by its name.
        let name = Path::new(&source).file_name();
        let is_file = name.is_some_and(|name| {
            let file = self.build().context.files.as_ref();
            file.is_some_and(|files| files.directory.join(&source).is_file()) && !name.is_empty()
        });
        let path = match (is_file, name) {
            (true, Some(name)) => Path::new("/").join(name),
            _ => PathBuf::from("/"),
        };
        inputs.files.extend(
            files
                .into_iter()
                .map(|(name, digest)| (format!("{shown}: {name}"), digest)),
        );
        Ok(Viewed {
            layer,
            path,
            target,
            read_only: mount.readonly,
        })
    }
}

fn read_secret(source: &SecretSource) -> Result<Vec<u8>> {
    let content = match source {
        SecretSource::Variable(name) => {
            let value = std::env::var_os(name);
            value
                .with_context(|| format!("the variable {name} is not set"))?
                .into_vec()
        }
        SecretSource::File(path) => {
            let file = File::open(path).with_context(|| format!("open {path:?}"))?;
            let mut content = Vec::new();
            file.take(LARGEST + 1)
                .read_to_end(&mut content)
                .with_context(|| format!("read {path:?}"))?;
            content
        }
    };
    ensure!(
        content.len() as u64 <= LARGEST,
        "it is larger than {} KiB",
        LARGEST >> 10
    );
    Ok(content)
}

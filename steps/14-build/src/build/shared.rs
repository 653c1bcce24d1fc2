//! What all stages of a build share: the images that it begins with, and those of
//! its stages.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, bail};
use engine::cli::options::RunArgs;
use engine::cli::places::Places;
use engine::image::digest::Digest;
use registry::cli::Here;
use registry::cli::run::Wanted;
use union::{Kind, detect};

use crate::build::ask::Workers;
use crate::build::cache::Cache;
use crate::build::image::{Image, Made};
use crate::build::options::Options;
use crate::build::variables::Variables;
use crate::build::why::Why;
use crate::context::Context;
use crate::copy::remembered::Remembered;
use crate::dockerfile::instruction::Dockerfile;
use crate::progress::Reporter;

/// A build, as all its stages see it.
pub struct Build<'a> {
    /// The directories of the engine.
    pub places: &'a Places,
    /// The images.
    pub here: &'a Here,
    /// The storage driver.
    pub kind: Kind,
    /// What is asked for.
    pub options: &'a Options,
    /// The options of every container.
    pub defaults: RunArgs,
    /// The context, and the Dockerfile's text.
    pub context: &'a Context,
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// The arguments before the first `FROM`.
    pub arguments: Variables,
    /// Who is told.
    pub reporter: Reporter,
    /// Who does the work.
    pub workers: &'a Workers,
    /// The layers of earlier builds.
    pub cache: Cache,
    /// What the instructions were made of the last time.
    pub why: &'a Why,
    /// The digests of the context's files, if it is a directory of somebody's.
    pub remembered: Option<Remembered>,
    /// The stages that have been built, or not.
    done: Mutex<Vec<Option<Result<Image, ()>>>>,
    turned: Condvar,
    /// Images by the name that the Dockerfile gives them.
    bases: Mutex<BTreeMap<String, Base>>,
    /// The layers of the images of `--cache-from`, by key.
    imported: OnceLock<BTreeMap<String, (Vec<Digest>, Made)>>,
}

/// An image of `FROM` or `--from`.
#[derive(Clone, Debug)]
pub struct Base {
    /// The image.
    pub image: Image,
    /// Its ID; `None` for `scratch`.
    pub id: Option<Digest>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Who has panicked has changed nothing half.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Build<'a> {
    /// Prepares a build.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        places: &'a Places,
        here: &'a Here,
        kind: Kind,
        options: &'a Options,
        defaults: RunArgs,
        context: &'a Context,
        dockerfile: &'a Dockerfile,
        (reporter, workers, why): (Reporter, &'a Workers, &'a Why),
    ) -> Result<Self> {
        let arguments = Variables::global(dockerfile, options)?;
        // The files of an archive are new each time.
        let files = context.files.as_ref().filter(|files| !files.unpacked);
        let remembered = files.map(|files| Remembered::of(&places.root, &files.directory));
        Ok(Build {
            places,
            here,
            kind,
            options,
            defaults,
            context,
            dockerfile,
            arguments,
            reporter,
            workers,
            cache: Cache::new(&here.images),
            why,
            remembered,
            done: Mutex::new(vec![None; dockerfile.stages.len()]),
            turned: Condvar::new(),
            bases: Mutex::default(),
            imported: OnceLock::new(),
        })
    }

    /// The number of the stage that `reference` means, among those before
    /// `before`.
    pub fn stage(&self, reference: &str, before: usize) -> Option<usize> {
        let stages = &self.dockerfile.stages[..before];
        let small = reference.to_lowercase();
        stages
            .iter()
            .rposition(|stage| stage.name.as_deref() == Some(&*small))
    }

    /// The same, for `--from`, which may also give a number.
    pub fn stage_of_copy(&self, reference: &str, before: usize) -> Option<usize> {
        self.stage(reference, before).or_else(|| {
            let number = reference.parse().ok()?;
            (number < before).then_some(number)
        })
    }

    /// Says what has become of a stage.
    pub fn built(&self, stage: usize, image: Result<Image, ()>) {
        lock(&self.done)[stage] = Some(image);
        self.turned.notify_all();
    }

    /// The image of another stage, as soon as it is there.
    pub fn image_of(&self, stage: usize) -> Result<Image> {
        let mut done = lock(&self.done);
        loop {
            match &done[stage] {
                Some(Ok(image)) => return Ok(image.clone()),
                Some(Err(())) => bail!("a stage before has failed"),
                None => {
                    done = self
                        .turned
                        .wait(done)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The image that `reference` means, pulled if need be. It stays as long as
    /// the build lasts, whoever removes it.
    pub fn base(&self, reference: &str) -> Result<Base> {
        // One pull of an image, however many stages want it.
        let mut bases = lock(&self.bases);
        if let Some(base) = bases.get(reference) {
            return Ok(base.clone());
        }
        let vertex = self
            .reporter
            .begin(&format!("[internal] load metadata for {reference}"), "");
        let base = self.find_base(reference);
        vertex.end(base.as_ref().err());
        let base =
            base.with_context(|| format!("{reference}: failed to resolve source metadata"))?;
        bases.insert(reference.to_owned(), base.clone());
        Ok(base)
    }

    fn find_base(&self, reference: &str) -> Result<Base> {
        let wanted = Wanted {
            policy: self.options.pull,
            driver: Some(self.kind),
            platform: self.options.platform.clone(),
            insecure: &self.options.insecure,
            quiet: true,
            paths: false,
        };
        let id = self.here.or_pulled(reference, &wanted)?;
        let id = id.with_context(|| format!("No such image: {reference}"))?;
        let images = &self.here.images;
        let image = {
            let lock = images.store.lock()?;
            // Leases of builds that were killed go.
            self.cache.oldest_lease(&lock)?;
            let record = images.store.record(&id)?;
            let record = record.with_context(|| format!("No such image: {reference}"))?;
            let chains: Vec<Digest> = record.layers.iter().map(|one| one.chain.clone()).collect();
            self.workers.hold(self.cache.lease(&chains, &lock)?);
            Image::of(&record, &images.store.config(&id)?)?
        };
        images.ready(&id.to_string(), self.kind)?;
        Ok(Base {
            image,
            id: Some(id),
        })
    }

    /// The layer of this key in an image of `--cache-from`: the digests of it and
    /// of all below. An image that is not there is no error: the first build of a
    /// branch has none.
    pub fn imported(&self, key: &Digest) -> Result<Option<(Vec<Digest>, Made)>> {
        let imported = self.imported.get_or_init(|| {
            let mut all = BTreeMap::new();
            for reference in &self.options.cache_from {
                match self.base(reference) {
                    Ok(mut base) => all.extend(base.image.by_key()),
                    Err(error) => kit::say!("--cache-from {reference}: {error:#}"),
                }
            }
            all
        });
        Ok(imported.get(key.hex()).cloned())
    }

    /// The layer on which the first one of `FROM scratch` is made.
    pub fn empty_layer(&self) -> Result<union::LayerId> {
        let chain = Digest::of(b"");
        let id = chain.layer_id()?;
        let images = &self.here.images;
        let lock = images.store.lock()?;
        self.workers.hold(self.cache.lease(&[chain], &lock)?);
        let driver = detect::open(self.kind, images.root())?;
        if !driver.exists(&id)? {
            driver.create(&id, None)?;
        }
        Ok(id)
    }
}

//! The fold over the instructions of a stage.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use engine::image::config::Config;
use engine::image::digest::{Digest, chain};
use engine::spec::Spec;
use engine::volume::options::from_root;
use kit::SignalNumber;
use serde_json::{Value, json};
use union::LayerId;

use crate::build::cache::{Inputs, Record};
use crate::build::error::{at, canceled};
use crate::build::image::{Image, Made};
use crate::build::mounts::{Mounts, Secrets};
use crate::build::order::{Answer, Keep, Order, Work};
use crate::build::run::{argv, command, shown};
use crate::build::shared::{Base, Build};
use crate::build::variables::{Variables, platform};
use crate::copy::{From, Job, Source as CopySource, remote};
use crate::dockerfile;
use crate::dockerfile::instruction::{
    self as said, Copy, Health, Instruction, Run, Source, What, Words,
};
use crate::progress::Vertex;

/// The shell of an image that names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A stage that is being built.
pub struct Stage<'a> {
    build: &'a Build<'a>,
    /// Its number in the Dockerfile.
    number: usize,
    /// Its name in what is shown, with a blank; empty if it is the only one.
    label: String,
    image: Image,
    variables: Variables,
    /// Whether it has a `CMD` of its own.
    has_command: bool,
    /// Whether nothing is taken from the cache.
    no_cache: bool,
    /// The steps that have begun, of how many.
    step: (usize, usize),
    /// What is still to be done.
    rest: VecDeque<Instruction>,
}

impl<'a> Stage<'a> {
    /// A stage, with the image that it begins with. Waits for that if it is
    /// another stage's.
    pub fn new(build: &'a Build<'a>, number: usize, several: bool) -> Result<Self> {
        let stage = &build.dockerfile.stages[number];
        let name = match &stage.name {
            Some(name) => name.clone(),
            None => format!("stage-{number}"),
        };
        let filter = &build.options.no_cache_filter;
        let no_cache = build.options.no_cache || filter.contains(&name);
        let steps = stage.instructions.iter().filter(|one| is_step(one)).count();
        let mut this = Stage {
            build,
            number,
            label: match several {
                true => format!("{name} "),
                false => String::new(),
            },
            image: Image::scratch()?,
            variables: build.arguments.clone(),
            has_command: false,
            no_cache,
            step: (0, steps),
            rest: stage.instructions.iter().cloned().collect(),
        };
        at(&stage.lines, this.from(stage))?;
        Ok(this)
    }

    /// `FROM`.
    fn from(&mut self, stage: &said::Stage) -> Result<()> {
        let from = self.variables.word(&stage.from)?;
        ensure!(
            !from.is_empty(),
            "base name ({}) should not be blank",
            stage.from
        );
        let mut inherited = None;
        if let Some(other) = self.build.stage(&from, self.number) {
            self.image = self.build.image_of(other)?;
            inherited = Some(self.image.take_variables());
        } else if from != "scratch" {
            self.step.0 += 1;
            self.step.1 += 1;
            let Base { image, id } = self.build.base(&from)?;
            self.image = image;
            let text = match id {
                Some(id) => format!("FROM {from}@{id}"),
                None => format!("FROM {from}"),
            };
            let vertex = self.build.reporter.begin(&self.title(&text), &self.label);
            vertex.cached();
            self.triggers()?;
        }
        let values = match inherited {
            Some(values) => values,
            None => self.image.env()?,
        };
        self.variables = Variables::of_stage(self.build.dockerfile.escape, values);
        Ok(())
    }

    /// The instructions that an image has for those which are made of it.
    fn triggers(&mut self) -> Result<()> {
        let triggers = self.image.texts("OnBuild")?;
        if triggers.is_empty() {
            return Ok(());
        }
        self.image.container()?.remove("OnBuild");
        for text in triggers.iter().rev() {
            let instruction = dockerfile::one(text, self.build.dockerfile.escape)
                .with_context(|| format!("ONBUILD {text}"))?;
            if is_step(&instruction) {
                self.step.1 += 1;
            }
            self.rest.push_front(instruction);
        }
        Ok(())
    }

    fn title(&self, text: &str) -> String {
        let (step, steps) = self.step;
        format!("[{}{step}/{steps}] {text}", self.label)
    }

    /// Folds.
    // ANCHOR: fold
    pub fn fold(mut self) -> Result<Image> {
        // ANCHOR: exercise_fold
        while let Some(instruction) = self.rest.pop_front() {
            if self.build.workers.is_canceled() {
                return Err(canceled());
            }
            if is_step(&instruction) {
                self.step.0 += 1;
            }
            at(&instruction.lines, self.instruction(&instruction))?;
        }
        self.image.leave_variables(self.variables.values());
        Ok(self.image)
        // ANCHOR_END: exercise_fold
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<()> {
        match &instruction.what {
            What::Run(run) => self.run(instruction, run),
            What::Copy(copy) => self.copy(instruction, copy, false),
            What::Add(copy) => self.copy(instruction, copy, true),
            What::Workdir(path) => self.workdir(instruction, path),
            What::Env(pairs) => self.env(pairs),
            What::Arg(args) => self.arg(args),
            What::Label(pairs) => self.label(pairs),
            What::Cmd(words) => self.cmd(words),
            What::Entrypoint(words) => self.entrypoint(words),
            What::Expose(ports) => self.expose(ports),
            What::Volume(paths) => self.volume(paths),
            What::User(user) => self.user(user),
            What::Healthcheck(health) => self.healthcheck(health.as_ref()),
            What::Onbuild(text) => self.image.push("OnBuild", json!(text)),
            What::Shell(words) => self.shell(words),
            What::Stopsignal(signal) => self.stop_signal(signal),
            What::Maintainer(who) => self.maintainer(who),
        }
    }
    // ANCHOR_END: fold

    fn env(&mut self, pairs: &[(String, String)]) -> Result<()> {
        // All are replaced by what was before: `ENV A=1 B=$A` has another A.
        let pairs = self.replaced(pairs)?;
        for (name, value) in &pairs {
            self.image.set_env(name, value)?;
            self.variables.set(name, value.clone());
        }
        self.image.note(&format!("ENV {}", joined(&pairs)))
    }

    fn label(&mut self, pairs: &[(String, String)]) -> Result<()> {
        let pairs = self.replaced(pairs)?;
        for (name, value) in &pairs {
            self.image.add("Labels", name, json!(value))?;
        }
        self.image.note(&format!("LABEL {}", joined(&pairs)))
    }

    fn replaced(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
        let word = |text: &str| self.variables.word(text);
        pairs
            .iter()
            .map(|(name, value)| Ok((word(name)?, word(value)?)))
            .collect()
    }

    fn arg(&mut self, args: &[(String, Option<String>)]) -> Result<()> {
        let build = self.build;
        let mut shown = Vec::new();
        for (name, default) in args {
            let name = self.variables.word(name)?;
            let default = default.as_ref().map(|text| self.variables.word(text));
            let default = default.transpose()?;
            let given = build.options.build_args.get(&name).cloned();
            let about_platform = || {
                let all = platform(build.options).into_iter();
                all.clone()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value)
            };
            let value = given.or(default).or_else(|| {
                let before_from = build.arguments.get(&name);
                before_from.or_else(about_platform)
            });
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.variables.set_arg(&name, value);
        }
        self.image.note(&format!("ARG {}", shown.join(" ")))
    }

    fn shell_words(&mut self) -> Result<Vec<String>> {
        let shell = self.image.texts("Shell")?;
        Ok(match shell.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => shell,
        })
    }

    fn cmd(&mut self, words: &Words) -> Result<()> {
        let words = command(words, &self.shell_words()?);
        self.has_command = true;
        self.image.container()?.insert("Cmd".into(), json!(words));
        self.image.note(&format!("CMD {}", quoted(&words)))
    }

    fn entrypoint(&mut self, words: &Words) -> Result<()> {
        let words = command(words, &self.shell_words()?);
        let container = self.image.container()?;
        container.insert("Entrypoint".into(), json!(words));
        // The base image's command is for its own entrypoint.
        if !self.has_command {
            container.remove("Cmd");
        }
        self.image.note(&format!("ENTRYPOINT {}", quoted(&words)))
    }

    fn expose(&mut self, ports: &[String]) -> Result<()> {
        let mut shown = Vec::new();
        for text in ports {
            for word in self.variables.words(text)? {
                shown.extend(exposed(&word)?);
            }
        }
        shown.sort();
        shown.dedup();
        for port in &shown {
            self.image.add("ExposedPorts", port, json!({}))?;
        }
        let ports: Vec<String> = shown.iter().map(|port| format!("{port}:{{}}")).collect();
        self.image.note(&format!("EXPOSE map[{}]", ports.join(" ")))
    }

    fn volume(&mut self, paths: &[String]) -> Result<()> {
        let mut shown = Vec::new();
        for text in paths {
            let path = self.variables.word(text)?;
            ensure!(
                !path.trim().is_empty(),
                "VOLUME specified can not be an empty string"
            );
            self.image.add("Volumes", &path, json!({}))?;
            shown.push(path);
        }
        self.image.note(&format!("VOLUME [{}]", shown.join(" ")))
    }

    fn user(&mut self, user: &str) -> Result<()> {
        let user = self.variables.word(user)?;
        self.image.container()?.insert("User".into(), json!(user));
        self.image.note(&format!("USER {user}"))
    }

    fn shell(&mut self, words: &[String]) -> Result<()> {
        self.image.container()?.insert("Shell".into(), json!(words));
        self.image.note(&format!("SHELL [{}]", words.join(" ")))
    }

    fn stop_signal(&mut self, signal: &str) -> Result<()> {
        let signal = self.variables.word(signal)?;
        signal
            .parse::<SignalNumber>()
            .with_context(|| format!("STOPSIGNAL {signal}"))?;
        let container = self.image.container()?;
        container.insert("StopSignal".into(), json!(signal));
        self.image.note(&format!("STOPSIGNAL {signal}"))
    }

    fn maintainer(&mut self, who: &str) -> Result<()> {
        let who = self.variables.word(who)?;
        self.image.set_author(&who);
        self.image.note(&format!("MAINTAINER {who}"))
    }

    fn healthcheck(&mut self, health: Option<&Health>) -> Result<()> {
        let (value, shown) = health_of(health);
        self.image.container()?.insert("Healthcheck".into(), value);
        self.image.note(&shown)
    }

    fn workdir(&mut self, instruction: &Instruction, path: &str) -> Result<()> {
        let path = self.variables.word(path)?;
        ensure!(!path.is_empty(), "WORKDIR requires exactly one argument");
        let before = self.image.default("WorkingDir")?;
        let before = before.as_str().unwrap_or("/");
        let path = Path::new("/").join(before).join(path);
        let path = from_root(&path.to_string_lossy());
        let text = path.display().to_string();
        self.image
            .container()?
            .insert("WorkingDir".into(), json!(text));
        let by = format!("WORKDIR {text}");
        if text == "/" {
            return self.image.note(&by);
        }
        let mut inputs = Inputs {
            below: self.image.chain().cloned(),
            text: text.clone(),
            ..Inputs::default()
        };
        inputs
            .besides
            .insert("instruction".into(), "WORKDIR".into());
        let config = self.image.config()?;
        inputs
            .besides
            .insert("the user".into(), config.user.clone());
        let made = self.step(instruction, &inputs, &mut || {
            let spec = self.build.spec(&config, self.below()?, &text)?;
            Ok(Wanted::plain(spec, Work::Directory))
        })?;
        self.image.add_layer(&made, &by)
    }

    fn run(&mut self, instruction: &Instruction, run: &Run) -> Result<()> {
        let shell = self.shell_words()?;
        let argv = argv(run, &shell);
        let layer = self.below()?;
        let (mut spec, mut inputs) =
            self.build
                .run_spec(&self.image, layer, run, &argv, &self.variables)?;
        let mut mounts = self.mounts(run, &mut spec, &mut inputs)?;
        if let (Some(name), Words::Shell(text)) = (&run.script, &run.command) {
            inputs.besides.insert("the script".into(), text.clone());
            mounts.script(name, text, &mut spec);
        }
        let mut wanted = Some((spec, mounts));
        let made = self.step(instruction, &inputs, &mut || {
            let (spec, mounts) = wanted.take().context("asked twice")?;
            Ok(Wanted {
                spec,
                work: Work::Run,
                mounts,
                command: Some(argv.join(" ")),
            })
        })?;
        let by = shown(&argv, &self.variables.declared());
        self.image.add_layer(&made, &by)
    }

    fn copy(&mut self, instruction: &Instruction, copy: &Copy, add: bool) -> Result<()> {
        let build = self.build;
        let mut job = self.job(copy, add)?;
        let config = self.image.config()?;
        let layer = self.below()?;
        let spec = build.spec(&config, layer, "/")?;
        let sources = match &job.from {
            From::Context(_) => job.sources(build.places, &spec, build.remembered.as_ref())?,
            From::Layer(_) => self.look(&spec, &job)?,
        };
        job.stamp = Some(sources.stamp.clone());
        let mut inputs = Inputs {
            below: self.image.chain().cloned(),
            text: serde_json::to_string(&(
                (&job.destination, &job.workdir.to_string_lossy(), add),
                (&job.chown, &job.chmod, job.link, job.parents),
                (&job.exclude, &job.unpack, &job.latest),
            ))
            .context("write JSON")?,
            files: sources.files,
            ..Inputs::default()
        };
        inputs.besides.insert("instruction".into(), "COPY".into());
        let by = self.shown_copy(copy, &job)?;
        let mut wanted = Some(Wanted::plain(spec, Work::Copy(job)));
        let made = self.step(instruction, &inputs, &mut || {
            wanted.take().context("asked twice")
        })?;
        self.image.add_layer(&made, &by)
    }

    /// What a `COPY` is to do.
    fn job(&mut self, copy: &Copy, add: bool) -> Result<Job> {
        let build = self.build;
        let word = |text: &str| self.variables.word(text);
        let from = match copy.from.as_deref() {
            None => From::Context(build.context.files.clone()),
            Some(from) => {
                let image = self.image_of_copy(from)?;
                From::Layer(match image.top()? {
                    Some(top) => top,
                    None => build.empty_layer()?,
                })
            }
        };
        let mut sources = Vec::new();
        for source in &copy.sources {
            match source {
                Source::Here(heredoc) => sources.push(CopySource::Text {
                    name: heredoc.name.clone(),
                    content: self.variables.heredoc(heredoc)?,
                }),
                Source::Path(path) => {
                    // One word, also with blanks in it, as of BuildKit.
                    let path = word(path)?;
                    sources.push(match add && remote::is_address(&path) {
                        true => {
                            let checksum = copy.checksum.as_deref().map(word).transpose()?;
                            let directory = build.context.downloads(build.places)?;
                            remote::fetch(&path, checksum.as_deref(), directory)?
                        }
                        false => CopySource::Path(path),
                    });
                }
            }
        }
        let optional = |text: &Option<String>| text.as_deref().map(word).transpose();
        let workdir = self.image.clone().default("WorkingDir")?;
        let workdir = workdir.as_str().unwrap_or("/");
        Ok(Job {
            add,
            from,
            sources,
            destination: word(&copy.destination)?,
            workdir: from_root(workdir),
            chown: optional(&copy.chown)?,
            chmod: optional(&copy.chmod)?,
            link: copy.link,
            parents: copy.parents,
            exclude: copy
                .exclude
                .iter()
                .map(|pattern| word(pattern))
                .collect::<Result<_>>()?,
            unpack: copy.unpack,
            latest: build.options.epoch,
            stamp: None,
        })
    }

    /// The image that `--from` means.
    pub fn image_of_copy(&self, from: &str) -> Result<Image> {
        match self.build.stage_of_copy(from, self.number) {
            Some(stage) => self.build.image_of(stage),
            None if from == "scratch" => Image::scratch(),
            None => Ok(self.build.base(from)?.image),
        }
    }

    /// The build.
    pub fn build(&self) -> &Build<'_> {
        self.build
    }

    /// The variables that an instruction sees now.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Makes a layer of its own of files of the context, or finds it. Returns the
    /// files, too.
    pub fn layer_of(&self, mut job: Job, what: &str) -> Result<(LayerId, Vec<(String, Digest)>)> {
        let build = self.build;
        let spec = build.spec(&Config::default(), build.empty_layer()?, "/")?;
        let sources = job.sources(build.places, &spec, build.remembered.as_ref())?;
        job.stamp = Some(sources.stamp.clone());
        let inputs = Inputs {
            text: format!("a mount of {:?}", job.sources),
            files: sources.files.clone(),
            ..Inputs::default()
        };
        let key = inputs.key()?;
        let made = match build.cache.find(&key, build.kind)? {
            Some(made) => made,
            None => {
                let vertex = build
                    .reporter
                    .begin(&format!("[internal] load {what}"), &self.label);
                let keep = Keep {
                    below: Vec::new(),
                    ..self.keep(&key, Some(what))
                };
                let made = self.ask(Wanted::plain(spec, Work::Copy(job)), keep, &vertex);
                vertex.end(made.as_ref().err());
                made?
            }
        };
        let chain = chain(&[made.diff_id]).pop().context("no layer")?;
        Ok((chain.layer_id()?, sources.files))
    }

    /// How the history shows a `COPY`.
    fn shown_copy(&self, copy: &Copy, job: &Job) -> Result<String> {
        let mut by = match job.add {
            true => "ADD".to_owned(),
            false => "COPY".to_owned(),
        };
        if job.parents {
            by += " --parents";
        }
        if let Some(chown) = &job.chown {
            by += &format!(" --chown={chown}");
        }
        if let Some(chmod) = &job.chmod {
            by += &format!(" --chmod={chmod}");
        }
        for source in &copy.sources {
            match source {
                Source::Path(path) => {
                    for path in self.variables.words(path)? {
                        by += &format!(" {path}");
                    }
                }
                Source::Here(heredoc) => by += &format!(" <<{}", heredoc.name),
            }
        }
        Ok(by + &format!(" {} # buildkit", job.destination))
    }

    /// The files of another layer that a `COPY` would copy. Another process
    /// looks.
    fn look(&self, spec: &Spec, job: &Job) -> Result<crate::copy::Sources> {
        let order = Order {
            spec: spec.clone(),
            work: Work::Look(job.clone()),
            keep: self.keep(&Digest::of(b""), None),
            caches: Vec::new(),
            secrets: Secrets::default(),
        };
        match self
            .build
            .workers
            .ask(self.build.places, &order, &Vertex::silent())?
        {
            Answer::Found(sources) => Ok(sources),
            Answer::Failed(causes) => Err(failed(causes)),
            other => bail!("an unexpected answer: {other:?}"),
        }
    }

    /// The layer below the one that is to be made.
    fn below(&self) -> Result<LayerId> {
        match self.image.top()? {
            Some(top) => Ok(top),
            None => self.build.empty_layer(),
        }
    }

    fn keep(&self, key: &Digest, text: Option<&str>) -> Keep {
        let epoch = self.build.options.epoch;
        Keep {
            below: self.image.diff_ids().to_vec(),
            epoch,
            created: epoch.map(time_of),
            key: key.clone(),
            record: text.map(|text| Record {
                layers: Vec::new(),
                made: None,
                text: text.to_owned(),
            }),
        }
    }

    /// A step: its layer comes from the cache, or from a container.
    // ANCHOR: step
    fn step(
        &self,
        instruction: &Instruction,
        inputs: &Inputs,
        wanted: &mut dyn FnMut() -> Result<Wanted>,
    ) -> Result<(Made, Digest)> {
        let build = self.build;
        let mut inputs = inputs.clone();
        if let Some(epoch) = build.options.epoch {
            let epoch = epoch.to_string();
            inputs.besides.insert("SOURCE_DATE_EPOCH".into(), epoch);
        }
        let inputs = &inputs;
        let key = inputs.key()?;
        let place = format!("{} {}", self.number, self.step.0);
        let vertex = build
            .reporter
            .begin(&self.title(&instruction.text), &self.label);
        if !self.no_cache
            && let Some(made) = self.known(&key, &instruction.text)?
        {
            build.why.note(&place, &instruction.text, inputs);
            vertex.cached();
            return Ok((made, key));
        }
        let why = match self.no_cache {
            true => "--no-cache".to_owned(),
            false => build.why.explain(&place, &instruction.text, inputs),
        };
        vertex.why(&why);
        let keep = self.keep(&key, Some(&instruction.text));
        let made = wanted().and_then(|wanted| self.ask(wanted, keep, &vertex));
        if made.is_ok() {
            build.why.note(&place, &instruction.text, inputs);
        }
        vertex.end(made.as_ref().err());
        made.map(|made| (made, key))
    }
    // ANCHOR_END: step

    /// The layer of this key: of an earlier build, or of an image of
    /// `--cache-from`.
    fn known(&self, key: &Digest, text: &str) -> Result<Option<Made>> {
        let build = self.build;
        if let Some(made) = build.cache.find(key, build.kind)? {
            return Ok(Some(made));
        }
        let Some((diff_ids, made)) = build.imported(key)? else {
            return Ok(None);
        };
        // The key says what is below. An image may say anything.
        if diff_ids.split_last().map(|(_, below)| below) != Some(self.image.diff_ids()) {
            return Ok(None);
        }
        let record = Record {
            layers: Vec::new(),
            made: None,
            text: text.to_owned(),
        };
        let _lock = build.here.images.store.lock()?;
        build.cache.write(key, &record.with(&made, &diff_ids))?;
        build.cache.find(key, build.kind)
    }

    /// Has another process make a layer.
    fn ask(&self, wanted: Wanted, keep: Keep, vertex: &Vertex) -> Result<Made> {
        let order = Order {
            spec: wanted.spec,
            work: wanted.work,
            keep,
            caches: wanted.mounts.caches,
            secrets: wanted.mounts.secrets,
        };
        match self.build.workers.ask(self.build.places, &order, vertex)? {
            Answer::Made { made, lost } => {
                if lost {
                    vertex.warn(
                        "files have lost extended attributes, such as capabilities: the file \
                         system of the images has none",
                    );
                }
                Ok(made)
            }
            Answer::Ended(status) => bail!(
                "process {} did not complete successfully: exit code: {status}",
                go_quoted(&wanted.command.unwrap_or_default())
            ),
            Answer::Failed(causes) => Err(failed(causes)),
            Answer::Found(_) => bail!("an unexpected answer"),
        }
    }
}

/// What is wanted of another process.
struct Wanted {
    spec: Spec,
    work: Work,
    mounts: Mounts,
    /// The command, for an error.
    command: Option<String>,
}

impl Wanted {
    fn plain(spec: Spec, work: Work) -> Self {
        Wanted {
            spec,
            work,
            mounts: Mounts::default(),
            command: None,
        }
    }
}

/// The error that another process reports.
fn failed(causes: Vec<String>) -> anyhow::Error {
    let mut causes = causes.into_iter().rev();
    let root = anyhow::Error::msg(causes.next().unwrap_or_default());
    causes.fold(root, anyhow::Error::context)
}

/// Whether an instruction is counted: those that make a layer.
fn is_step(instruction: &Instruction) -> bool {
    matches!(
        instruction.what,
        What::Run(_) | What::Copy(_) | What::Add(_) | What::Workdir(_)
    )
}

/// A time in seconds since 1970, RFC 3339.
pub fn time_of(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

/// A list as Go's `%q` prints it.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| go_quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

fn go_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            '\r' => quoted += "\\r",
            c if c.is_control() && (c as u32) < 0x80 => quoted += &format!("\\x{:02x}", c as u32),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The ports of a word of `EXPOSE`: `80`, `53/udp`, `8000-8002`. Of
/// `ADDRESS:PORT:80` Docker takes the last part, and warns.
fn exposed(word: &str) -> Result<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let (host, ports) = match ports.rsplit_once(':') {
        Some((host, ports)) => (Some(host), ports),
        None => (None, ports),
    };
    let protocol = protocol.to_ascii_lowercase();
    ensure!(
        matches!(&*protocol, "tcp" | "udp" | "sctp"),
        "invalid proto: {protocol}"
    );
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .with_context(|| format!("invalid containerPort: {word}"))
    };
    let range = |ports: &str| -> Result<(u16, u16)> {
        Ok(match ports.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(ports)?, port(ports)?),
        })
    };
    let (first, last) = range(ports)?;
    if let Some(host) = host {
        let (address, ports) = host.rsplit_once(':').unwrap_or(("", host));
        let address = address.trim_matches(['[', ']']);
        ensure!(
            address.is_empty() || address.parse::<std::net::IpAddr>().is_ok(),
            "invalid IP address: {address}"
        );
        if !ports.is_empty() {
            range(ports)?;
        }
    }
    ensure!(first <= last, "invalid range specified for port: {word}");
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// The health check of an image, and how the history shows it.
fn health_of(health: Option<&Health>) -> (Value, String) {
    let Some(health) = health else {
        return (
            json!({ "Test": ["NONE"] }),
            "HEALTHCHECK &{[\"NONE\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}".into(),
        );
    };
    let test = match &health.command {
        Words::Exec(words) => [&["CMD".to_owned()][..], words].concat(),
        Words::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    let mut value = json!({ "Test": test });
    let names = ["Interval", "Timeout", "StartPeriod", "StartInterval"];
    for (name, time) in names.iter().zip(health.times) {
        if time != 0 {
            value[name] = json!(time);
        }
    }
    if health.retries != 0 {
        value["Retries"] = json!(health.retries);
    }
    let times: Vec<String> = health
        .times
        .iter()
        .map(|time| format!("\"{}\"", go_duration(*time)))
        .collect();
    let shown = format!(
        "HEALTHCHECK &{{{} {} {}}}",
        quoted(&test),
        times.join(" "),
        go_rune(health.retries)
    );
    (value, shown)
}

/// A number as Go's `%q` prints it: as a character.
fn go_rune(number: u32) -> String {
    match char::from_u32(number) {
        Some('\n') => "'\\n'".into(),
        Some('\t') => "'\\t'".into(),
        Some('\r') => "'\\r'".into(),
        Some('\x07') => "'\\a'".into(),
        Some('\x08') => "'\\b'".into(),
        Some('\x0b') => "'\\v'".into(),
        Some('\x0c') => "'\\f'".into(),
        Some(c) if c.is_control() => format!("'\\x{number:02x}'"),
        Some(c) => format!("'{c}'"),
        None => "'\u{fffd}'".into(),
    }
}

/// A duration as Go prints it: `1m30s`.
fn go_duration(nanoseconds: u64) -> String {
    let fraction = |value: u64, unit: u64, name: &str| {
        let (whole, rest) = (value / unit, value % unit);
        let digits = unit.to_string().len() - 1;
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            rest => format!("{whole}.{rest}{name}"),
        }
    };
    let second = 1_000_000_000;
    match nanoseconds {
        0 => "0s".into(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanoseconds / second / 60, nanoseconds % (60 * second));
            let (hours, minutes) = (minutes / 60, minutes % 60);
            let seconds = fraction(rest, second, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn ports_may_be_a_range() {
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("7-8/UDP").unwrap(), ["7/udp", "8/udp"]);
        assert_eq!(exposed("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("8080:80/udp").unwrap(), ["80/udp"]);
        assert_eq!(exposed("[::1]:8080:80").unwrap(), ["80/tcp"]);
        for bad in ["x", "80/icmp", "9-8", "70000", "", "x:80", "a.b:1:80"] {
            assert!(exposed(bad).is_err(), "{bad}");
        }
    }
}

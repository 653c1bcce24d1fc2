//! `RUN`: the description of a container.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use engine::cli::defaults::image_user;
use engine::cli::options::ProcessArgs;
use engine::command::environment::environment;
use engine::image::config::Config;
use engine::image::digest::Digest;
use engine::spec::Spec;
use engine::volume::options::{Files, from_root};
use net::NetworkMode;
use union::LayerId;
use user::caller::Caller;

use crate::build::cache::Inputs;
use crate::build::image::Image;
use crate::build::mounts::script;
use crate::build::options::Network;
use crate::build::shared::Build;
use crate::build::variables::{Variables, is_proxy, proxies};
use crate::dockerfile::instruction::{Run, Words};

/// The host name of every `RUN`: one that changed would be in files that are
/// made there.
const HOSTNAME: &str = "buildkitsandbox";

/// What `RUN --mount=from=` names.
pub fn sources(run: &Run) -> Vec<String> {
    let words = run.mounts.iter().flat_map(|mount| mount.split(','));
    words
        .filter_map(|word| word.strip_prefix("from="))
        .map(str::to_owned)
        .collect()
}

/// The words of a command: a list as it is, a line for the shell.
pub fn command(words: &Words, shell: &[String]) -> Vec<String> {
    match words {
        Words::Exec(words) => words.clone(),
        Words::Shell(line) => [shell, std::slice::from_ref(line)].concat(),
    }
}

/// The words of a `RUN`.
pub fn argv(run: &Run, shell: &[String]) -> Vec<String> {
    if let Some(name) = &run.script {
        return vec![script(name)];
    }
    match run.shell() {
        Some(line) => command(&Words::Shell(line), shell),
        None => command(&run.command, shell),
    }
}

/// How the history shows a `RUN`: with the arguments that it saw.
pub fn shown(argv: &[String], args: &[(String, String)]) -> String {
    let args: Vec<String> = args
        .iter()
        .filter(|(name, _)| !is_proxy(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let counted = match args.len() {
        0 => String::new(),
        count => format!("|{count} {} ", args.join(" ")),
    };
    format!("RUN {counted}{} # buildkit", argv.join(" "))
}

impl Build<'_> {
    /// The description of a container on a layer of the image so far, in which
    /// nothing runs yet.
    pub fn spec(&self, config: &Config, layer: LayerId, workdir: &str) -> Result<Spec> {
        let defaults = self.defaults.clone();
        let mut uts = defaults.uts;
        uts.hostname = Some(HOSTNAME.into());
        let mut user = defaults.user;
        user.user = Some(image_user(config).with_context(|| format!("USER {:?}", config.user))?);
        Ok(Spec {
            id: kit::random::hex::<32>()?,
            name: String::new(),
            image: "build".into(),
            image_id: String::new(),
            layer,
            driver: self.kind,
            command: Vec::new(),
            entrypoint: 0,
            env: Vec::new(),
            workdir: match workdir {
                "" => PathBuf::from("/"),
                workdir => from_root(workdir),
            },
            interactive: false,
            tty: false,
            uts,
            ipc: defaults.ipc,
            pids: defaults.pid,
            files: Files {
                shm_size: defaults.files.shm_size,
                ..Files::default()
            },
            user,
            net: defaults.net,
            cgroups: defaults.cgroups,
            ulimits: defaults.process.ulimit,
            harden: defaults.harden,
            new_keyring: true,
            labels: BTreeMap::new(),
            healthcheck: None,
            stop_signal: "SIGTERM".into(),
            stop_timeout: 10,
            auto_remove: true,
            layer_size: None,
        })
    }

    /// The description of the container of a `RUN`, and what its layer depends on.
    pub fn run_spec(
        &self,
        image: &Image,
        layer: LayerId,
        run: &Run,
        argv: &[String],
        variables: &Variables,
    ) -> Result<(Spec, Inputs)> {
        let config = image.config()?;
        let mut spec = self.spec(&config, layer, &config.working_dir)?;
        let network = match run.network.as_deref() {
            None => self.options.network,
            Some(name) => Network::of(name).with_context(|| {
                format!("network {name:?} is not supported: use default, none or host")
            })?,
        };
        spec.net.network = Some(match network {
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
            Network::Default if Caller::look()?.is_privileged() => NetworkMode::Bridge,
            // An ordinary user cannot make a bridge, and gets the host's network
            // only when they ask for it.
            Network::Default => NetworkMode::None,
        });
        match run.security.as_deref() {
            None | Some("sandbox") => {}
            Some(other) => bail!("--security={other} is not supported: a RUN has no privileges"),
        }
        let process = ProcessArgs {
            env: [variables.values().to_vec(), proxies(self.options)]
                .concat()
                .into_iter()
                .map(|(name, value)| OsString::from(format!("{name}={value}")))
                .collect(),
            ..ProcessArgs::default()
        };
        spec.command = argv.iter().map(OsString::from).collect();
        spec.env = environment(&config, &process, false)?;
        let mut inputs = Inputs {
            below: image.chain().cloned(),
            text: serde_json::to_string(argv).context("write JSON")?,
            ..Inputs::default()
        };
        for (name, value) in variables.values() {
            if !is_proxy(name) {
                let digest = Digest::of(value.as_bytes());
                inputs.variables.insert(name.clone(), digest);
            }
        }
        let mut besides = |name: &str, value: String| {
            inputs.besides.insert(name.to_owned(), value);
        };
        besides("the user", config.user.clone());
        besides("the working directory", config.working_dir.clone());
        besides("the network", network.name().into());
        // As they are written: what they show is added by who reads them.
        besides("the mounts", run.mounts.join("\n"));
        Ok((spec, inputs))
    }
}

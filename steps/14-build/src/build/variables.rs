//! Variables: `ARG` and `ENV`, and who sees which.
//!
//! `ENV` belongs to the image, and counts more. `ARG` belongs to the Dockerfile:
//! one before the first `FROM` is seen by `FROM` lines only, until a stage says
//! `ARG NAME` itself.

use anyhow::Result;
use engine::image::config::architecture;

use crate::build::at;
use crate::build::options::Options;
use crate::dockerfile::expand::Expander;
use crate::dockerfile::instruction::{Dockerfile, Heredoc, What};

/// Arguments that are there without an `ARG`: a proxy differs between the places
/// where an image is built, and the image does not, so they are not in the cache's
/// keys or in the history.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Variables by name. The latest counts.
#[derive(Clone, Debug)]
pub struct Variables {
    escape: char,
    /// Arguments, in the order of their `ARG`s; `None` for one without a value.
    pub args: Vec<(String, Option<String>)>,
    /// The image's environment.
    pub env: Vec<(String, String)>,
}

impl Variables {
    /// Those that `FROM` lines see.
    pub fn global(dockerfile: &Dockerfile, options: &Options) -> Result<Self> {
        let mut variables = Variables {
            escape: dockerfile.escape,
            args: platform(options)
                .into_iter()
                .map(|(name, value)| (name, Some(value)))
                .collect(),
            env: Vec::new(),
        };
        for instruction in &dockerfile.args {
            let What::Arg(args) = &instruction.what else {
                continue;
            };
            for (name, default) in args {
                let value = match options.build_args.get(name) {
                    Some(given) => Some(given.clone()),
                    None => at(
                        &instruction.lines,
                        default
                            .as_ref()
                            .map(|default| variables.word(default))
                            .transpose(),
                    )?,
                };
                variables.set_arg(name, value);
            }
        }
        Ok(variables)
    }

    /// Those that a stage begins with.
    pub fn of_stage(escape: char, env: Vec<(String, String)>) -> Self {
        Variables {
            escape,
            args: Vec::new(),
            env,
        }
    }

    /// Sets an argument.
    pub fn set_arg(&mut self, name: &str, value: Option<String>) {
        match self.args.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => self.args.push((name.to_owned(), value)),
        }
    }

    /// The value of an argument.
    pub fn arg(&self, name: &str) -> Option<&str> {
        let found = self.args.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.as_deref())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        let env = self.env.iter().rfind(|(known, _)| known == name);
        env.map(|(_, value)| value.clone())
            .or_else(|| self.arg(name).map(str::to_owned))
    }

    /// A word with its variables replaced and its quotes removed.
    pub fn word(&self, text: &str) -> Result<String> {
        let get = |name: &str| self.get(name);
        Expander::new(self.escape, &get).word(text)
    }

    /// A text that may become several words.
    pub fn words(&self, text: &str) -> Result<Vec<String>> {
        let get = |name: &str| self.get(name);
        Expander::new(self.escape, &get).words(text)
    }

    /// The text of a heredoc.
    pub fn heredoc(&self, heredoc: &Heredoc) -> Result<String> {
        let get = |name: &str| self.get(name);
        Expander::new(self.escape, &get).heredoc(heredoc)
    }

    /// The arguments that a command sees: those with a value that no `ENV` hides.
    pub fn seen(&self) -> Vec<(String, String)> {
        let hidden = |name: &str| self.env.iter().any(|(known, _)| known == name);
        self.args
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .filter(|(name, _)| !hidden(name))
            .collect()
    }
}

/// The proxies that are given.
pub fn proxies(options: &Options) -> Vec<(String, String)> {
    PROXIES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), options.build_args.get(*name)?.clone())))
        .collect()
}

/// Whether this is the name of a proxy.
pub fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// The arguments about the machine that builds, and the one that is built for.
pub fn platform(options: &Options) -> Vec<(String, String)> {
    let build = ("linux".to_owned(), architecture().to_owned(), String::new());
    let target = match &options.platform {
        Some(platform) => (
            platform.os.clone(),
            platform.architecture.clone(),
            platform.variant.clone(),
        ),
        None => build.clone(),
    };
    let mut all = Vec::new();
    for (prefix, (os, architecture, variant)) in [("BUILD", build), ("TARGET", target)] {
        let mut whole = format!("{os}/{architecture}");
        if !variant.is_empty() {
            whole += &format!("/{variant}");
        }
        all.push((format!("{prefix}PLATFORM"), whole));
        all.push((format!("{prefix}OS"), os));
        all.push((format!("{prefix}ARCH"), architecture));
        all.push((format!("{prefix}VARIANT"), variant));
    }
    let stage = options.target.clone().unwrap_or_else(|| "default".into());
    all.push(("TARGETSTAGE".into(), stage));
    all
}

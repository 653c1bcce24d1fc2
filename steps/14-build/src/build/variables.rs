//! Variables: `ARG` and `ENV`, and who sees which.
//!
//! `ENV` belongs to the image, `ARG` to the Dockerfile; of two with one name the
//! later one counts. An `ARG` before the first `FROM` is seen by `FROM` lines only,
//! until a stage says `ARG NAME` itself. A stage that is based on another one
//! inherits what was in force at its end.

use anyhow::Result;
use engine::image::config::architecture;

use crate::build::error::at;
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
    /// The names of this stage's `ARG`s, in their order.
    declared: Vec<String>,
    /// What is in force, each name once.
    values: Vec<(String, String)>,
}

impl Variables {
    /// Those that `FROM` lines see.
    pub fn global(dockerfile: &Dockerfile, options: &Options) -> Result<Self> {
        let mut variables = Variables::of_stage(dockerfile.escape, platform(options));
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
    pub fn of_stage(escape: char, values: Vec<(String, String)>) -> Self {
        Variables {
            escape,
            declared: Vec::new(),
            values,
        }
    }

    /// Declares an argument. One without a value changes nothing.
    pub fn set_arg(&mut self, name: &str, value: Option<String>) {
        if !self.declared.iter().any(|known| known == name) {
            self.declared.push(name.to_owned());
        }
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: String) {
        match self.values.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => self.values.push((name.to_owned(), value)),
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        let found = self.values.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    /// All that is in force: what a command sees.
    pub fn values(&self) -> &[(String, String)] {
        &self.values
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

    /// The arguments of this stage with what is in force for each, as the history
    /// of a `RUN` shows them.
    pub fn declared(&self) -> Vec<(String, String)> {
        self.declared
            .iter()
            .map(|name| (name.clone(), self.get(name).unwrap_or_default()))
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

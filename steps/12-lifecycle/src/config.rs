//! The configuration file: defaults for options that nobody gives, with the keys
//! of Docker's `daemon.json`.
//!
//! ```toml
//! data-root = "/srv/drydock"
//! storage-driver = "overlay2"
//! storage-opts = ["overlay2.size=10g"]
//! log-opts = { max-size = "10m", max-file = "3" }
//! dns = ["192.0.2.53"]
//!
//! [limits]              # not Docker's
//! memory = "512m"
//! pids-limit = 500
//! ```
//!
//! It is `/etc/drydock/drydock.toml` for root and
//! `$XDG_CONFIG_HOME/drydock/drydock.toml` for others, or what `--config-file`
//! names. A name that ends in `.json` is read as JSON. There is no daemon that
//! would have to be told of a change: every command reads it.

use std::collections::BTreeMap;
use std::env::var_os;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use cgroups::{Bytes, CgroupSettings, Cpus, Swap};
use engine::cli::options::RunArgs;
use engine::command::ulimit::Ulimit;
use harden::SecurityOpt;
use kit::own::read_own;
use nix::unistd::geteuid;
use serde::Deserialize;
use union::{Kind, SizeOption};

use crate::settings::LogDriver;

/// The largest file, in bytes.
const LARGEST: u64 = 1 << 20;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The state directory for images, layers and volumes.
    pub data_root: Option<PathBuf>,
    /// The storage driver.
    pub storage_driver: Option<Kind>,
    /// Sizes of containers' layers: `size=10g`, or of one driver's.
    pub storage_opts: Vec<String>,
    /// Where output goes.
    pub log_driver: Option<LogDriver>,
    /// Options of the log driver, by name.
    pub log_opts: BTreeMap<String, String>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// Resource limits, as `--ulimit` takes them, by name.
    pub default_ulimits: BTreeMap<String, DefaultUlimit>,
    /// The size of `/dev/shm`.
    pub default_shm_size: Option<Bytes>,
    /// Whether containers have an init.
    pub init: bool,
    /// Whether commands can gain no privileges by executing a program.
    pub no_new_privileges: bool,
    /// The seccomp profile: `builtin`, `unconfined` or a file.
    pub seccomp_profile: Option<String>,
    /// Limits of a container's groups.
    pub limits: Limits,
}

/// A resource limit in the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DefaultUlimit {
    /// Docker writes the name there once more; nobody reads it.
    #[serde(default)]
    pub name: Option<String>,
    /// The soft limit; -1 for none.
    #[serde(alias = "soft")]
    pub soft: i64,
    /// The hard limit.
    #[serde(alias = "hard")]
    pub hard: i64,
}

/// Limits of a container's groups, by the names of the options.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Memory.
    pub memory: Option<Bytes>,
    /// Memory and swap.
    pub memory_swap: Option<Swap>,
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Processes.
    pub pids_limit: Option<i64>,
}

impl Config {
    /// Reads the file that `given` names, or else the usual one if it exists.
    ///
    /// # Errors
    /// If the file is damaged, with the line; if it has a key that is not
    /// known; if others than the caller and root can write it; if the given one
    /// does not exist.
    pub fn read(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => Some(std::path::absolute(path)?),
            None => usual(),
        };
        let Some(path) = path else {
            return Ok(Config::default());
        };
        let Some(bytes) = read_own(&path, LARGEST)? else {
            ensure!(given.is_none(), "--config-file {path:?}: no such file");
            return Ok(Config::default());
        };
        let text = String::from_utf8(bytes).with_context(|| format!("{path:?} is not UTF-8"))?;
        Config::parse(&text, path.extension().is_some_and(|end| end == "json"))
            .with_context(|| format!("the configuration file {path:?}"))
    }

    fn parse(text: &str, is_json: bool) -> Result<Self> {
        let config: Config = match is_json {
            true => serde_json::from_str(text)?,
            false => toml::from_str(text).map_err(|error| in_a_line(&error, text))?,
        };
        config.sizes()?;
        for (name, limit) in &config.default_ulimits {
            limit
                .named(name)
                .with_context(|| format!("default-ulimits: {name}"))?;
        }
        if let Some(root) = &config.data_root {
            ensure!(
                root.is_absolute(),
                "data-root {root:?}: give an absolute path"
            );
        }
        // Where a command is given decides nothing: the directory may be
        // somebody else's.
        if let Some(profile) = &config.seccomp_profile {
            ensure!(
                matches!(&**profile, "builtin" | "unconfined") || Path::new(profile).is_absolute(),
                "seccomp-profile {profile:?}: give an absolute path"
            );
        }
        Ok(config)
    }

    fn sizes(&self) -> Result<Vec<SizeOption>> {
        let options = self.storage_opts.iter();
        options
            .map(|option| option.parse().context("storage-opts"))
            .collect()
    }

    /// Sets what the options of a start leave open.
    ///
    /// # Errors
    /// If a value of the file is not one of its option's.
    pub fn fill(&self, args: &mut RunArgs) -> Result<()> {
        args.layers.storage_driver = args.layers.storage_driver.or(self.storage_driver);
        args.layers.default_sizes = self.sizes()?;
        if args.net.dns.is_empty() {
            args.net.dns.clone_from(&self.dns);
        }
        args.files.shm_size = args.files.shm_size.or(self.default_shm_size);
        args.pid.init |= self.init;
        for (name, limit) in &self.default_ulimits {
            let limit = limit.named(name)?;
            let begin = format!("{name}=");
            let given = args.process.ulimit.iter();
            if !given
                .map(ToString::to_string)
                .any(|given| given.starts_with(&begin))
            {
                args.process.ulimit.push(limit);
            }
        }
        // Of a kind that is given several times the last one applies: these
        // come first.
        let mut options = Vec::new();
        if self.no_new_privileges {
            options.push(SecurityOpt::NoNewPrivileges(true));
        }
        if let Some(profile) = &self.seccomp_profile {
            options.push(
                format!("seccomp={profile}")
                    .parse()
                    .context("seccomp-profile")?,
            );
        }
        options.append(&mut args.harden.security_opt);
        args.harden.security_opt = options;
        self.limits.fill(&mut args.cgroups);
        Ok(())
    }
}

impl Limits {
    fn fill(&self, groups: &mut CgroupSettings) {
        // A limit of swap counts with the one of memory beside it.
        if groups.memory.is_none() && groups.memory_swap.is_none() {
            groups.memory_swap = self.memory_swap;
        }
        groups.memory = groups.memory.or(self.memory);
        if groups.cpu_quota.is_none() && groups.cpu_period.is_none() {
            groups.cpus = groups.cpus.or(self.cpus);
        }
        groups.pids_limit = groups.pids_limit.or(self.pids_limit);
    }
}

impl DefaultUlimit {
    fn named(&self, name: &str) -> Result<Ulimit> {
        format!("{name}={}:{}", self.soft, self.hard).parse()
    }
}

/// What is wrong, and in which line, without the picture of it.
fn in_a_line(error: &toml::de::Error, text: &str) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.unwrap_or_default().matches('\n').count() + 1;
    let message = error.message().trim_end().replace('\n', ", ");
    Error::msg(format!("line {line}: {message}"))
}

/// Where the file usually is; `None` for a user without a home directory.
fn usual() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some("/etc/drydock/drydock.toml".into());
    }
    let base = match var_os("XDG_CONFIG_HOME").map(PathBuf::from) {
        Some(base) if base.is_absolute() => base,
        _ => PathBuf::from(var_os("HOME")?).join(".config"),
    };
    Some(base.join("drydock/drydock.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Tool {
        #[command(flatten)]
        run: RunArgs,
    }

    fn filled(config: &str, options: &str) -> RunArgs {
        let words = ["run"]
            .into_iter()
            .chain(options.split_whitespace())
            .chain(["box"]);
        let mut args = Tool::try_parse_from(words).unwrap().run;
        Config::parse(config, false)
            .unwrap()
            .fill(&mut args)
            .unwrap();
        args
    }

    #[test]
    fn what_is_given_counts() {
        let config = "storage-driver = 'vfs'\ndns = ['192.0.2.1']\nno-new-privileges = true\n\
                      [limits]\nmemory = '64m'\npids-limit = 9\n[default-ulimits.nofile]\nSoft = 10\nHard = 20\n";
        let args = filled(config, "");
        assert_eq!(args.layers.storage_driver, Some(Kind::Vfs));
        assert_eq!(args.cgroups.memory, Some(Bytes(64 << 20)));
        assert_eq!(args.cgroups.pids_limit, Some(9));
        assert_eq!(args.net.dns.len(), 1);
        assert_eq!(args.process.ulimit[0].to_string(), "nofile=10:20");
        let args = filled(
            config,
            "-m 8m --pids-limit 3 --dns 192.0.2.2 --ulimit nofile=5 --storage-driver overlay2 \
             --security-opt no-new-privileges=false",
        );
        assert_eq!(args.layers.storage_driver, Some(Kind::Overlay2));
        assert_eq!(args.cgroups.memory, Some(Bytes(8 << 20)));
        assert_eq!(args.cgroups.pids_limit, Some(3));
        assert_eq!(args.net.dns[0].to_string(), "192.0.2.2");
        assert_eq!(args.process.ulimit.len(), 1);
        assert_eq!(
            args.harden.security_opt,
            [
                SecurityOpt::NoNewPrivileges(true),
                SecurityOpt::NoNewPrivileges(false)
            ]
        );
    }

    #[test]
    fn json_has_the_same_keys() {
        let json = r#"{"log-driver": "none", "log-opts": {}, "default-shm-size": "1m",
            "default-ulimits": {"core": {"Name": null, "Soft": 0, "Hard": 0}}}"#;
        let config = Config::parse(json, true).unwrap();
        assert_eq!(config.log_driver, Some(LogDriver::None));
        assert_eq!(config.default_shm_size, Some(Bytes(1 << 20)));
    }

    #[test]
    fn what_is_wrong_is_refused_by_line() {
        for (text, words) in [
            ("init = true\ncolour = 1\n", &["line 2", "colour"][..]),
            ("\n\nstorage-driver = 'floppy'\n", &["line 3", "floppy"]),
            ("[limits]\nmemory = 'much'\n", &["line 2", "much"]),
            ("init = ", &["line 1"]),
            ("[default-ulimits.files]\nSoft = 1\nHard = 1\n", &["files"]),
            (
                "[default-ulimits.nofile]\nSoft = 2\nHard = 1\n",
                &["nofile"],
            ),
            ("storage-opts = ['size=much']\n", &["storage-opts", "much"]),
            ("storage-opts = ['vfs.size=1g']\n", &["vfs.size"]),
            ("data-root = 'here'\n", &["data-root", "absolute"]),
            (
                "seccomp-profile = 'here.json'\n",
                &["seccomp-profile", "absolute"],
            ),
        ] {
            let error = format!("{:#}", Config::parse(text, false).unwrap_err());
            for word in words {
                assert!(error.contains(word), "{text:?}: {error}");
            }
        }
        let error = Config::parse("{\n\"init\": 1}", true).unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }
}

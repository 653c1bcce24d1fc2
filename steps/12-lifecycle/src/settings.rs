//! What a container is asked to do beyond one run: `--restart`, `--log-driver`,
//! `--log-opt`. Kept in its record, under a name of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use cgroups::Bytes;
use engine::container::Record;
use engine::image::config::Healthcheck;
use serde::{Deserialize, Serialize};

use crate::health::Health;

/// The record's field for [`Stay`].
const FIELD: &str = "lifecycle";
/// The record's field for [`Health`], which the probes change while somebody
/// else may change the other.
const HEALTH: &str = "health";
/// The record's field for whether the OOM killer has ended a process.
const OOM_KILLED: &str = "oom_killed";

/// When a container whose command has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// If its exit status is not 0, at most this many times; 0 for no limit.
    OnFailure(u32),
    /// Whatever the status is, until somebody stops it.
    Always,
    /// The same; and one that was stopped stays so when the engine starts
    /// everything that should run.
    UnlessStopped,
}

impl Restart {
    /// Whether a container is to be started again that has ended with `status`
    /// after `restarts` restarts.
    // ANCHOR: policy
    pub fn again(self, status: u8, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => status != 0 && (most == 0 || restarts < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }
    // ANCHOR_END: policy
}

impl FromStr for Restart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, most) = match text.split_once(':') {
            Some((name, most)) => (name, Some(most)),
            None => (text, None),
        };
        let policy = match name {
            "" | "no" => Restart::No,
            "always" => Restart::Always,
            "unless-stopped" => Restart::UnlessStopped,
            "on-failure" => {
                let most = most.map_or(Ok(0), |most| {
                    most.parse()
                        .with_context(|| format!("maximum retry count {most:?}: give a number"))
                });
                return Ok(Restart::OnFailure(most?));
            }
            _ => bail!(
                "unknown restart policy {name:?}: give no, always, on-failure[:N] or unless-stopped"
            ),
        };
        ensure!(
            most.is_none(),
            "maximum retry count can only be used with 'on-failure'"
        );
        Ok(policy)
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restart::No => f.write_str("no"),
            Restart::OnFailure(0) => f.write_str("on-failure"),
            Restart::OnFailure(most) => write!(f, "on-failure:{most}"),
            Restart::Always => f.write_str("always"),
            Restart::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// Where the output of a container goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Into a file of lines of JSON.
    #[default]
    JsonFile,
    /// To those who attach, and nowhere else.
    None,
}

impl FromStr for LogDriver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "json-file" => Ok(LogDriver::JsonFile),
            "none" => Ok(LogDriver::None),
            _ => bail!("no log driver named {text:?}: give json-file or none"),
        }
    }
}

/// The log of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Where the output goes.
    pub driver: LogDriver,
    /// Bytes after which another file is begun; `None` for no limit.
    pub max_size: Option<u64>,
    /// How many files are kept.
    pub max_file: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            driver: LogDriver::JsonFile,
            max_size: None,
            max_file: 1,
        }
    }
}

impl LogSettings {
    /// The settings that `--log-driver` and `--log-opt` ask for.
    ///
    /// # Errors
    /// Names the option that is unknown, or has no effect.
    pub fn new(driver: Option<LogDriver>, options: &[String]) -> Result<Self> {
        let mut settings = LogSettings {
            driver: driver.unwrap_or_default(),
            ..LogSettings::default()
        };
        for option in options {
            let (name, value) = option
                .split_once('=')
                .with_context(|| format!("--log-opt {option}: give NAME=VALUE"))?;
            if settings.driver == LogDriver::None {
                bail!("--log-opt {name}: the log driver none has no options");
            }
            match name {
                "max-size" => {
                    let size: Bytes = value.parse().map_err(|error| {
                        Error::msg(format!("--log-opt max-size={value}: {error:#}"))
                    })?;
                    ensure!(size.0 > 0, "--log-opt max-size={value}: give at least 1");
                    settings.max_size = Some(size.0);
                }
                "max-file" => {
                    settings.max_file = value
                        .parse()
                        .ok()
                        .filter(|most| *most > 0)
                        .with_context(|| format!("--log-opt max-file={value}: give 1 or more"))?;
                }
                _ => bail!("unknown log opt {name:?} for the log driver json-file"),
            }
        }
        ensure!(
            settings.max_size.is_some() || settings.max_file == 1,
            "--log-opt max-file needs max-size: one file never ends"
        );
        Ok(settings)
    }
}

/// What a container is asked to do beyond one run, and what has become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stay {
    /// When it is started again.
    pub restart: Restart,
    /// Where its output goes.
    pub log: LogSettings,
    /// How its health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Healthcheck>,
    /// The ports that `--expose` names, `80/tcp` each, besides the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    /// Whether the command's input ends with the first who attaches to it.
    pub stdin_once: bool,
    /// How often it has been started again since somebody started it.
    pub restarts: u32,
    /// Whether somebody has stopped it.
    pub stopped: bool,
    /// Whether some process of it may look into others, so that the program of
    /// those who enter is a sealed copy.
    pub may_trace: bool,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Stay {
    /// Reads the settings from a record; defaults for one without.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn of(record: &Record) -> Result<Stay> {
        match record.later.get(FIELD) {
            None => Ok(Stay::default()),
            Some(value) => serde_json::from_value(value.clone())
                .with_context(|| format!("the record of {}: {FIELD}", record.spec.name)),
        }
    }

    /// Writes the settings into a record.
    pub fn put(&self, record: &mut Record) -> Result<()> {
        let value = serde_json::to_value(self).context("write JSON")?;
        record.later.insert(FIELD.to_owned(), value);
        Ok(())
    }

    /// The fields of a new record.
    pub fn fields(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let value = serde_json::to_value(self).context("write JSON")?;
        Ok(BTreeMap::from([(FIELD.to_owned(), value)]))
    }
}

/// What the probes have said of a container; `None` if there are none, or the
/// record is damaged there.
pub fn health(record: &Record) -> Option<Health> {
    let value = record.later.get(HEALTH)?.clone();
    serde_json::from_value(value).ok()
}

/// Whether the OOM killer has ended a process of the container since it was
/// started.
pub fn oom_killed(record: &Record) -> bool {
    record.later.contains_key(OOM_KILLED)
}

/// Notes that it has.
pub fn put_oom_killed(record: &mut Record) {
    record.later.insert(OOM_KILLED.to_owned(), true.into());
}

/// Forgets that, for a new start.
pub fn forget_oom_killed(record: &mut Record) {
    record.later.remove(OOM_KILLED);
}

/// Notes what the probes have said.
pub fn put_health(record: &mut Record, health: &Health) {
    if let Ok(value) = serde_json::to_value(health) {
        record.later.insert(HEALTH.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        for (text, policy) in [
            ("no", Restart::No),
            ("", Restart::No),
            ("always", Restart::Always),
            ("unless-stopped", Restart::UnlessStopped),
            ("on-failure", Restart::OnFailure(0)),
            ("on-failure:3", Restart::OnFailure(3)),
        ] {
            assert_eq!(text.parse::<Restart>().unwrap(), policy, "{text}");
        }
        for bad in [
            "sometimes",
            "always:3",
            "no:1",
            "on-failure:x",
            "on-failure:-1",
        ] {
            assert!(bad.parse::<Restart>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failure_is_retried_as_often_as_asked() {
        assert!(!Restart::No.again(1, 0));
        assert!(!Restart::OnFailure(2).again(0, 0));
        assert!(Restart::OnFailure(2).again(1, 1));
        assert!(!Restart::OnFailure(2).again(1, 2));
        assert!(Restart::OnFailure(0).again(1, 99));
        assert!(Restart::Always.again(0, 99));
    }

    #[test]
    fn log_options_are_checked() {
        let settings =
            LogSettings::new(None, &["max-size=10k".into(), "max-file=3".into()]).unwrap();
        assert_eq!((settings.max_size, settings.max_file), (Some(10240), 3));
        for bad in ["max-file=3", "max-size=0", "max-size", "colour=red"] {
            assert!(LogSettings::new(None, &[bad.into()]).is_err(), "{bad}");
        }
    }
}

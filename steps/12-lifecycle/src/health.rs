//! Is the container healthy? A command in it says so, again and again
//! (`HEALTHCHECK` of a Dockerfile, `--health-cmd`).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use engine::image::config::Healthcheck;
use serde::{Deserialize, Serialize};

/// Docker's default for the time between probes, and for the time of one.
const USUAL: Duration = Duration::from_secs(30);
/// Docker's default for the probes that must fail in a row.
const RETRIES: u64 = 3;
/// How many results are kept.
const KEPT: usize = 5;
/// How much of a probe's output is kept, in bytes.
pub const OUTPUT: usize = 4096;

/// The options that say how to check the health of a container.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Health (step 12)")]
pub struct HealthArgs {
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,

    /// Time between running the check: 30s, 1m30s [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_interval: Option<Duration>,

    /// Maximum time to allow one check to run [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_timeout: Option<Duration>,

    /// Time for the container to start, in which failures do not count
    /// [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_period: Option<Duration>,

    /// Time between running the check during the start period [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_interval: Option<Duration>,

    /// Consecutive failures needed to report unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    health_retries: Option<u64>,

    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
}

/// A duration as Go writes it: `1m30s`, `500ms`, `1.5s`, `0`.
///
/// # Errors
/// If it is none, or negative.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("{text:?} is no duration: give one such as 30s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    ensure!(!text.is_empty(), wrong());
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, tail) = tail.split_at(letters.unwrap_or(tail.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => bail!(wrong()),
        };
        let number: f64 = number.parse().with_context(wrong)?;
        let part = Duration::try_from_secs_f64(number * seconds).with_context(wrong)?;
        sum = sum.checked_add(part).with_context(wrong)?;
        rest = tail;
    }
    // Go keeps nanoseconds in 64 bits.
    ensure!(sum.as_nanos() <= i64::MAX as u128, wrong());
    Ok(sum)
}

impl HealthArgs {
    /// Whether any of the options is given.
    pub fn is_given(&self) -> bool {
        self.has_options() || self.no_healthcheck
    }

    fn has_options(&self) -> bool {
        let durations = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
        ];
        self.health_cmd.is_some()
            || self.health_retries.is_some()
            || durations.iter().any(Option::is_some)
    }

    /// The check of a container: the image's, changed by the options. One that
    /// is not to be made is `None`.
    ///
    /// # Errors
    /// If options contradict each other, or a time is too short to be one.
    pub fn check(&self, image: Option<&Healthcheck>) -> Result<Option<Healthcheck>> {
        if self.no_healthcheck {
            ensure!(
                !self.has_options(),
                "--no-healthcheck conflicts with --health-* options"
            );
            return Ok(None);
        }
        let mut check = image.cloned().unwrap_or_default();
        if let Some(command) = self
            .health_cmd
            .as_ref()
            .filter(|command| !command.is_empty())
        {
            check.test = vec!["CMD-SHELL".into(), command.clone()];
        }
        for (given, field, option) in [
            (self.health_interval, &mut check.interval, "interval"),
            (self.health_timeout, &mut check.timeout, "timeout"),
            (
                self.health_start_period,
                &mut check.start_period,
                "start-period",
            ),
            (
                self.health_start_interval,
                &mut check.start_interval,
                "start-interval",
            ),
        ] {
            let Some(given) = given else { continue };
            ensure!(
                given.is_zero() || given >= Duration::from_millis(1),
                "--health-{option} cannot be less than 1ms"
            );
            *field = given.as_nanos() as u64;
        }
        if let Some(retries) = self.health_retries {
            check.retries = retries;
        }
        Ok(Some(check).filter(|check| command(check).is_some()))
    }
}

/// The command line of a check; `None` if there is nothing to check.
pub fn command(check: &Healthcheck) -> Option<Vec<String>> {
    let (kind, words) = check.test.split_first()?;
    match (kind.as_str(), words) {
        (_, []) => None,
        ("CMD", words) => Some(words.to_vec()),
        ("CMD-SHELL", words) => Some(vec!["/bin/sh".into(), "-c".into(), words.join(" ")]),
        _ => None,
    }
}

/// What the probes have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// None has decided yet.
    #[default]
    Starting,
    /// The last one has succeeded.
    Healthy,
    /// Too many in a row have failed.
    Unhealthy,
}

impl State {
    /// The word that Docker uses.
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
    }
}

/// The result of a probe, in the shape of Docker's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it was started, RFC 3339.
    pub start: String,
    /// When it had ended.
    pub end: String,
    /// Its exit status; -1 if it took too long.
    pub exit_code: i32,
    /// The beginning of its output.
    pub output: String,
}

/// The health of a container, in the shape of Docker's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// What the probes have said.
    pub status: State,
    /// How many of the last ones have failed in a row.
    pub failing_streak: u64,
    /// The last five results, the oldest first.
    pub log: Vec<Probe>,
}

impl Health {
    /// Adds a result. `young` says that the container is still in its start
    /// period.
    // ANCHOR: verdict
    pub fn add(&mut self, probe: Probe, check: &Healthcheck, young: bool) {
        if probe.exit_code == 0 {
            self.status = State::Healthy;
            self.failing_streak = 0;
        } else if !(young && self.status == State::Starting) {
            self.failing_streak += 1;
            if self.failing_streak >= retries(check) {
                self.status = State::Unhealthy;
            }
        }
        self.log.push(probe);
        let old = self.log.len().saturating_sub(KEPT);
        self.log.drain(..old);
    }
    // ANCHOR_END: verdict
}

fn retries(check: &Healthcheck) -> u64 {
    match check.retries {
        0 => RETRIES,
        retries => retries,
    }
}

/// Nanoseconds of a check, or the default for 0.
fn or(nanos: u64, default: Duration) -> Duration {
    match nanos {
        0 => default,
        nanos => Duration::from_nanos(nanos),
    }
}

/// The time to the next probe of a container that has run for `age`.
pub fn pause(check: &Healthcheck, state: State, age: Duration) -> Duration {
    let usual = or(check.interval, USUAL);
    let is_young = state == State::Starting && age < Duration::from_nanos(check.start_period);
    match check.start_interval {
        // Docker's default interval of a start period holds only where one is
        // set: before version 25 it had none.
        0 => usual,
        nanos if is_young => Duration::from_nanos(nanos),
        _ => usual,
    }
}

/// The time that a probe may take.
pub fn patience(check: &Healthcheck) -> Duration {
    or(check.timeout, USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Tool {
        #[command(flatten)]
        health: HealthArgs,
    }

    fn check(options: &str, image: Option<&Healthcheck>) -> Result<Option<Healthcheck>> {
        let words = std::iter::once("tool").chain(options.split_whitespace());
        Tool::try_parse_from(words)?.health.check(image)
    }

    fn image() -> Healthcheck {
        Healthcheck {
            test: vec!["CMD".into(), "probe".into()],
            interval: 7,
            ..Healthcheck::default()
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("0", 0),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for bad in ["", "5", "s", "1x", "-1s", "1s2", "..s", "9999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_change_the_images_check() {
        assert_eq!(check("", None).unwrap(), None);
        assert_eq!(check("", Some(&image())).unwrap(), Some(image()));
        assert_eq!(check("--no-healthcheck", Some(&image())).unwrap(), None);
        let slower = check("--health-interval 2s --health-retries 1", Some(&image()))
            .unwrap()
            .unwrap();
        assert_eq!((slower.interval, slower.retries), (2_000_000_000, 1));
        assert_eq!(slower.test, image().test);
        let other = check("--health-cmd true", Some(&image())).unwrap().unwrap();
        assert_eq!(command(&other).unwrap(), ["/bin/sh", "-c", "true"]);
        // Nothing to run.
        assert_eq!(check("--health-interval 2s", None).unwrap(), None);
        for bad in [
            "--no-healthcheck --health-cmd x",
            "--health-interval 10us --health-cmd x",
        ] {
            assert!(check(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn failures_count_after_the_start_period() {
        let check = Healthcheck {
            retries: 2,
            ..image()
        };
        let probe = |exit_code| Probe {
            start: String::new(),
            end: String::new(),
            exit_code,
            output: String::new(),
        };
        let mut health = Health::default();
        for _ in 0..4 {
            health.add(probe(1), &check, true);
        }
        assert_eq!((health.status, health.failing_streak), (State::Starting, 0));
        health.add(probe(1), &check, false);
        assert_eq!(health.status, State::Starting);
        health.add(probe(1), &check, false);
        assert_eq!(
            (health.status, health.failing_streak),
            (State::Unhealthy, 2)
        );
        health.add(probe(0), &check, false);
        assert_eq!((health.status, health.failing_streak), (State::Healthy, 0));
        // Once healthy, it is not young any more.
        health.add(probe(1), &check, true);
        assert_eq!(health.failing_streak, 1);
        assert_eq!(health.log.len(), KEPT);
    }
}

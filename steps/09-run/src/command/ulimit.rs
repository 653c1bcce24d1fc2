//! `--ulimit`: resource limits of each process, in Docker's syntax.
//! getrlimit(2).

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use process::Isolation;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The names of the limits: those of getrlimit(2) without `RLIMIT_`, in lower
/// case.
const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// A limit: `NAME=SOFT[:HARD]` in the units of getrlimit(2); -1 or `unlimited`
/// means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    name: &'static str,
    resource: Resource,
    limit: Rlimit,
}

impl FromStr for Ulimit {
    type Err = Error;

    /// # Errors
    /// Says what is wrong: the form, the name, a number, or a soft limit above
    /// the hard one.
    fn from_str(text: &str) -> Result<Self> {
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| anyhow!("use NAME=SOFT[:HARD], as in nofile=1024:2048"))?;
        let Some(&(name, resource)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            bail!(
                "{name:?} is not a limit: available are {}",
                names.join(", ")
            );
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let limit = Rlimit {
            current: number(soft)?,
            maximum: number(hard)?,
        };
        ensure!(
            limit.current.unwrap_or(u64::MAX) <= limit.maximum.unwrap_or(u64::MAX),
            "the soft limit {soft} is above the hard limit {hard}"
        );
        Ok(Ulimit {
            name,
            resource,
            limit,
        })
    }
}

impl Ulimit {
    /// Refuses a limit that this process may not set without
    /// `CAP_SYS_RESOURCE`: one above its own hard limit.
    pub fn require_possible(&self) -> Result<()> {
        let own = getrlimit(self.resource).maximum;
        if own.unwrap_or(u64::MAX) >= self.limit.maximum.unwrap_or(u64::MAX) {
            return Ok(());
        }
        Err(refused(Errno::PERM, self.resource)).with_context(|| format!("{self}"))
    }
}

fn number(text: &str) -> Result<Option<u64>> {
    match text {
        "-1" | "unlimited" => Ok(None),
        _ => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("{text:?} is not a number; -1 means no limit"),
        },
    }
}

/// The isolation that sets limits for the container's processes, which inherit
/// them.
pub struct Ulimits(Vec<Ulimit>);

impl Ulimits {
    /// An isolation that sets these limits.
    pub fn new(limits: Vec<Ulimit>) -> Self {
        Ulimits(limits)
    }
}

impl Isolation for Ulimits {
    fn name(&self) -> &'static str {
        "ulimit"
    }

    /// Sets the limits at the very end, so that those of the command do not
    /// limit its set-up, but before capabilities are dropped: raising a hard
    /// limit needs `CAP_SYS_RESOURCE`.
    fn before_exec(&mut self) -> Result<()> {
        for Ulimit {
            name,
            resource,
            limit,
        } in &self.0
        {
            setrlimit(*resource, *limit)
                .map_err(|errno| refused(errno, *resource))
                .with_context(|| format!("--ulimit {name}: setrlimit"))?;
        }
        Ok(())
    }
}

fn refused(errno: Errno, resource: Resource) -> Error {
    let error = Error::from(errno);
    match (errno, getrlimit(resource).maximum) {
        (Errno::PERM, Some(now)) => error.context(format!(
            "the hard limit is {now}, and raising it needs CAP_SYS_RESOURCE on the host: stay \
             below"
        )),
        _ => error,
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |n| n.to_string());
        let Rlimit { current, maximum } = self.limit;
        write!(f, "{}={}:{}", self.name, shown(current), shown(maximum))
    }
}

kit::serde_as_text!(Ulimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_name_and_one_or_two_numbers() {
        let limit: Ulimit = "nofile=10:-1".parse().unwrap();
        assert_eq!(limit.name, "nofile");
        assert_eq!((limit.limit.current, limit.limit.maximum), (Some(10), None));
        let limit: Ulimit = "core=0".parse().unwrap();
        assert_eq!(limit.limit.maximum, Some(0));
        for (text, why) in [
            ("nofile", "NAME=SOFT"),
            ("files=1", "available are as, core"),
            ("nofile=x", "not a number"),
            ("nofile=3:2", "above the hard"),
        ] {
            let error = text.parse::<Ulimit>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

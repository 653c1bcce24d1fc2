//! The options, in Docker's spelling.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::capabilities::CapabilityArg;
use crate::sysctl::Sysctl;
use crate::time::TimeOffset;

/// The options of capabilities, system calls and kernel parameters.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Hardening (step 10)")]
pub struct HardenSettings {
    /// Security option: seccomp=builtin (the default filter of system calls),
    /// seccomp=FILE (a profile in Docker's JSON), seccomp=unconfined (none),
    /// no-new-privileges[=true|false], apparmor=PROFILE, label=disable.
    /// Repeatable: the last of a kind applies
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<SecurityOpt>,

    /// Add a capability (capabilities(7)), as in SYS_TIME, or ALL. Repeatable
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<CapabilityArg>,

    /// Drop a capability, or ALL. Repeatable
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<CapabilityArg>,

    /// Set a kernel parameter of the container's namespaces: net.*, fs.mqueue.*,
    /// or of System V IPC, as in kernel.shmmax. Repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<Sysctl>,

    /// Shift a clock, monotonic or boottime, in a time namespace. Repeatable
    #[arg(long, value_name = "CLOCK=SECONDS")]
    pub time_offset: Vec<TimeOffset>,

    /// Tune the preference of the OOM killer, from -1000 (never) to 1000 (first)
    /// [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,

    /// Give extended privileges to the container: all capabilities and devices,
    /// no seccomp filter, nothing of /proc and /sys masked or read-only
    #[arg(long)]
    pub privileged: bool,
}

/// A value of `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityOpt {
    /// The filter over system calls.
    Seccomp(Seccomp),
    /// Whether `PR_SET_NO_NEW_PRIVS` is set.
    NoNewPrivileges(bool),
    /// The AppArmor profile of the command.
    AppArmor(String),
    /// SELinux: only `disable` is supported.
    Label(String),
}

/// Which filter applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The default profile.
    #[default]
    Builtin,
    /// None.
    Unconfined,
    /// The profile in this file.
    File(PathBuf),
}

impl FromStr for SecurityOpt {
    type Err = Error;

    /// Reads `seccomp=FILE`. Docker's older spelling has a colon.
    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let needs = || {
            value
                .filter(|value| !value.is_empty())
                .context("it needs a value")
        };
        Ok(match name {
            "seccomp" => SecurityOpt::Seccomp(match needs()? {
                "builtin" => Seccomp::Builtin,
                "unconfined" => Seccomp::Unconfined,
                file => Seccomp::File(file.into()),
            }),
            "no-new-privileges" => SecurityOpt::NoNewPrivileges(match value {
                None | Some("true") => true,
                Some("false") => false,
                Some(other) => bail!("no-new-privileges is true or false, not {other:?}"),
            }),
            "apparmor" => SecurityOpt::AppArmor(needs()?.to_owned()),
            "label" => SecurityOpt::Label(needs()?.to_owned()),
            _ => bail!(
                "{name:?} is unknown: there are seccomp, no-new-privileges, apparmor and label"
            ),
        })
    }
}

impl fmt::Display for SecurityOpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecurityOpt::Seccomp(Seccomp::Builtin) => f.write_str("seccomp=builtin"),
            SecurityOpt::Seccomp(Seccomp::Unconfined) => f.write_str("seccomp=unconfined"),
            SecurityOpt::Seccomp(Seccomp::File(file)) => write!(f, "seccomp={}", file.display()),
            SecurityOpt::NoNewPrivileges(set) => write!(f, "no-new-privileges={set}"),
            SecurityOpt::AppArmor(profile) => write!(f, "apparmor={profile}"),
            SecurityOpt::Label(label) => write!(f, "label={label}"),
        }
    }
}

kit::serde_as_text!(SecurityOpt);

impl HardenSettings {
    /// Makes the names of profiles independent of this process's directory.
    pub fn with_absolute_paths(mut self) -> Result<Self> {
        for opt in &mut self.security_opt {
            if let SecurityOpt::Seccomp(Seccomp::File(file)) = opt {
                *file = std::path::absolute(&*file)
                    .with_context(|| format!("--security-opt seccomp={}", file.display()))?;
            }
        }
        Ok(self)
    }

    /// Whether the command may look into processes of others that it can see
    /// (ptrace(2)).
    pub fn may_trace(&self) -> bool {
        self.privileged
            || self.cap_add.iter().any(|cap| match cap {
                CapabilityArg::All => true,
                CapabilityArg::One(one) => one.contains(CapabilitySet::SYS_PTRACE),
            })
    }

    /// The filter. `None` if there is to be none.
    pub fn seccomp(&self) -> Option<Seccomp> {
        let chosen = self.security_opt.iter().rev().find_map(|opt| match opt {
            SecurityOpt::Seccomp(seccomp) => Some(seccomp.clone()),
            _ => None,
        });
        match chosen {
            Some(Seccomp::Unconfined) => None,
            None if self.privileged => None,
            chosen => Some(chosen.unwrap_or_default()),
        }
    }

    /// Whether set-user-ID programs and file capabilities lose their power.
    pub fn no_new_privileges(&self) -> bool {
        let chosen = self.security_opt.iter().rev().find_map(|opt| match opt {
            SecurityOpt::NoNewPrivileges(set) => Some(*set),
            _ => None,
        });
        chosen.unwrap_or(false)
    }

    /// The AppArmor profile. `None` if none was asked for.
    pub fn apparmor(&self) -> Option<&str> {
        let chosen = self.security_opt.iter().rev().find_map(|opt| match opt {
            SecurityOpt::AppArmor(profile) => Some(profile.as_str()),
            _ => None,
        });
        chosen.filter(|profile| *profile != "unconfined")
    }

    /// The SELinux labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.security_opt.iter().filter_map(|opt| match opt {
            SecurityOpt::Label(label) => Some(label.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_kind_counts() {
        let with = |opts: &[&str]| HardenSettings {
            security_opt: opts.iter().map(|opt| opt.parse().unwrap()).collect(),
            ..HardenSettings::default()
        };
        let both = with(&["seccomp=/p.json", "seccomp=unconfined", "no-new-privileges"]);
        assert_eq!(both.seccomp(), None);
        assert!(both.no_new_privileges());
        assert_eq!(with(&[]).seccomp(), Some(Seccomp::Builtin));
        assert_eq!(
            with(&["seccomp:p"]).seccomp(),
            Some(Seccomp::File("p".into()))
        );
        assert!(!with(&["no-new-privileges", "no-new-privileges=false"]).no_new_privileges());
        let privileged = HardenSettings {
            privileged: true,
            ..with(&["apparmor=unconfined"])
        };
        assert_eq!((privileged.seccomp(), privileged.apparmor()), (None, None));
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<HardenSettings>(&json).unwrap(), both);
        for wrong in [
            "",
            "seccomp",
            "seccomp=",
            "no-new-privileges=yes",
            "systempaths=x",
        ] {
            assert!(wrong.parse::<SecurityOpt>().is_err(), "{wrong}");
        }
    }
}

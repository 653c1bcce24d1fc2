//! The scope of a container.

use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cgroups::named::{Interface, NamedGroup, Verdict};
use kit::{say, sys};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, geteuid};
use serde::{Deserialize, Serialize};

use crate::config::Resources;
use crate::launch::resources::weight_of_shares;
use crate::systemd::bus::{self, Bus, Properties, Value};
use crate::systemd::devices;

/// A scope of systemd's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    name: String,
    slice: String,
}

impl Scope {
    /// The scope that `linux.cgroupsPath` names in runc's form,
    /// `slice:prefix:name`, for the container `id`.
    ///
    /// # Errors
    /// Another form; names that no unit can have.
    pub(crate) fn plan(path: &str, id: &str) -> Result<Scope> {
        let default = match geteuid().is_root() {
            true => "system.slice",
            false => "user.slice",
        };
        let (slice, prefix, name) = match path.split(':').collect::<Vec<_>>()[..] {
            [""] => ("", "drydock", id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => bail!(
                "linux.cgroupsPath {path:?}: with --systemd-cgroup it has the form \
                 slice:prefix:name"
            ),
        };
        let slice = match slice {
            "" => default,
            slice => slice,
        };
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let usual =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '\\');
        for unit in [slice, &name] {
            ensure!(
                unit.len() < 256 && unit.chars().all(usual) && !unit.starts_with('.'),
                "linux.cgroupsPath {path:?}: {unit:?} is no name of a unit"
            );
        }
        expand(slice).with_context(|| format!("linux.cgroupsPath {path:?}"))?;
        Ok(Scope {
            name,
            slice: slice.to_owned(),
        })
    }

    /// The path of its group.
    pub(crate) fn group(&self) -> Result<PathBuf> {
        let top = Bus::connect()?.control_group()?;
        // The manager itself may be in a scope of its own.
        let top = top.strip_suffix("/init.scope").unwrap_or(&top);
        let top = Path::new("/").join(top.trim_start_matches('/'));
        Ok(top.join(expand(&self.slice)?).join(&self.name))
    }

    /// Starts the scope with the process `first` in it.
    pub(crate) fn start(
        &self,
        first: Pid,
        group: &NamedGroup,
        resources: &Resources,
        verdicts: Option<&[Verdict]>,
    ) -> Result<()> {
        let mut all: Properties = vec![
            (
                "Description",
                Value::Text(format!("container {}", self.name)),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            ("PIDs", Value::Numbers(vec![first.as_raw() as u32])),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            ("IOAccounting", Value::Bool(true)),
        ];
        all.extend(properties(group, resources));
        if let Some(verdicts) = verdicts {
            all.extend(devices::properties(verdicts)?);
        }
        let mut bus = Bus::connect()?;
        say!("systemd: start {} in {}", self.name, self.slice);
        match bus.start(&self.name, &all) {
            // What a killed runtime has left, or one that has failed.
            Err(error) if bus::is(&error, "UnitExists") => {
                bus.forget(&self.name).context(error)?;
                bus.start(&self.name, &all)
            }
            started => started,
        }
    }

    /// Tells systemd of other limits: it would restore those that it knows.
    pub(crate) fn update(&self, group: &NamedGroup, resources: &Resources) -> Result<()> {
        let all = properties(group, resources);
        match all.is_empty() {
            true => Ok(()),
            false => Bus::connect()?.set(&self.name, &all),
        }
    }

    /// Ends the scope, and its processes. One that does not exist has ended.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut bus = Bus::connect()?;
        match bus.stop(&self.name) {
            Err(error) if bus::is(&error, "NoSuchUnit") => Ok(()),
            stopped => stopped,
        }?;
        match bus.forget(&self.name) {
            Err(error) if bus::is(&error, "NoSuchUnit") => Ok(()),
            forgotten => forgotten,
        }
    }
}

/// The path of a slice: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<PathBuf> {
    if slice == "-.slice" {
        return Ok(PathBuf::new());
    }
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty());
    let name = name.with_context(|| format!("{slice:?} is no slice: it ends with .slice"))?;
    let mut path = PathBuf::new();
    let mut way = String::new();
    for part in name.split('-') {
        ensure!(!part.is_empty(), "{slice:?} is no slice: a name is empty");
        if !way.is_empty() {
            way.push('-');
        }
        way.push_str(part);
        path.push(format!("{way}.slice"));
    }
    Ok(path)
}

/// The limits that systemd has properties for.
fn properties(group: &NamedGroup, resources: &Resources) -> Properties {
    let mut all = Properties::new();
    let is_v2 = |controller| group.interface(controller) == Some(Interface::V2);
    // -1 is no limit, 0 nothing said.
    let limit = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    let memory = resources.memory.as_ref();
    if let Some(bytes) = memory.and_then(|memory| memory.limit).filter(|n| *n != 0) {
        let name = match is_v2("memory") {
            true => "MemoryMax",
            false => "MemoryLimit",
        };
        all.push((name, Value::Number(limit(bytes))));
    }
    let cpu = resources.cpu.clone().unwrap_or_default();
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        all.push(match is_v2("cpu") {
            true => ("CPUWeight", Value::Number(weight_of_shares(shares))),
            false => ("CPUShares", Value::Number(shares)),
        });
    }
    let period = cpu.period.filter(|n| *n != 0).unwrap_or(100_000);
    if let Some(quota) = cpu.quota.filter(|n| *n != 0) {
        // Microseconds a second, which systemd rounds to 10 milliseconds.
        let a_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            (exact.div_ceil(10_000) * 10_000) as u64
        });
        all.push(("CPUQuotaPerSecUSec", Value::Number(a_second)));
    }
    let pids = resources.pids.as_ref();
    if let Some(most) = pids.and_then(|pids| pids.limit).filter(|n| *n != 0) {
        all.push(("TasksMax", Value::Number(limit(most))));
    }
    all
}

/// A process that is in the scope until the container is: systemd starts no
/// scope without processes, and ends it with the last.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pub pid: Pid,
    /// It ends when nobody has this end any more.
    until: Option<PipeWriter>,
}

impl Placeholder {
    pub(crate) fn start() -> Result<Placeholder> {
        let (reader, writer) = pipe().context("pipe")?;
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Placeholder {
                pid: child,
                until: Some(writer),
            }),
            ForkResult::Child => sys::exit(u8::from(wait(reader).is_err())),
        }
    }

    /// The end that the child keeps until it is in the scope.
    pub(crate) fn until(&self) -> Option<BorrowedFd<'_>> {
        self.until.as_ref().map(AsFd::as_fd)
    }

    /// Host: leaves the end to the child.
    pub(crate) fn leave(&mut self) {
        self.until = None;
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.until = None;
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                Ok(_) | Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(errno).context("waitpid"),
            }
        }
    }
}

fn wait(mut reader: PipeReader) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    sys::close_all_but(reader.as_fd())?;
    reader.read(&mut [0]).context("read")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_systemd_has_three_parts() {
        let scope = Scope::plan("a-b.slice:pre:name", "id").unwrap();
        assert_eq!(scope.name, "pre-name.scope");
        assert_eq!(
            expand(&scope.slice).unwrap(),
            Path::new("a.slice/a-b.slice")
        );
        assert_eq!(Scope::plan("", "id").unwrap().name, "drydock-id.scope");
        assert_eq!(Scope::plan("-.slice::n", "id").unwrap().name, "n.scope");
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a..slice:b/..:c",
            ".slice:b:c",
            "a.slice:b:../c",
            "a--b.slice:x:y",
            "-a.slice:x:y",
            "a.slice:x:y:z",
        ] {
            assert!(Scope::plan(bad, "id").is_err(), "{bad}");
        }
    }
}

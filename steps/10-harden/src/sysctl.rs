//! `--sysctl`: parameters of the kernel that a namespace has for itself
//! (proc_sys(5)). All others belong to the host, and are refused.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use process::Isolation;

/// A parameter and its value: `net.core.somaxconn=1024`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    name: String,
    value: String,
}

/// The namespace to which a parameter belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Ipc,
    Net,
    Uts,
}

/// The parameters of an IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

impl FromStr for Sysctl {
    type Err = Error;

    /// Reads `NAME=VALUE`. A slash in a name stands for a dot that separates
    /// nothing, as in `net.ipv4.conf.eth0/100.forwarding` (sysctl.d(5)).
    ///
    /// # Errors
    /// A parameter that is the host's, or no name of one.
    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("write NAME=VALUE")?;
        let fits = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
            !part.is_empty() && !part.starts_with('/') && part.chars().all(fits)
        };
        ensure!(
            name.split('.').all(fits),
            "{name:?} is not the name of a parameter"
        );
        let sysctl = Sysctl {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        sysctl.owner().with_context(|| {
            format!("{name} belongs to the host: no namespace has one of its own")
        })?;
        Ok(sysctl)
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

kit::serde_as_text!(Sysctl);

impl Sysctl {
    fn owner(&self) -> Option<Owner> {
        if self.name.starts_with("net.") {
            return Some(Owner::Net);
        }
        if self.name == "kernel.domainname" {
            return Some(Owner::Uts);
        }
        let ipc = IPC.contains(&self.name.as_str()) || self.name.starts_with("fs.mqueue.");
        ipc.then_some(Owner::Ipc)
    }

    fn file(&self) -> PathBuf {
        let swapped = self.name.chars().map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        });
        PathBuf::from("/proc/sys").join(swapped.collect::<String>())
    }
}

/// The isolation that sets parameters. Add it after `Net`, and before `Mount`,
/// which makes /proc/sys read-only.
pub struct Sysctls {
    sysctls: Vec<Sysctl>,
    ipc: Option<String>,
    net: Option<String>,
    uts: Option<String>,
}

impl Sysctls {
    /// An isolation that sets these.
    pub fn new(sysctls: Vec<Sysctl>) -> Self {
        Sysctls {
            sysctls,
            ipc: None,
            net: None,
            uts: None,
        }
    }
}

fn namespace(kind: &str) -> Result<String> {
    let link = format!("/proc/self/ns/{kind}");
    let target = fs::read_link(&link).with_context(|| format!("readlink {link}"))?;
    Ok(target.to_string_lossy().into_owned())
}

impl Isolation for Sysctls {
    fn name(&self) -> &'static str {
        "sysctl"
    }

    fn prepare(&mut self) -> Result<()> {
        if !self.sysctls.is_empty() {
            self.ipc = Some(namespace("ipc")?);
            self.net = Some(namespace("net")?);
            self.uts = Some(namespace("uts")?);
        }
        Ok(())
    }

    // ANCHOR: sysctls
    fn in_container(&mut self) -> Result<()> {
        // ANCHOR: exercise_set
        for sysctl in &self.sysctls {
            // The file shows the parameter of whoever writes it. In the host's
            // namespace that would be the host's.
            let (kind, outside) = match sysctl.owner() {
                Some(Owner::Ipc) => ("ipc", &self.ipc),
                Some(Owner::Net) => ("net", &self.net),
                Some(Owner::Uts) => ("uts", &self.uts),
                None => bail!("{} belongs to the host", sysctl.name),
            };
            ensure!(
                *outside != Some(namespace(kind)?),
                "--sysctl {}: the container shares the host's {kind} namespace: it would be the \
                 host's",
                sysctl.name
            );
            let file = sysctl.file();
            fs::write(&file, &sysctl.value)
                .with_context(|| format!("write {:?} to {}", sysctl.value, file.display()))?;
        }
        Ok(())
        // ANCHOR_END: exercise_set
    }
    // ANCHOR_END: sysctls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_namespace_has() {
        for good in [
            "net.core.somaxconn=10",
            "kernel.sem=1 2 3 4",
            "fs.mqueue.msg_max=5",
        ] {
            assert_eq!(good.parse::<Sysctl>().unwrap().to_string(), good);
        }
        for bad in [
            "kernel.core_pattern=|/x",
            "vm.overcommit_memory=1",
            "net",
            "net/../kernel/core_pattern=x",
            "net..kernel=x",
            "net.core/../../x=1",
            "fs.mqueue.=1",
            "kernel.hostname=x",
            "=1",
        ] {
            assert!(bad.parse::<Sysctl>().is_err(), "{bad}");
        }
        let file = "net.core.somaxconn=1".parse::<Sysctl>().unwrap().file();
        assert_eq!(file, PathBuf::from("/proc/sys/net/core/somaxconn"));
    }
}

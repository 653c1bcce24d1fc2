//! The value of `--network`, in Docker's terms.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use nix::unistd::Pid;
use uts::NamespaceMode;

/// The network of a container: `none`, `host`, `bridge` or `container:PID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// A namespace with a loopback device and nothing else.
    None,
    /// The network namespace of the launcher: no isolation.
    Host,
    /// A namespace that the bridge connects to the other containers and the
    /// host.
    Bridge,
    /// The namespace of a running process, by its PID as the launcher sees it.
    Container(Pid),
}

impl NetworkMode {
    /// The mode of the network namespace: both `none` and `bridge` begin with a
    /// new one.
    pub fn namespace(self) -> NamespaceMode {
        match self {
            NetworkMode::None | NetworkMode::Bridge => NamespaceMode::Private,
            NetworkMode::Host => NamespaceMode::Host,
            NetworkMode::Container(pid) => NamespaceMode::Container(pid),
        }
    }
}

impl FromStr for NetworkMode {
    type Err = Error;

    /// Reads a mode. The error lists the choices.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => return Ok(NetworkMode::None),
            "bridge" => return Ok(NetworkMode::Bridge),
            _ => {}
        }
        match text.parse() {
            Ok(NamespaceMode::Host) => Ok(NetworkMode::Host),
            Ok(NamespaceMode::Container(pid)) => Ok(NetworkMode::Container(pid)),
            Err(error) if text.starts_with("container:") => Err(error),
            _ => bail!("use none, host, bridge or container:PID"),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkMode::None => f.write_str("none"),
            NetworkMode::Bridge => f.write_str("bridge"),
            NetworkMode::Host | NetworkMode::Container(_) => self.namespace().fmt(f),
        }
    }
}

kit::serde_as_text!(NetworkMode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_spelled_as_it_is_shown() {
        for text in ["none", "host", "bridge", "container:4711"] {
            assert_eq!(text.parse::<NetworkMode>().unwrap().to_string(), text);
        }
        for text in ["", "private", "Bridge", "container:", "container:0", "eth0"] {
            assert!(text.parse::<NetworkMode>().is_err(), "{text} was accepted");
        }
    }
}

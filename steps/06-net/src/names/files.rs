//! The container's files for name resolution: /etc/resolv.conf, /etc/hosts and
//! /etc/hostname (resolv.conf(5), hosts(5), hostname(5)).
//!
//! They are next to the state on the host, or where the engine keeps them, and
//! step 04 mounts them into the container. So the root file system is unchanged, and may be read-only or
//! shared by several containers.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::NetSettings;
use crate::cli::mode::NetworkMode;
use crate::names::resolv;
use kit::own::{make, remove_file};
use kit::warn;

/// The files' names below /etc.
pub(crate) const NAMES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// The contents of one container's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// /etc/resolv.conf.
    pub resolv_conf: String,
    /// /etc/hosts.
    pub hosts: String,
    /// /etc/hostname.
    pub hostname: String,
}

impl Files {
    /// Composes the files of a container with this host name and, on a bridge,
    /// this address and that of the host. A container in the network of the host or of
    /// another container gets a copy of that one's resolv.conf and hosts.
    pub(crate) fn of(
        args: &NetSettings,
        hostname: &str,
        (address, gateway): (Option<Ipv4Addr>, Option<Ipv4Addr>),
    ) -> Result<Self> {
        let own = || resolv::hosts(hostname, address, &args.add_host, gateway);
        let (resolv_conf, hosts) = match args.mode() {
            _ if !args.joining.is_empty() => (Some(resolv::for_resolver(&args.dns)?), None),
            NetworkMode::Bridge => {
                let (text, lost) = resolv::for_bridge(&args.dns)?;
                if lost {
                    warn!("net: containers can reach none of the host's name servers: use --dns");
                }
                (Some(text), None)
            }
            NetworkMode::None => (None, None),
            NetworkMode::Host => (
                resolv::read("/etc/resolv.conf")?,
                resolv::read("/etc/hosts")?,
            ),
            NetworkMode::Container(pid) => (
                resolv::read_of_container(pid, "/etc/resolv.conf"),
                resolv::read_of_container(pid, "/etc/hosts"),
            ),
        };
        Ok(Files {
            resolv_conf: resolv_conf.unwrap_or_default(),
            hosts: hosts.unwrap_or_else(own),
            hostname: format!("{hostname}\n"),
        })
    }

    /// Creates `directory` and writes the files into it; or beside `kept`, with
    /// links to them in `directory`, which is in memory and which no container
    /// may fill.
    pub(crate) fn write(&self, directory: &Path, kept: Option<&Path>) -> Result<()> {
        // Any user of the container may read them, whatever the umask.
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .with_context(|| format!("chmod({path:?})"))
        };
        fs::create_dir_all(directory).with_context(|| format!("mkdir({directory:?})"))?;
        allow(directory, 0o755)?;
        let contents = [&self.resolv_conf, &self.hosts, &self.hostname];
        for (name, content) in NAMES.iter().zip(contents) {
            let mut path = directory.join(name);
            if let Some(kept) = kept {
                let link = path;
                path = beside(kept, name);
                make(path.parent().unwrap_or(kept), 0o711)?;
                // First, so that whoever removes the link removes the file.
                symlink(&path, &link).with_context(|| format!("symlink({link:?})"))?;
                // That of an earlier start may belong to anybody.
                remove_file(&path)?;
            }
            write(&path, content)?;
            allow(&path, 0o644)?;
        }
        Ok(())
    }
}

/// The path of a file that is kept elsewhere: `KEPT-hosts`.
fn beside(kept: &Path, name: &str) -> PathBuf {
    let mut path = kept.as_os_str().to_owned();
    path.push("-");
    path.push(name);
    path.into()
}

/// Removes the files in `directory`, those that its links lead to, and the
/// directory.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    for name in NAMES {
        let link = directory.join(name);
        match fs::read_link(&link) {
            Ok(kept) => remove_file(&kept)?,
            // EINVAL: a file of its own.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            }
            Err(error) => return Err(error).with_context(|| format!("readlink({link:?})")),
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("rmdir({directory:?})"))
        }
        _ => Ok(()),
    }
}

/// Writes one of the files. An existing one stays the same file, as it may be
/// mounted.
pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {path:?}"))
}

/// The files in `directory`, each with its place in the container.
pub(crate) fn places(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    NAMES
        .iter()
        .map(|name| (directory.join(name), Path::new("/etc").join(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_read_the_files() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("7");
        let args = NetSettings {
            add_host: vec!["db:10.0.0.9".parse().unwrap()],
            ..NetSettings::default()
        };
        let files = Files::of(&args, "box", (None, None)).unwrap();
        files.write(&directory, None).unwrap();
        let hosts = directory.join("hosts");
        assert!(
            fs::read_to_string(&hosts)
                .unwrap()
                .ends_with("10.0.0.9\tdb\n")
        );
        let mode = fs::metadata(&hosts).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn files_kept_elsewhere_go_with_their_links() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("7");
        let kept = base.path().join("etc/box");
        let files = Files {
            hosts: "one".into(),
            ..Files::default()
        };
        for _ in 0..2 {
            files.write(&directory, Some(&kept)).unwrap();
            let hosts = base.path().join("etc/box-hosts");
            assert_eq!(fs::read_to_string(directory.join("hosts")).unwrap(), "one");
            assert!(fs::symlink_metadata(&hosts).unwrap().is_file());
            remove(&directory).unwrap();
            assert!(!hosts.exists() && !directory.exists());
        }
        remove(&directory).unwrap();
    }
}

//! The engine's list: one row an isolation, in order, each with the reason why it
//! stands where it does. No other file of the engine calls `with`.

use std::path::PathBuf;

use anyhow::Result;
use cgroups::Cgroups;
use ipc::Ipc;
use mount::{Mount, MountSettings, Privileges, RootTree};
use net::Net;
use pid::PidNamespace;
use process::{Command, Container};
use union::{Union, UnionSettings};
use user::{Credentials, User};
use uts::Uts;

use crate::cli::places::Places;
use crate::command::devices;
use crate::command::hardening::Hardening;
use crate::command::ulimit::Ulimits;
use crate::command::workdir::Workdir;
use crate::container::Records;
use crate::container::keeper::{Ending, Keeper};
use crate::spec::Spec;
use crate::terminal::Streams;
use crate::volume::Volumes;
use crate::volume::mounts::VolumeMounts;

/// What only this process knows of a container that it starts.
#[derive(Clone, Debug)]
pub struct Here<'a> {
    /// Where images, layers, volumes and records are kept.
    pub places: &'a Places,
    /// A file of the caller's, to write the container's id into.
    pub cidfile: Option<PathBuf>,
}

/// The container that `spec` describes, and what is to be called with its end.
///
/// `prepare` and `on_host` are called from top to bottom on the host,
/// `in_container` and `before_exec` from top to bottom in the child, `cleanup`
/// from bottom to top.
///
/// # Errors
/// For what does not go together, and those of opening the storage driver.
pub fn list(spec: Spec, here: Here<'_>) -> Result<(Container, Ending)> {
    // Members that must know of one another are made first; what one hands to
    // another is in the types of these lines.
    let privileges = match spec.safety.privileged {
        true => Privileges::All,
        false => Privileges::Reduced,
    };
    let users = spec.user.other_users()?;
    let union = union(&spec, &here)?.for_users(users.clone())?;
    let volumes = Volumes::new(&here.places.root);
    let volumes = VolumeMounts::new(volumes, &spec, union.mount_point(), users);
    let mount = MountSettings {
        rootfs: union.mount_point(),
        bind: [volumes.binds(), spec.cgroups.device_binds(RootTree::Own)].concat(),
        tmpfs: spec.files.tmpfs.clone(),
        read_only: spec.files.read_only,
        ..MountSettings::default()
    };
    let net = Net::new(spec.net.clone()).hostname(spec.uts.hostname.clone());
    let mount = Mount::new(mount)
        .offer(net.files(RootTree::Own))
        .offer(devices::of_host(privileges)?)
        .privileges(privileges);
    let cgroups = Cgroups::new(spec.cgroups.clone()).privileges(privileges);
    let view = cgroups.view(RootTree::Own);
    let credentials = Credentials::new(&spec.user);
    let streams = Streams::new(
        spec.interactive,
        spec.tty,
        credentials.owner(),
        spec.user.opens_as_caller(),
    )?;
    let keeper = Keeper::new(
        Records::new(here.places),
        spec.clone(),
        here.cidfile,
        union.found_dead(),
    )?;
    let ending = keeper.ending();
    let command = Command {
        argv: spec.command,
        env: spec.env,
    };
    let container = Container::new(command)
        .keep_terminal()
        // The record comes before all else and goes after it: whoever finds it
        // finds what is left.
        .with(keeper)
        // The kernel makes the user namespace before the others of the same
        // clone(2), which then belong to it; whatever follows is root in it.
        .with(User::new(spec.user))
        // Limits are set before anything runs, and the child enters its group
        // before it makes anything that counts.
        .with(cgroups)
        .with(Uts::new(spec.uts))
        .with(Ipc::new(spec.ipc))
        // An init forks in `before_exec`: what it shall be limited by and has to
        // give up comes before it. It stays root, to signal its children, so
        // credentials come after.
        .with(Ulimits::new(spec.ulimits))
        .with(Hardening::new(spec.safety))
        .with(PidNamespace::new(spec.pids))
        // Before the root is another one: it reads the host's /proc/sys.
        .with(net)
        // The root, then what is filled from it, then the mounts on it.
        .with(union)
        .with(volumes)
        .with(mount)
        // In the container's root, of which each of these opens something.
        .with(view)
        .with(Workdir::new(spec.workdir))
        // It duplicates streams over the launcher's: nothing after it speaks.
        .with(streams)
        // Last: names are looked up in the container's own files, and everything
        // above needs the rights that this gives up.
        .with(credentials);
    Ok((container, ending))
}

fn union(spec: &Spec, here: &Here<'_>) -> Result<Union> {
    let settings = UnionSettings {
        driver: Some(spec.driver),
        layer: Some(spec.layer.clone()),
        name: Some(spec.id.parse()?),
        keep: !spec.auto_remove,
        root: Some(here.places.root.clone()),
    };
    Ok(Union::on_image(settings)?.share_init())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Safety;
    use crate::volume::options::Files;
    use std::fs;
    use union::Kind;

    fn spec() -> Spec {
        Spec {
            id: "0123456789abcdef".repeat(4),
            name: "one".into(),
            image: "box".into(),
            image_id: String::new(),
            layer: "l1".parse().unwrap(),
            driver: Kind::Vfs,
            command: vec!["true".into()],
            env: Vec::new(),
            workdir: "/".into(),
            interactive: false,
            tty: false,
            uts: Default::default(),
            ipc: Default::default(),
            pids: Default::default(),
            files: Files::default(),
            user: Default::default(),
            net: Default::default(),
            cgroups: Default::default(),
            ulimits: vec!["nofile=10:20".parse().unwrap()],
            safety: Safety::default(),
            labels: Default::default(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: 10,
            auto_remove: true,
        }
    }

    #[test]
    fn the_order_is_this_one() {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            root: root.path().to_owned(),
            state: root.path().join("containers"),
        };
        let here = Here {
            places: &places,
            cidfile: None,
        };
        let (container, _) = list(spec(), here).unwrap();
        assert_eq!(
            container.isolations(),
            [
                "record",
                "user",
                "cgroups",
                "uts",
                "ipc",
                "ulimit",
                "hardening",
                "pid",
                "net",
                "union",
                "volumes",
                "mount",
                "cgroup view",
                "workdir",
                "terminal",
                "credentials"
            ]
        );
    }

    #[test]
    fn a_spec_is_a_document() {
        let spec = spec();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }

    #[test]
    fn there_is_no_other_list() {
        let steps = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut folders = vec![steps.into()];
        let mut lists = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir::<PathBuf>(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs")
                    && path.iter().any(|folder| folder == "src")
                    && fs::read_to_string(&path)
                        .unwrap()
                        .contains("\n        .with(")
                {
                    lists.push(path);
                }
            }
        }
        // A step has its own in `main.rs`.
        let others: Vec<_> = lists
            .iter()
            .filter(|path| !path.ends_with("src/main.rs"))
            .collect();
        assert!(
            matches!(others[..], [list] if list.ends_with("09-run/src/list.rs")),
            "{others:?}"
        );
        assert!(
            !lists
                .iter()
                .any(|list| list.ends_with("09-run/src/main.rs"))
        );
    }
}

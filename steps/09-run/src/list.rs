//! The engine's list: one row per isolation, each with the reason for its
//! position. No other file of the engine calls `with`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cgroups::Cgroups;
use harden::{Harden, Sysctls, TimeNamespace, Told};
use ipc::Ipc;
use mount::{Mount, MountSettings, Privileges, RootTree};
use net::Net;
use pid::PidNamespace;
use process::{Command, Container};
use union::{Harvest, Union, UnionSettings};
use user::{Credentials, User};
use uts::Uts;

use crate::cli::places::Places;
use crate::command::devices;
use crate::command::environment::with_hostname;
use crate::command::inherited::{Inherited, SessionKeyring};
use crate::command::ulimit::Ulimits;
use crate::command::workdir::Workdir;
use crate::container::keeper::{Ending, Keeper};
use crate::container::{Record, Records};
use crate::spec::Spec;
use crate::terminal::Streams;
use crate::terminal::handed::Ends;
use crate::volume::Volumes;
use crate::volume::beside::{Beside, Secret};
use crate::volume::mounts::VolumeMounts;

/// What a start needs besides the [`Spec`]: facts of this process only.
#[derive(Clone, Debug)]
pub struct Here<'a> {
    /// The directories of images, layers, volumes and records.
    pub places: &'a Places,
    /// A file to create, with the container's id in it (`--cidfile`).
    pub cidfile: Option<PathBuf>,
    /// The record of the container if it exists already, which a launcher that
    /// stays has made.
    pub record: Option<Record>,
    /// Where the launcher's ends of the standard streams go; `None` if the
    /// command gets the caller's streams.
    pub ends: Option<Ends>,
    /// What becomes of the container's layer if its command succeeds.
    pub harvest: Option<Harvest>,
    /// Secrets, and those of them that are variables: `NAME=VALUE`. Neither is in
    /// the record.
    pub secrets: (Vec<Secret>, Vec<OsString>),
}

/// The layers of a container, with those of its image below.
pub fn layers(spec: &Spec, places: &Places) -> Result<Union> {
    let here = Here {
        places,
        cidfile: None,
        record: None,
        ends: None,
        harvest: None,
        secrets: Default::default(),
    };
    union(spec, &here)
}

/// Builds the container that `spec` describes, and the [`Ending`] to call with
/// the result of its run.
///
/// The launcher calls `prepare`, `joins` and `on_host` from top to bottom on
/// the host, `in_container`, `adjust` and `before_exec` from top to bottom in
/// the child, and `cleanup` from bottom to top. The child calls `seal` last of
/// all, when only execve(2) is left to do.
// ANCHOR: list
pub fn list(spec: Spec, here: Here<'_>) -> Result<(Container, Ending)> {
    // Isolations that depend on one another are made first. Their arguments
    // show what one takes from another.
    let privileges = match spec.harden.privileged {
        true => Privileges::All,
        false => Privileges::Reduced,
    };
    let users = spec.user.other_users()?;
    let union = union(&spec, &here)?.for_users(users.clone())?;
    let volumes = Volumes::new(&here.places.root);
    let volumes = VolumeMounts::new(volumes, &spec, union.mount_point(), users);
    let (secrets, variables) = here.secrets.clone();
    let beside = Beside::new(&here.places.root, spec.driver, &spec.files.viewed, secrets);
    let mount = MountSettings {
        rootfs: union.mount_point(),
        bind: [
            volumes.binds(),
            beside.binds(),
            spec.cgroups.device_binds(RootTree::Own),
        ]
        .concat(),
        tmpfs: spec.files.tmpfs.clone(),
        read_only: spec.files.read_only,
        shm_size: spec.files.shm_size.map(|size| size.0),
        ..MountSettings::default()
    };
    let hostname = spec.uts.hostname_inside()?;
    let files = Records::new(here.places).etc().join(&spec.id);
    let net = Net::new(spec.net.clone())
        .hostname(hostname.clone())
        .files_beside(files);
    let cgroups = Cgroups::new(spec.cgroups.clone()).privileges(privileges);
    let view = cgroups.view(RootTree::Own).beside(&mount);
    let mount = Mount::new(mount)
        .workdir(spec.workdir.clone())
        .offer(net.files(RootTree::Own))
        .offer(devices::of_host(privileges)?)
        .privileges(privileges);
    let oom_kills = cgroups.oom_kills();
    let keyring = match spec.new_keyring {
        true => SessionKeyring::New,
        false => SessionKeyring::Callers,
    };
    let sysctls = Sysctls::new(spec.harden.sysctl.clone());
    let time = TimeNamespace::new(spec.harden.time_offset.clone());
    let programs = here.places.root.join("seccomp");
    let harden = Harden::new(spec.harden.clone()).cached_in(programs);
    let harden = harden.telling(Told {
        id: spec.id.clone(),
        bundle: here.places.root.clone(),
    });
    let seal = harden.seal_of_init();
    let credentials = Credentials::new(&spec.user);
    let streams = match here.ends {
        None => Streams::new(spec.interactive, spec.tty, credentials.owner())?,
        Some(ends) => Streams::handed_over(spec.interactive, spec.tty, credentials.owner(), ends),
    };
    let records = Records::new(here.places);
    let keeper = match here.record {
        None => Keeper::new(records, spec.clone(), here.cidfile, union.found_dead())?,
        Some(record) => Keeper::again(records, record, union.found_dead()),
    };
    let keeper = keeper.counting(oom_kills);
    let ending = keeper.ending();
    let command = Command {
        argv: spec.command,
        env: [with_hostname(spec.env, &hostname), variables].concat(),
    };
    let container = Container::new(command)
        .keep_terminal()
        // First, so that its `cleanup` is last: a container has its name before
        // anything is made for it, and gives it up after everything is removed.
        // By name and record a sweep finds what a killed launcher has left.
        .with(keeper)
        // The user namespace owns the others. clone(2) makes it before them in
        // any case, but namespaces to join are entered in list order
        // (setns(2)). All parts below run in it, as root.
        .with(User::new(spec.user))
        // The child enters its v1 groups and its cgroup namespace before it
        // makes anything that is charged to a group. The v2 group is entered at
        // birth, and `prepare` has set the limits by then.
        .with(cgroups)
        // At any position below `User`: the namespaces exist from the child's
        // birth, and no other part needs the host name.
        .with(Uts::new(spec.uts))
        .with(Ipc::new(spec.ipc))
        // ANCHOR: harden
        // In `before_exec`: the command's limits, what it would inherit from the
        // caller, and the bound of its capabilities. Then `PidNamespace` forks,
        // so that an init has the same limits and restrictions as the command.
        // It stays root, to signal its children, so credentials come later.
        .with(Ulimits::new(spec.ulimits))
        .with(Inherited::new(keyring))
        // After `inherited`, which resets the oom_score_adj that this part may
        // set. Its other half, the filter over system calls, is loaded in
        // `seal`: after everything else, and in an init by `PidNamespace`.
        .with(harden)
        .with(PidNamespace::new(spec.pids).sealed(Some(seal)))
        // ANCHOR_END: harden
        // Before `mount`: its files must exist when `mount` prepares, and it
        // writes to /proc/sys/net, which is read-only in the container's root.
        .with(net)
        // ANCHOR: parameters
        // In the container's own network and IPC namespaces, through the host's
        // /proc: `mount` makes /proc/sys read-only, and an image could put
        // anything in the place of /proc.
        .with(sysctls)
        .with(time)
        // ANCHOR_END: parameters
        // The layers are mounted, volumes are filled from them while nothing
        // covers the image's files, then the volumes, and what else is shown
        // beside the image, are mounted on them and the root changes.
        .with(union)
        .with(volumes)
        .with(beside)
        .with(mount)
        // After pivot_root(2): both open paths of the container's root.
        .with(view)
        .with(Workdir::new(spec.workdir))
        // After `mount`: it opens the container's /dev. After the init has
        // forked: the command leads the session, not the init. Before
        // `credentials`: giving the terminal to the command's user needs root.
        .with(streams)
        // Last: users are looked up in the container's own files, and the parts
        // above need the rights that this one gives up.
        .with(credentials);
    Ok((container, ending))
}
// ANCHOR_END: list

// ANCHOR: union
fn union(spec: &Spec, here: &Here<'_>) -> Result<Union> {
    let settings = UnionSettings {
        driver: Some(spec.driver),
        layer: Some(spec.layer.clone()),
        name: Some(spec.id.parse()?),
        keep: !spec.auto_remove,
        size: spec.layer_size,
        root: Some(here.places.root.clone()),
    };
    let union = Union::on_image(settings)?.harvest(here.harvest.clone());
    if !spec.files.traceless {
        return Ok(union.share_init());
    }
    // A mount needs a file or a directory to be mounted on. In the layer below
    // the container's own it is no change of the container's.
    let files = &spec.files;
    let before_colon = |text: &String| PathBuf::from(text.split(':').next().unwrap_or_default());
    let directories = files.mounted.iter().map(|mounted| mounted.target.clone());
    let directories = directories.chain(files.tmpfs.iter().map(before_colon));
    let secrets = here.secrets.0.iter().map(|secret| secret.target.clone());
    let mut points: Vec<(PathBuf, bool)> = Vec::new();
    points.extend(directories.map(|path| (path, true)));
    points.extend(secrets.map(|path| (path, false)));
    let driver = union::detect::open(spec.driver, &here.places.root)?;
    for viewed in &files.viewed {
        let path = viewed.path.strip_prefix("/").unwrap_or(&viewed.path);
        let found = match path == Path::new("") {
            true => Some(true),
            false => {
                let found = driver.lookup(&viewed.layer, path)?;
                found.iter().find_map(|found| found.what.is_directory())
            }
        };
        points.extend(found.map(|is_directory| (viewed.target.clone(), is_directory)));
    }
    Ok(union.mount_points(points))
}
// ANCHOR_END: union

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::options::RunArgs;
    use crate::volume::options::Files;
    use clap::Parser;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use union::Kind;

    fn spec() -> Spec {
        Spec {
            id: "0123456789abcdef".repeat(4),
            name: "one".into(),
            image: "box".into(),
            image_id: String::new(),
            layer: "l1".parse().unwrap(),
            driver: Kind::Vfs,
            layer_size: None,
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
            harden: Default::default(),
            new_keyring: true,
            labels: Default::default(),
            healthcheck: None,
            entrypoint: 0,
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
            record: None,
            ends: None,
            harvest: None,
            secrets: Default::default(),
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
                "inherited",
                "harden",
                "pid",
                "net",
                "sysctl",
                "time",
                "union",
                "volumes",
                "beside",
                "mount",
                "cgroup view",
                "workdir",
                "terminal",
                "credentials"
            ]
        );
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn a_spec_is_a_document() {
        let line = "run --uts container:7 --hostname one --domainname two --ipc host --pid host --init \
                    --uid-map 0:100000:65536 --gid-map 0:200000:10 --gid-map 10:5:1 --user 33:staff \
                    --network bridge -p 127.0.0.1:80:8080/udp -p 81:81 --ip 10.213.0.9 --ip6 \
                    --subnet 10.213.0.0/24 --dns 9.9.9.9 --dns ::1 --add-host db:fd00::1 \
                    -m 100000001 --memory-swap -1 --memory-reservation 1.5g --cpus 0.125 \
                    --cpuset-cpus 0-2,7 --cpuset-mems 0 --cpu-shares 5 --pids-limit -1 \
                    --blkio-weight 10 --device-read-bps /dev/a:b:1m --device-write-iops /dev/c:7 \
                    --device /dev/null --device /dev/zero:/dev/nought:rw \
                    --device-cgroup-rule=a*:*rwm --device-cgroup-rule=c1:3m --cgroupns host \
                    --cgroup-parent /a/b --ulimit nofile=10:20 --ulimit core=-1 -v data:/data:ro \
                    -v /srv:/srv -v /own --mount type=tmpfs,dst=/t --tmpfs /u:size=1m --read-only \
                    --shm-size 1.5m --group-add 7 --group-add staff --cap-add SYS_TIME --cap-drop all \
                    --security-opt seccomp=/p.json --security-opt no-new-privileges \
                    --sysctl net.core.somaxconn=7 --time-offset boottime=-5 --oom-score-adj -7 box";
        // A rule has blanks in it.
        let words = line.split_whitespace().map(|word| {
            let rule = word.strip_prefix("--device-cgroup-rule=");
            rule.map_or(word.to_owned(), |rule| {
                let (kind, rest) = rule.split_at(1);
                let access = rest.find(['r', 'm']).unwrap();
                let (numbers, access) = rest.split_at(access);
                format!("--device-cgroup-rule={kind} {numbers} {access}")
            })
        });
        let run = Line::try_parse_from(words).unwrap().run;
        let spec = Spec {
            command: vec!["printf".into(), OsString::from_vec(vec![b'a', 0xff])],
            uts: run.uts,
            ipc: run.ipc,
            pids: run.pid,
            files: Files::parse(&run.files, [].iter()).unwrap(),
            user: run.user,
            harden: run.harden,
            net: run.net,
            cgroups: run.cgroups,
            ulimits: run.process.ulimit,
            ..spec()
        };
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        assert_eq!(spec.files.mounted.len(), 3);
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
        // A step has its own in `main.rs`. The runtime's are those that others
        // describe. A further process of a container joins what is there.
        let others: Vec<_> = lists
            .iter()
            .filter(|path| !path.ends_with("src/main.rs"))
            .collect();
        let known = [
            "09-run/src/list.rs",
            "11-runtime/src/list.rs",
            "12-lifecycle/src/copy/list.rs",
            "12-lifecycle/src/exec.rs",
            "14-build/src/build/files.rs",
        ];
        assert!(
            others.len() == known.len()
                && known
                    .iter()
                    .all(|known| others.iter().any(|list| list.ends_with(known))),
            "{others:?}"
        );
        assert!(
            !lists
                .iter()
                .any(|list| list.ends_with("09-run/src/main.rs"))
        );
    }
}

//! The runtime of step 11 under the engines that call it: podman, containerd by
//! its own client and as Kubernetes calls it, dockerd; and the engine beside
//! them, with the same answers and the same registries. Debian's packages, daemons
//! of this test's own, in namespaces that end with it.
//!
//! A part of the course without points: the packages have 300 MB, and what the
//! engines ask of a runtime is in the checks of the step. `tools/test` runs it, as
//! root on this host; vm/setup.sh installs the packages for it.

#[path = "peers/alike.rs"]
mod alike;
#[path = "peers/build.rs"]
mod build;
#[path = "peers/cri.rs"]
mod cri;
#[path = "peers/grpc.rs"]
mod grpc;
#[path = "peers/message.rs"]
mod message;
#[path = "peers/place.rs"]
mod place;
#[path = "peers/registry.rs"]
mod registry;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serial_test::serial;

use cri::{Cri, EXITED, RUNNING};
use place::{Ended, Place, soon};

/// Prints a word every fifth of a second, and ends at SIGTERM.
const TICKS: &str = "trap 'exit 0' TERM; while :; do echo tick; sleep 0.2; done";

/// A client with the options of every call.
struct Client<'a> {
    place: &'a Place,
    options: Vec<String>,
}

impl Client<'_> {
    fn run(&self, words: &[&str]) -> Result<Ended> {
        let options = self.options.iter().map(String::as_str);
        let all: Vec<&str> = options.chain(words.iter().copied()).collect();
        self.place.run(&all)
    }

    /// `run` of a container that is removed when it has ended.
    fn container(&self, options: &[&str], command: &[&str]) -> Result<Ended> {
        self.run(&[&["run", "--rm"], options, &["box"], command].concat())
    }

    /// Waits until a call prints a line with these words.
    fn await_words(&self, words: &[&str], expected: &str) -> Result<()> {
        let found = soon(|| {
            let ended = self.run(words).ok()?;
            ended.stdout.contains(expected).then_some(())
        });
        found.with_context(|| format!("{words:?} does not print {expected:?}"))
    }
}

/// Exit statuses, and the words for them.
fn statuses(client: &Client<'_>, options: &[&str]) -> Result<()> {
    client
        .container(options, &["echo", "hello"])?
        .prints("hello")?;
    client
        .container(options, &["sh", "-c", "exit 7"])?
        .status(7)?;
    client
        .container(options, &["nonesuch"])?
        .status(127)?
        .says("executable file not found")?;
    client
        .container(options, &["/etc/passwd"])?
        .status(126)?
        .says("permission denied")?;
    // A directory cannot be mounted on a file: nothing is created.
    let source = client.place.path("source");
    fs::create_dir_all(&source).context("mkdir")?;
    let volume = format!("{source}:/etc/passwd");
    let refused = [options, &["--volume", &volume]].concat();
    let ended = client.container(&refused, &["true"])?;
    ensure!(
        matches!(ended.status, 125..=127),
        "{}: status {}",
        ended.call,
        ended.status
    );
    Ok(())
}

#[test]
#[serial]
fn podman_runs_and_pauses_and_joins_containers() -> Result<()> {
    let place = Place::new(&[("podman", "podman"), ("conmon", "conmon")])?;
    let client = Client {
        options: [
            "podman",
            "--root",
            &place.path("root"),
            "--runroot",
            &place.path("run"),
            "--tmpdir",
            &place.path("tmp"),
            "--runtime",
            &place.runtime()?,
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--storage-driver",
            "vfs",
        ]
        .map(str::to_owned)
        .to_vec(),
        place: &place,
    };
    client
        .run(&["import", &place.rootfs()?, "box"])?
        .status(0)?;
    let common = [
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--cgroup-parent",
        &place.group,
    ];
    statuses(&client, &common)?;
    let start = [&["run", "-d", "--name", "c"], &common[..]].concat();
    client
        .run(&[&start[..], &["box", "sh", "-c", TICKS]].concat())?
        .status(0)?;
    client.await_words(&["logs", "c"], "tick")?;
    client
        .run(&[
            "exec",
            "--user",
            "nobody",
            "--workdir",
            "/tmp",
            "c",
            "sh",
            "-c",
            "id -un; pwd; exit 3",
        ])?
        .status(3)
        .and_then(|ended| {
            ensure!(ended.stdout == "nobody\n/tmp", "exec: {}", ended.stdout);
            Ok(())
        })?;
    client.run(&["exec", "c", "nonesuch"])?.status(127)?;
    client.run(&["pause", "c"])?.status(0)?;
    client
        .run(&["inspect", "--format", "{{.State.Status}}", "c"])?
        .prints("paused")?;
    client.run(&["unpause", "c"])?.status(0)?;
    client
        .run(&["stats", "--no-stream", "--format", "{{.PIDs}}", "c"])?
        .status(0)
        .and_then(|ended| {
            ensure!(ended.stdout.parse::<u32>()? >= 1, "stats: {}", ended.stdout);
            Ok(())
        })?;
    client
        .run(&["top", "c", "pid"])?
        .status(0)
        .and_then(|ended| {
            ensure!(
                ended.stdout.lines().any(|line| line == "1"),
                "top: {}",
                ended.stdout
            );
            Ok(())
        })?;
    client.run(&["stop", "--time", "5", "c"])?.status(0)?;
    client
        .run(&["inspect", "--format", "{{.State.ExitCode}}", "c"])?
        .prints("0")?;
    client.run(&["rm", "c"])?.status(0)?;
    let limits = [
        &common[..],
        &["--pids-limit", "50", "--cgroupns", "private"],
    ]
    .concat();
    client
        .container(
            &limits,
            &[
                "sh",
                "-c",
                "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true",
            ],
        )?
        .prints("50")?;
    // A terminal, whose other side conmon holds.
    let terminal = [&["--tty"], &common[..]].concat();
    client
        .container(&terminal, &["tty"])?
        .prints("/dev/pts/0")?;
    place.end()
}

/// An ordinary user for podman, in copies of the system's lists of users.
fn user(place: &Place) -> Result<u32> {
    const UID: u32 = 4242;
    for (file, line) in [
        (
            "passwd",
            format!("dock:x:{UID}:{UID}::{}:/bin/sh", place.path("home")),
        ),
        ("group", format!("dock:x:{UID}:")),
        ("subuid", "dock:700000:65536".to_owned()),
        ("subgid", "dock:700000:65536".to_owned()),
    ] {
        let system = PathBuf::from("/etc").join(file);
        let text = fs::read_to_string(&system).unwrap_or_default();
        let copy = place.path(file);
        fs::write(&copy, format!("{text}{line}\n")).context("write")?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).context("chmod")?;
        let system = system.display().to_string();
        place.run(&["mount", "--bind", &copy, &system])?.status(0)?;
    }
    for name in ["home", "xdg"] {
        let dir = place.path(name);
        fs::create_dir(&dir).context("mkdir")?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).context("chmod")?;
        chown(&dir, Some(UID), Some(UID)).context("chown")?;
    }
    Ok(UID)
}

#[test]
#[serial]
fn podman_needs_no_root() -> Result<()> {
    let place = Place::new(&[
        ("podman", "podman"),
        ("conmon", "conmon"),
        ("newuidmap", "uidmap"),
    ])?;
    let uid = user(&place)?.to_string();
    let home = format!("HOME={}", place.path("home"));
    let runtime_dir = format!("XDG_RUNTIME_DIR={}", place.path("xdg"));
    let client = Client {
        options: [
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "env",
            "--chdir=/",
            "--unset=SUDO_USER",
            "USER=dock",
            &home,
            &runtime_dir,
            "podman",
            "--runtime",
            &place.runtime()?,
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--storage-driver",
            "vfs",
        ]
        .map(str::to_owned)
        .to_vec(),
        place: &place,
    };
    client
        .run(&["import", &place.rootfs()?, "box"])?
        .status(0)?;
    let common = ["--network", "none", "--ulimit", "host"];
    statuses(&client, &common)?;
    client
        .container(
            &common,
            &[
                "sh",
                "-c",
                "id -u; tail -n 1 /proc/self/uid_map | tr -s ' '",
            ],
        )?
        .prints("0\n 1 700000 65536")?;
    let start = [&["run", "-d", "--name", "c"], &common[..]].concat();
    client
        .run(&[&start[..], &["box", "sleep", "1000"]].concat())?
        .status(0)?;
    client
        .run(&["exec", "c", "sh", "-c", "exit 3"])?
        .status(3)?;
    client
        .run(&["rm", "--force", "--time", "0", "c"])?
        .status(0)?;
    // podman's own process, which holds the user namespace, ends with the place.
    place.end()
}

/// An image of busybox in Docker's format, made by hand, and its name.
fn image(place: &Place) -> Result<String> {
    place.rootfs()?;
    let script = r#"
        cd "$1"
        id=$(sha256sum busybox.tar | cut -d' ' -f1)
        mkdir image
        cp busybox.tar image/layer.tar
        printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin:/sbin"],"Cmd":["sleep","1000000"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$id" >image/config.json
        printf '[{"Config":"config.json","RepoTags":["drydock.test/box:1"],"Layers":["layer.tar"]}]' >image/manifest.json
        tar -C image -cf image.tar manifest.json config.json layer.tar
    "#;
    let dir = place.dir().display().to_string();
    place.run(&["sh", "-ec", script, "sh", &dir])?.status(0)?;
    Ok("drydock.test/box:1".to_owned())
}

/// Starts containerd, and returns its socket.
fn containerd(place: &mut Place) -> Result<PathBuf> {
    let config = format!(
        r#"
        version = 2
        root = "{dir}/containerd/root"
        state = "{dir}/containerd/state"
        disabled_plugins = ["io.containerd.internal.v1.opt"]
        [grpc]
        address = "{dir}/containerd.sock"
        [ttrpc]
        address = "{dir}/containerd.sock.ttrpc"
        [plugins."io.containerd.grpc.v1.cri"]
        sandbox_image = "drydock.test/box:1"
        restrict_oom_score_adj = true
        disable_apparmor = true
        [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "native"
        default_runtime_name = "drydock"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.drydock]
        runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.drydock.options]
        BinaryName = "{runtime}"
        "#,
        dir = place.dir().display(),
        runtime = place.runtime()?,
    );
    let file = place.path("containerd.toml");
    fs::write(&file, config).context("write")?;
    let socket = place.dir().join("containerd.sock");
    place.start("containerd", &["containerd", "--config", &file], &socket)?;
    Ok(socket)
}

#[test]
#[serial]
fn containerd_runs_containers_for_its_client_and_for_kubernetes() -> Result<()> {
    let mut place = Place::new(&[
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("containerd-shim-runc-v2", "containerd"),
    ])?;
    let image = image(&place)?;
    let socket = containerd(&mut place)?;
    call_containerd(&place, &image, &socket)?;
    place.end()
}

fn call_containerd(place: &Place, image: &str, socket: &Path) -> Result<()> {
    let ctr = |words: &[&str]| -> Result<Ended> {
        let address = socket.display().to_string();
        let own = ["ctr", "--address", &address, "--namespace", "k8s.io"];
        place.run(&[&own[..], words].concat())
    };
    ctr(&[
        "images",
        "import",
        "--snapshotter",
        "native",
        &place.path("image.tar"),
    ])?
    .status(0)?;

    // Its own client.
    let runtime = place.runtime()?;
    let group = format!("{}/ctr", place.group);
    let run = |options: &[&str], id: &str, command: &[&str]| {
        let own = [
            "run",
            "--snapshotter",
            "native",
            "--runtime",
            "io.containerd.runc.v2",
            "--runc-binary",
            &runtime,
            "--cgroup",
            &group,
        ];
        ctr(&[&own[..], options, &[image, id], command].concat())
    };
    run(&["--rm"], "a", &["echo", "hello"])?.prints("hello")?;
    run(&["--rm"], "b", &["sh", "-c", "exit 9"])?.status(9)?;
    run(&["--rm"], "c", &["nonesuch"])?
        .status(1)?
        .says("executable file not found")?;
    run(&["--detach"], "d", &["sleep", "1000"])?.status(0)?;
    ctr(&["tasks", "exec", "--exec-id", "e", "d", "sh", "-c", "exit 4"])?.status(4)?;
    ctr(&["tasks", "pause", "d"])?.status(0)?;
    ensure!(
        ctr(&["tasks", "ls"])?.stdout.contains("PAUSED"),
        "not paused"
    );
    ctr(&["tasks", "resume", "d"])?.status(0)?;
    ctr(&["tasks", "rm", "--force", "d"])?;
    ctr(&["containers", "rm", "d"])?.status(0)?;

    // Kubernetes's calls.
    let cri = Cri {
        socket: socket.to_owned(),
        group: format!("{}/pods", place.group),
    };
    let calls = || -> Result<()> {
        let pod = cri.run_pod_sandbox("drydock")?;
        let command = ["sh", "-c", TICKS];
        let id = cri.create_container(&pod, "ticks", image, &command, 64 << 20)?;
        cri.start_container(&id)?;
        ensure!(cri.container_status(&id)?.0 == RUNNING, "it does not run");
        let said = cri.exec_sync(&id, &["sh", "-c", "echo inside; exit 3"])?;
        ensure!(
            (said.stdout.as_str(), said.status) == ("inside\n", 3),
            "ExecSync: {:?}, status {}",
            said.stdout,
            said.status
        );
        // It sees its own processes, not the pod's.
        let said = cri.exec_sync(&id, &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"])?;
        ensure!(
            said.stdout.starts_with("sh -c"),
            "process 1: {}",
            said.stdout
        );
        cri.update_container_resources(&id, 32 << 20)?;
        ensure!(limits(&cri.group)?.contains(&(32 << 20)), "no such limit");
        cri.stop_container(&id, 10)?;
        let (state, status) = cri.container_status(&id)?;
        ensure!(
            (state, status) == (EXITED, 0),
            "state {state}, status {status}"
        );
        // A command that does not exist is an error of StartContainer.
        let missing = cri.create_container(&pod, "missing", image, &["nonesuch"], 0)?;
        ensure!(cri.start_container(&missing).is_err(), "it has started");
        cri.remove_container(&missing)?;
        cri.remove_container(&id)?;
        cri.stop_pod_sandbox(&pod)?;
        cri.remove_pod_sandbox(&pod)
    };
    calls().with_context(|| place.log("containerd").unwrap_or_default())
}

/// The limits of memory of all groups below a group, in bytes.
fn limits(group: &str) -> Result<Vec<u64>> {
    let script = "cat /sys/fs/cgroup/memory$1/*/memory.limit_in_bytes \
                  /sys/fs/cgroup$1/*/memory.max 2>/dev/null";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh", group])
        .output()
        .context("run sh")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().flat_map(str::parse).collect())
}

/// Starts dockerd with our runtime under the name `drydock`, and as its default
/// one if so wanted.
fn dockerd<'a>(place: &'a mut Place, is_default: bool) -> Result<Client<'a>> {
    let socket = place.dir().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let name = format!("drydock={}", place.runtime()?);
    let paths = ["data", "exec", "docker.pid"].map(|name| place.path(name));
    let group = place.group.clone();
    let mut words = vec![
        "dockerd",
        "--host",
        &host,
        "--data-root",
        &paths[0],
        "--exec-root",
        &paths[1],
        "--pidfile",
        &paths[2],
        "--cgroup-parent",
        &group,
        "--storage-driver",
        "vfs",
        "--default-ulimit",
        "nofile=1024:1024",
        "--add-runtime",
        &name,
    ];
    if is_default {
        words.extend(["--default-runtime", "drydock"]);
    }
    place.start("dockerd", &words, &socket)?;
    Ok(Client {
        options: ["docker", "--host", &host].map(str::to_owned).to_vec(),
        place,
    })
}

#[test]
#[serial]
fn dockerd_runs_containers_by_default() -> Result<()> {
    let mut place = Place::new(&[("dockerd", "docker.io"), ("docker", "docker.io")])?;
    let client = dockerd(&mut place, true)?;
    client
        .run(&["import", &client.place.rootfs()?, "box"])?
        .status(0)?;
    client
        .run(&["info", "--format", "{{.DefaultRuntime}}"])?
        .prints("drydock")?;
    statuses(&client, &[])?;
    client
        .run(&["run", "-d", "--name", "box1", "box", "sh", "-c", TICKS])?
        .status(0)?;
    client.await_words(&["logs", "box1"], "tick")?;
    client
        .run(&["exec", "box1", "sh", "-c", "exit 3"])?
        .status(3)?;
    // 126 in this version of dockerd, whichever the runtime.
    let missing = client.run(&["exec", "box1", "nonesuch"])?;
    ensure!(
        matches!(missing.status, 126 | 127),
        "docker exec: status {}",
        missing.status
    );
    client
        .run(&[
            "update",
            "--memory",
            "64m",
            "--memory-swap",
            "64m",
            "--pids-limit",
            "40",
            "box1",
        ])?
        .status(0)?;
    ensure!(
        limits(&client.place.group)?.contains(&(64 << 20)),
        "docker update has set no limit"
    );
    client.run(&["pause", "box1"])?.status(0)?;
    client
        .run(&["inspect", "--format", "{{.State.Status}}", "box1"])?
        .prints("paused")?;
    client.run(&["unpause", "box1"])?.status(0)?;
    client.run(&["restart", "--time", "5", "box1"])?.status(0)?;
    client.run(&["stop", "--time", "5", "box1"])?.status(0)?;
    client
        .run(&[
            "inspect",
            "--format",
            "{{.State.ExitCode}} {{.HostConfig.Runtime}}",
            "box1",
        ])?
        .prints("0 drydock")?;
    client.run(&["rm", "box1"])?.status(0)?;
    // Its network is made in a hook; the host's is a file on which a namespace
    // is mounted.
    client
        .container(&[], &["ls", "/sys/class/net"])?
        .prints("eth0\nlo")?;
    client
        .container(&["--network", "host"], &["true"])?
        .status(0)?;
    client
        .container(&["--tty"], &["tty"])?
        .prints("/dev/pts/0")?;
    client
        .container(
            &["--memory", "20m", "--memory-swap", "20m"],
            &["tail", "/dev/zero"],
        )?
        .status(137)?;
    drop(client);
    place.end()
}

#[test]
#[serial]
fn dockerd_knows_it_as_one_runtime_of_several() -> Result<()> {
    let mut place = Place::new(&[("dockerd", "docker.io"), ("docker", "docker.io")])?;
    let client = dockerd(&mut place, false)?;
    client
        .run(&["import", &client.place.rootfs()?, "box"])?
        .status(0)?;
    client
        .container(&["--runtime", "drydock"], &["echo", "hello"])?
        .prints("hello")?;
    client
        .container(&["--runtime", "nonesuch"], &["true"])?
        .status(125)?;
    drop(client);
    place.end()
}

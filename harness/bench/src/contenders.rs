//! The contenders: everything that starts a container here, with its command
//! line. All get the same root file system, the same limits, no network but a
//! loopback device, and as much of drydock's isolation as each can give.

use anyhow::Result;

use super::peers::IMAGE;
use super::session::Session;
use super::tools::{complaint, named};
use super::{bundle, hyperfine};
use check::workspace;

/// A program that starts containers here.
pub struct Contender {
    /// The name in tables.
    pub name: &'static str,
    how: How,
    /// A remark for the table.
    pub remark: &'static str,
}

/// The form of a contender's command line.
enum How {
    /// These words, then the command.
    Words(Vec<String>),
    /// The command line of an OCI runtime, by `overlaid`, which gives it an
    /// overlay of its own.
    Runtime(&'static str),
}

/// A contender that takes part, or the reason why it does not.
pub enum Standing {
    /// It has started a container.
    Ready(Contender),
    /// It is missing or has refused: its name and the reason.
    Absent(&'static str, String),
}

/// The network and the limits, as options of engines.
const LIMITS: [&str; 8] = [
    "--network",
    "none",
    "-m",
    "64m",
    "--cpus",
    "0.5",
    "--pids-limit",
    "100",
];

impl Contender {
    /// The command line that runs `command`, a program of the root file system
    /// without arguments, in the container `id`.
    pub fn argv(&self, session: &Session, id: &str, command: &str) -> Result<Vec<String>> {
        match &self.how {
            How::Words(words) => Ok(words.iter().cloned().chain([command.to_owned()]).collect()),
            How::Runtime(program) => {
                let dir = session.scratch.make(&format!("{program}-{id}"))?;
                let group = format!("{}/{program}-{id}", session.scratch.group());
                let dir = bundle::write(dir.clone(), &dir.join("merged"), &group, &[command])?;
                let overlaid = workspace::bin().join("overlaid");
                let mut words: Vec<String> = [&overlaid, &session.root, &dir]
                    .map(|path| path.display().to_string())
                    .to_vec();
                words.extend(runtime(session, program));
                words.extend(["run".into(), "--bundle".into(), dir.display().to_string()]);
                words.push(format!("bench-{id}"));
                Ok(words)
            }
        }
    }
}

/// The first words of every command line of an OCI runtime.
pub fn runtime(session: &Session, program: &str) -> Vec<String> {
    let state = session.scratch.run().join(program).display().to_string();
    vec![program.to_owned(), "--root".to_owned(), state]
}

/// What `./just install` installs as `drydock`. `bin/drydock` is the program of step
/// 09, with fewer commands.
const INSTALLED: &str = "step-14";

/// All contenders, in the order of the table. One that refuses is
/// [`Standing::Absent`].
pub fn all(session: &Session) -> Result<Vec<Standing>> {
    let root = session.root.display().to_string();
    let bin = workspace::bin();
    let own = |name: &str| bin.join(name).display().to_string();
    let words = |name, words: Vec<String>, remark| Contender {
        name,
        how: How::Words(words),
        remark,
    };
    let mut all = vec![
        tried(
            session,
            words(
                "no container",
                vec![format!("{root}/bin/busybox")],
                "fork and exec",
            ),
        )?,
        tried(
            session,
            words("floor", vec![own("floor"), root.clone()], ""),
        )?,
        tried(session, words("drydock", drydock(session, &[]), ""))?,
        tried(
            session,
            words(
                "drydock, no filter",
                drydock(session, &["--security-opt", "seccomp=unconfined"]),
                "what the filter costs",
            ),
        )?,
    ];
    let mut installed = drydock(session, &[]);
    installed[0] = own(INSTALLED);
    all.push(match bin.join(INSTALLED).exists() {
        true => tried(
            session,
            words("drydock, installed", installed, "the program of all steps"),
        )?,
        false => Standing::Absent("drydock, installed", format!("missing: bin/{INSTALLED}")),
    });
    for program in ["runc", "crun", "youki"] {
        all.push(match named(program)?.find() {
            None => Standing::Absent(program, named(program)?.missing()),
            Some(_) => tried(
                session,
                Contender {
                    name: program,
                    how: How::Runtime(program),
                    remark: "with an overlay, mounted and removed in this time",
                },
            )?,
        });
    }
    all.push(match named("bwrap")?.find() {
        None => Standing::Absent("bwrap", named("bwrap")?.missing()),
        Some(_) => tried(
            session,
            words("bwrap", bwrap(&root), "no limits, no overlay"),
        )?,
    });
    all.push(engine(session, "podman", podman(session))?);
    all.push(engine(session, "docker", vec!["docker".to_owned()])?);
    Ok(all)
}

/// The command line of drydock up to the session's image, with these options.
pub fn drydock(session: &Session, options: &[&str]) -> Vec<String> {
    let mut words = session.drydock(&["run", "--rm", "--hostname", "bench"]);
    words.extend(options.iter().map(|option| (*option).to_owned()));
    words.extend(LIMITS.map(str::to_owned));
    words.extend(["--cgroup-parent".to_owned(), session.scratch.group()]);
    words.push(IMAGE.to_owned());
    words
}

fn bwrap(root: &str) -> Vec<String> {
    let mut words: Vec<&str> = vec!["bwrap", "--die-with-parent"];
    words.extend(["--unshare-ipc", "--unshare-pid", "--unshare-net"]);
    words.extend(["--unshare-uts", "--unshare-cgroup"]);
    words.extend(["--hostname", "bench", "--bind", root, "/"]);
    words.extend(["--proc", "/proc", "--dev", "/dev", "--cap-drop", "ALL"]);
    let kept = bundle::CAPABILITIES.iter();
    words.extend(kept.flat_map(|name| ["--cap-add", name]));
    words.into_iter().map(str::to_owned).collect()
}

/// The first words of every command line of podman, whose state is in the
/// scratch place.
pub(crate) fn podman(session: &Session) -> Vec<String> {
    let word = |name: &str| session.scratch.word(name);
    let words = [
        "podman",
        "--storage-driver",
        "overlay",
        "--events-backend",
        "none",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend(["--cgroup-manager".into(), "cgroupfs".into()]);
    words.extend(["--root".into(), word("podman-root")]);
    let run = session.scratch.run().join("podman").display().to_string();
    words.extend(["--runroot".into(), run]);
    words
}

/// Imports the image into an engine, and tries it. Every command line of the
/// engine begins with `words`.
fn engine(session: &Session, name: &'static str, words: Vec<String>) -> Result<Standing> {
    let tool = named(name)?;
    if tool.find().is_none() {
        return Ok(Standing::Absent(name, tool.missing()));
    }
    let line = hyperfine::line(&words);
    let root = hyperfine::line(&[session.root.display().to_string()]);
    let call = |script: String| complaint(&["sh", "-c", &script]);
    // Removes what a killed bench has left in the engine's store.
    call(format!("{line} image rm --force {IMAGE}"))?;
    if let Some(words) = call(format!("tar -C {root} -c . | {line} import - {IMAGE}"))? {
        return Ok(Standing::Absent(name, format!("refused: {words}")));
    }
    let mut run = words.clone();
    run.extend(["run", "--rm", "--hostname", "bench"].map(str::to_owned));
    run.extend(LIMITS.map(str::to_owned));
    // The engines' defaults exceed what root without CAP_SYS_RESOURCE may set.
    run.extend(
        [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]
        .map(str::to_owned),
    );
    if name == "podman" {
        run.extend(["--cgroup-parent".to_owned(), session.scratch.group()]);
    }
    run.push(IMAGE.to_owned());
    let contender = Contender {
        name,
        how: How::Words(run),
        remark: match name {
            "docker" => "client, daemon and shim",
            _ => "with its monitor conmon",
        },
    };
    tried(session, contender)
}

/// Tries whether a contender starts a container.
fn tried(session: &Session, contender: Contender) -> Result<Standing> {
    let argv = contender.argv(session, "try", "/bin/true")?;
    session.scratch.stop.check()?;
    match complaint(&argv)? {
        None => Ok(Standing::Ready(contender)),
        Some(words) => Ok(Standing::Absent(
            contender.name,
            format!("refused: {words}"),
        )),
    }
}

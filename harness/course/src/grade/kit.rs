//! The kit that compiles a submission of a step: the calls of rustc that cargo
//! would make, and the libraries in these calls.
//!
//! cargo itself makes both, once, with a crate that does nothing in the place
//! of the submission. After that cargo is not needed. It would read manifests,
//! the registry and its settings, and a submission's compiler must reach as
//! little as possible.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::jail::SYSTEM;
use crate::exercise::skeleton;
use crate::exercise::work::Work;
use check::{build, workspace};

/// The source in the place of a submission: both a library and a program.
const NOTHING: &str = "//! Nothing.\n#![allow(dead_code)]\nfn main() {}\n";

/// The calls and libraries that compile submissions of one step.
#[derive(Debug)]
pub struct Kit {
    /// The name of the crate's directory: `01-uts`.
    pub name: String,
    /// The directory of the libraries: those of others, and ours of the steps
    /// below.
    pub libraries: PathBuf,
    /// The toolchain's directories `bin` and `lib`.
    pub toolchain: [PathBuf; 2],
    /// The call that compiles the library, then the one that compiles the
    /// program.
    calls: [Call; 2],
}

/// A call of rustc without the directories of the results and of the libraries.
#[derive(Debug)]
struct Call {
    crate_name: String,
    rustc: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Kit {
    /// Has cargo compile everything that step `number` needs in the workspace
    /// `dir`, which no other process may use meanwhile. Missing crates are
    /// fetched. cargo's messages are on standard error.
    pub fn make(number: &str, dir: &Path) -> Result<Kit> {
        let work = Work::at(dir);
        let own = work.step(number)?;
        let name = own.file_name().unwrap_or_default().to_string_lossy();
        skeleton::copy_manifest(number, &own)?;
        for file in ["lib.rs", "main.rs"] {
            skeleton::write(&own.join("src").join(file), NOTHING)?;
        }
        work.lay_out(number, false)?;
        let [calls, libraries] = ["calls", "libraries"].map(|kind| dir.join(kind).join(number));
        for dir in [&calls, &libraries] {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        build::give_to_owner(dir)?;
        let package = format!("step-{number}");
        let program = workspace::program(number);
        let output = build::command(dir)
            .args(["build", "--quiet", "--profile", "wrong"])
            .args(["--package", &package, "--bin", &program])
            .arg("--target-dir")
            .arg(dir.join("target"))
            .args(["--message-format", "json-render-diagnostics"])
            .env(
                "RUSTC_WORKSPACE_WRAPPER",
                workspace::root().join("tools/record-rustc"),
            )
            .env("DRYDOCK_CALLS", &calls)
            // A submission is compiled only once.
            .env("CARGO_INCREMENTAL", "0")
            .stderr(Stdio::inherit())
            .output()
            .context("run cargo")?;
        ensure!(output.status.success(), "our own crates cannot be built");
        let made = Made::read(&output.stdout, &own)?;
        let kept = gather(&made.libraries, &libraries)?;
        let (library, toolchain) = Call::read(&calls.join(&made.own_library))?;
        let (program, _) = Call::read(&calls.join(program.replace('-', "_")))?;
        let kit = Kit {
            name: name.into_owned(),
            calls: [
                library.with(&libraries, &kept, None)?,
                program.with(&libraries, &kept, Some(&made.own_library))?,
            ],
            libraries,
            toolchain,
        };
        kit.stand_apart()?;
        Ok(kit)
    }

    /// Makes sure that this repository is not below a directory that every
    /// compiler may read.
    fn stand_apart(&self) -> Result<()> {
        let root = workspace::root();
        let readable = SYSTEM.iter().map(Path::new);
        match readable
            .chain(self.toolchain.iter().map(PathBuf::as_path))
            .find(|dir| root.starts_with(dir))
        {
            None => Ok(()),
            Some(dir) => bail!(
                "{} is in {}, which the compiler of a submission can read: move the repository",
                root.display(),
                dir.display()
            ),
        }
    }

    /// The calls that compile the submission, in this order. They start in the
    /// directory that holds `NN-name/src`, and write to the directory `out`.
    pub fn commands(&self, out: &Path) -> [Command; 2] {
        let out_text = out.display();
        let mut commands = self.calls.each_ref().map(|call| {
            let mut command = Command::new(&call.rustc);
            command
                .args(&call.args)
                .args(["--error-format", "short", "--out-dir"])
                .arg(out)
                .arg("-L")
                .arg(format!("dependency={out_text}"))
                .arg("-L")
                .arg(format!("dependency={}", self.libraries.display()))
                .env_clear()
                .envs(call.env.iter().cloned())
                .env("PATH", "/usr/bin:/bin")
                .env("TMPDIR", out);
            command
        });
        let own = &self.calls[0].crate_name;
        commands[1]
            .arg("--extern")
            .arg(format!("{own}={out_text}/lib{own}.rlib"))
            // Not as -Wl, which splits a path at its commas.
            .args(["-C", "link-arg=-Xlinker", "-C"])
            .arg(format!(
                "link-arg=--dependency-file={}",
                self.linked(out).display()
            ));
        commands
    }

    /// The linker's list of the files that it has read.
    pub fn linked(&self, out: &Path) -> PathBuf {
        out.join("linked.d")
    }

    /// rustc's lists of the files that it has read, one for each of the
    /// [`commands`](Self::commands).
    pub fn lists(&self, out: &Path) -> [PathBuf; 2] {
        self.calls
            .each_ref()
            .map(|call| out.join(format!("{}.d", call.crate_name)))
    }

    /// The program that the last of the [`commands`](Self::commands) makes.
    pub fn program(&self, out: &Path) -> PathBuf {
        out.join(&self.calls[1].crate_name)
    }
}

impl Call {
    /// Reads a call that `tools/record-rustc` has recorded, and the toolchain's
    /// directories.
    fn read(file: &Path) -> Result<(Call, [PathBuf; 2])> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let text = String::from_utf8(text)
            .with_context(|| format!("{}: a call of rustc is not text", file.display()))?;
        let mut words = text.split_terminator('\0').map(str::to_owned);
        let mut next = || {
            words
                .next()
                .with_context(|| format!("{} is not whole", file.display()))
        };
        let sysroot = PathBuf::from(next()?);
        let count: usize = next()?.parse().context("the number of arguments")?;
        let called = PathBuf::from(next()?);
        let args = (1..count).map(|_| next()).collect::<Result<Vec<_>>>()?;
        let env = words.filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        // rustup's rustc first chooses a toolchain, and reads its settings for
        // that.
        let own = sysroot.join("bin/rustc");
        let call = Call {
            crate_name: file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            rustc: if own.exists() { own } else { called },
            args,
            env: env.collect(),
        };
        Ok((call, ["bin", "lib"].map(|dir| sysroot.join(dir))))
    }

    /// The same call with the libraries in the directory `libraries`, and
    /// without the arguments for output and messages. `own` is a library that
    /// does not exist yet.
    fn with(self, libraries: &Path, kept: &BTreeSet<OsString>, own: Option<&str>) -> Result<Call> {
        let mut args = Vec::new();
        let mut given = self.args.into_iter();
        while let Some(arg) = given.next() {
            if arg.starts_with("--error-format=") || arg.starts_with("--json=") {
                continue;
            }
            if !["--extern", "--out-dir", "-L", "-C"].contains(&arg.as_str()) {
                args.push(arg);
                continue;
            }
            let value = given
                .next()
                .with_context(|| format!("{arg} of rustc ends"))?;
            match (arg.as_str(), value.split_once('=')) {
                ("--out-dir", _)
                | ("-L", Some(("dependency", _)))
                | ("-C", Some(("extra-filename" | "incremental", _))) => {}
                ("-L", _) => bail!("{value} is not in the kit: how does a step come by it?"),
                ("--extern", Some((name, path))) => {
                    let file = Path::new(path).file_name().unwrap_or_default();
                    if kept.contains(file) {
                        args.push(arg);
                        args.push(format!("{name}={}", libraries.join(file).display()));
                    } else if own != Some(name) {
                        bail!("{path} is not in the kit: how does a step come by it?");
                    }
                }
                _ => args.extend([arg, value]),
            }
        }
        Ok(Call { args, ..self })
    }
}

/// The libraries that cargo has built, or found built.
#[derive(Default)]
struct Made {
    /// The name of the submission's library crate.
    own_library: String,
    /// All other libraries that the program needs, and procedural macros.
    libraries: Vec<PathBuf>,
}

impl Made {
    fn read(messages: &[u8], own: &Path) -> Result<Made> {
        let mut made = Made::default();
        for line in messages
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let message: Value =
                serde_json::from_slice(line).context("parse a message of cargo")?;
            if message["reason"] != "compiler-artifact" {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let manifest = PathBuf::from(text(&message["manifest_path"]));
            let macros = message["target"]["kind"][0] == "proc-macro";
            if manifest.parent() == Some(own) {
                if message["target"]["kind"][0] == "lib" {
                    made.own_library = text(&message["target"]["name"]).replace('-', "_");
                }
                continue;
            }
            let files = message["filenames"].as_array().into_iter().flatten();
            made.libraries
                .extend(files.map(|file| PathBuf::from(text(file))).filter(|file| {
                    let kind = file.extension().unwrap_or_default();
                    kind == "rlib" || kind == "rmeta" || (macros && kind == "so")
                }));
        }
        ensure!(
            !made.own_library.is_empty(),
            "{} has no library",
            own.display()
        );
        Ok(made)
    }
}

/// Makes `to` hold exactly these libraries, as hard links where possible. Those
/// that exist already are not replaced, because another process may be using
/// them.
fn gather(libraries: &[PathBuf], to: &Path) -> Result<BTreeSet<OsString>> {
    let mut kept = BTreeSet::new();
    for library in libraries {
        let name = library.file_name().unwrap_or_default();
        let at = to.join(name);
        kept.insert(name.to_owned());
        if is_same(library, &at)? {
            continue;
        }
        let new = to.join(".new");
        remove(&new)?;
        if fs::hard_link(library, &new).is_err() {
            fs::copy(library, &new).with_context(|| format!("copy {}", library.display()))?;
        }
        fs::rename(&new, &at).with_context(|| format!("rename to {}", at.display()))?;
    }
    for entry in fs::read_dir(to).with_context(|| format!("list {}", to.display()))? {
        let entry = entry.with_context(|| format!("list {}", to.display()))?;
        if !kept.contains(&entry.file_name()) {
            remove(&entry.path())?;
        }
    }
    Ok(kept)
}

/// Whether two paths name the same file.
fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let about = |file: &Path| match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        about => about
            .map(|about| Some((about.dev(), about.ino())))
            .with_context(|| format!("stat {}", file.display())),
    };
    Ok(about(one)? == about(other)?)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unlink {}", file.display()))
        }
        _ => Ok(()),
    }
}

//! The setting for the launches of one form: a state directory with an image,
//! and its state without faults.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::forms::Form;
use super::launch::{Launch, Watch, launch};
use super::plain::Plain;
use check::guard::Snapshot;
use check::protections::Protections;
use check::{host, sys, workspace};

/// Name of the image.
const IMAGE: &str = "bb";

/// The programs and the root file system that all forms share.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// Makes a directory for them in /var/tmp, because layers must be on a
    /// disk.
    pub fn make() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("drydock-inject-")
            .tempdir_in("/var/tmp")
            .context("make a directory in /var/tmp")?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).context("chmod 755")?;
        let place = Place { dir };
        copy(&workspace::bin().join("drydock"), &place.program())?;
        let image = place.path("image");
        copy(&workspace::rootfs("busybox"), &image)?;
        copy(&workspace::bin().join("probe"), &image.join("bin/probe"))?;
        for directory in ["data", "anonymous"] {
            let directory = image.join(directory);
            fs::create_dir(&directory).context("mkdir in the image")?;
            fs::write(directory.join("file"), "text\n").context("write in the image")?;
        }
        // An ordinary user can read all of an archive.
        let archive = place.path("image.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(&image)
            .arg("-cf")
            .arg(&archive)
            .arg("."))?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("drydock")
    }
}

/// The setting for the launches of one form.
pub struct Ground<'a> {
    place: &'a Place,
    /// The form that is launched.
    pub form: &'a Form,
    /// Rules that remove what varies between launches.
    pub plain: Plain,
    /// The host before the launches.
    host: Snapshot,
    /// The state directory before the launches.
    state: BTreeSet<String>,
    /// The report of the command without a fault.
    pub protections: Protections,
}

impl<'a> Ground<'a> {
    /// Makes the state directory and runs the form without a fault, so that
    /// everything that is made only once exists.
    pub fn make(place: &'a Place, form: &'a Form) -> Result<Self> {
        let dir = place.path(form.name);
        fs::create_dir(&dir).context("mkdir")?;
        chown(&dir, form.user, form.user).context("chown")?;
        let mut ground = Ground {
            plain: Plain::new(&dir)?,
            place,
            form,
            host: Snapshot::take()?,
            state: BTreeSet::new(),
            protections: Protections::new(),
        };
        let image = place.path("image.tar");
        let import = ground.tool(&["import", &image.to_string_lossy(), IMAGE]);
        succeed(import, "import the image")?;
        for _ in 0..2 {
            let ran = launch(ground.run(), Watch::Not)?;
            let seen = ground.protections_of(&ran)?;
            ground.protections = seen.with_context(|| {
                format!("{}: no report without a fault: {}", form.name, ran.stderr)
            })?;
            ground.tidy()?;
            succeed(ground.next(), "run the next container")?;
        }
        ground.host = Snapshot::take()?;
        ground.state = picture(&dir)?;
        let pristine = place.path(&format!("{}.pristine", form.name));
        copy(&dir, &pristine)?;
        Ok(ground)
    }

    fn dir(&self) -> PathBuf {
        self.place.path(self.form.name)
    }

    /// A command of the engine in this state directory.
    fn tool(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.place.program());
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir())
            .env("DRYDOCK_STATE", self.dir().join("net"))
            .current_dir("/")
            .arg("--root")
            .arg(self.dir().join("root"))
            .args(args);
        if let Some(user) = self.form.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// The launch into which a fault is injected.
    pub fn run(&self) -> Command {
        let run = [&["run"][..], self.form.options].concat();
        self.tool(&[&run[..], &[IMAGE, "probe", "protections"]].concat())
    }

    /// A launch of the engine that only starts and prints its version.
    pub fn version(&self) -> Command {
        self.tool(&["--version"])
    }

    /// The next container, which runs after that launch.
    pub fn next(&self) -> Command {
        let run = [&["run"][..], self.form.next].concat();
        self.tool(&[&run[..], &[IMAGE, "true"]].concat())
    }

    /// The report of the command; `None` if the command has not run, or not to
    /// its end. Fails if it has printed anything else.
    pub fn protections_of(&self, launch: &Launch) -> Result<Option<Protections>> {
        if launch.stdout.is_empty() {
            return Ok(None);
        }
        let mut seen: Protections = match serde_json::from_str(&launch.stdout) {
            // It was killed with its launcher, while it wrote.
            Err(error) if error.is_eof() && launch.status == Some(137) => return Ok(None),
            parsed => parsed.with_context(|| format!("parse the report {:?}", launch.stdout))?,
        };
        let keyring = format!("session {:?}", sys::session_keyring());
        // The present ones only, because the kernel reuses their numbers.
        let namespaces: BTreeSet<u64> = host::namespaces("self")?.into_values().collect();
        for (what, lines) in &mut seen {
            for line in lines {
                let inode = line.rsplit(' ').next().and_then(|inode| inode.parse().ok());
                *line = match inode {
                    Some(inode) if what == "namespaces" => {
                        let whose = match namespaces.contains(&inode) {
                            true => "the host's",
                            false => "its own",
                        };
                        format!("{} {whose}", line.split(' ').next().unwrap_or_default())
                    }
                    _ if what == "keyring" && *line != keyring => "its own".to_owned(),
                    _ => self.plain.text(line),
                };
            }
        }
        Ok(Some(seen))
    }

    /// Removes what a form with `kept` leaves on purpose, containers and
    /// volumes, with the engine's own commands. Returns the number of
    /// containers.
    pub fn tidy(&self) -> Result<usize> {
        if !self.form.kept {
            return Ok(0);
        }
        let containers = succeed(self.tool(&["ps", "-aq"]), "list the containers")?;
        for id in containers.lines() {
            succeed(self.tool(&["rm", id]), "remove a container")?;
        }
        let volumes = succeed(self.tool(&["volume", "ls", "-q"]), "list the volumes")?;
        for name in volumes.lines() {
            succeed(self.tool(&["volume", "rm", name]), "remove a volume")?;
        }
        Ok(containers.lines().count())
    }

    /// The differences of the host and the state directory from before, at this
    /// moment.
    pub fn differences(&self) -> Result<Vec<String>> {
        let mut all = self.of_ours(self.host.differences(&Snapshot::take()?));
        all.extend(self.differences_of_state()?);
        Ok(all.into_iter().map(|line| self.plain.text(&line)).collect())
    }

    /// The differences that persist.
    pub fn settled_differences(&self) -> Result<Vec<String>> {
        let mut all = self.of_ours(self.host.settled_differences()?);
        all.extend(self.differences_of_state()?);
        Ok(all.into_iter().map(|line| self.plain.text(&line)).collect())
    }

    /// Omits disk devices, which belong to the whole machine: the forms use
    /// none, but others may.
    fn of_ours(&self, mut differences: Vec<String>) -> Vec<String> {
        differences.retain(|line| !line.starts_with("devices:"));
        differences
    }

    fn differences_of_state(&self) -> Result<Vec<String>> {
        let now = picture(&self.dir())?;
        let gone = self
            .state
            .difference(&now)
            .map(|line| format!("state: gone: {line}"));
        let left = now
            .difference(&self.state)
            .map(|line| format!("state: left behind: {line}"));
        Ok(gone.chain(left).collect())
    }

    /// Forces the host and the state directory back to their original state.
    pub fn restore(&mut self) -> Result<()> {
        let failed = self.host.restore();
        fs::remove_dir_all(self.dir()).context("remove the state directory")?;
        copy(
            &self.place.path(&format!("{}.pristine", self.form.name)),
            &self.dir(),
        )?;
        super::new_network()?;
        self.host = Snapshot::take()?;
        match failed.is_empty() {
            true => Ok(()),
            false => bail!("could not restore the host: {}", failed.join("; ")),
        }
    }
}

/// Runs a command that must succeed, and returns its standard output.
pub fn succeed(command: Command, what: &str) -> Result<String> {
    let ran = launch(command, Watch::Not)?;
    match ran.status {
        Some(0) => Ok(ran.stdout),
        Some(status) => bail!("{what}: status {status}: {}", ran.stderr.trim()),
        None => bail!("{what}: it hung: {}", ran.stderr.trim()),
    }
}

/// Every file below a directory, with mode, owner, size and target.
fn picture(dir: &Path) -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, all: &mut BTreeSet<String>) -> Result<()> {
        let listing = || format!("list {}", dir.display());
        for entry in fs::read_dir(dir).with_context(listing)? {
            let path = entry.with_context(listing)?.path();
            let file = path
                .symlink_metadata()
                .with_context(|| format!("lstat {}", path.display()))?;
            let rest = match file.is_dir() {
                true => {
                    walk(&path, all)?;
                    String::new()
                }
                false => format!(
                    "{} {}",
                    file.size(),
                    fs::read_link(&path).unwrap_or_default().display()
                ),
            };
            all.insert(format!(
                "{} {:o} {}:{} {rest}",
                path.display(),
                file.mode(),
                file.uid(),
                file.gid()
            ));
        }
        Ok(())
    }
    let mut all = BTreeSet::new();
    walk(dir, &mut all)?;
    Ok(all)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--"]).arg(from).arg(to))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

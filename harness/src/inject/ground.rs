//! Where the launches of one form happen: a state directory with an image, and
//! how all of it looks when nothing has gone wrong.

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
use super::protections::Protections;
use crate::guard::Snapshot;
use crate::{host, sys, workspace};

/// The name of the image.
const IMAGE: &str = "bb";

/// The programs and the root file system that all forms share.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// Makes it: a directory in /var/tmp, because layers are to be on a disk.
    ///
    /// # Errors
    /// Those of copying.
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
        // In an archive, which an ordinary user can read as a whole.
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

/// Where the launches of one form happen.
pub struct Ground<'a> {
    place: &'a Place,
    /// The form.
    pub form: &'a Form,
    /// What differs from launch to launch here.
    pub plain: Plain,
    /// The host before the launches.
    host: Snapshot,
    /// The state directory before the launches.
    state: BTreeSet<String>,
    /// What the command saw without a fault.
    pub protections: Protections,
}

impl<'a> Ground<'a> {
    /// Makes the state directory, and runs the form there as it is, so that all
    /// that is made once is there.
    ///
    /// # Errors
    /// If the form does not run without a fault.
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

    /// A command of the engine here.
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

    /// The launch whose calls fail.
    pub fn run(&self) -> Command {
        let run = [&["run"][..], self.form.options].concat();
        self.tool(&[&run[..], &[IMAGE, "probe", "protections"]].concat())
    }

    /// A program of ours that does nothing but start.
    pub fn version(&self) -> Command {
        self.tool(&["--version"])
    }

    /// The container that is run after it.
    pub fn next(&self) -> Command {
        let run = [&["run"][..], self.form.next].concat();
        self.tool(&[&run[..], &[IMAGE, "true"]].concat())
    }

    /// What the command has reported, if it has run.
    ///
    /// # Errors
    /// If it has reported something else.
    pub fn protections_of(&self, launch: &Launch) -> Result<Option<Protections>> {
        if launch.stdout.is_empty() {
            return Ok(None);
        }
        let mut seen: Protections = serde_json::from_str(&launch.stdout)
            .with_context(|| format!("parse the report {:?}", launch.stdout))?;
        let keyring = format!("session {:?}", sys::session_keyring());
        // Those of now: numbers are used again.
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

    /// Removes what a container that is kept leaves on purpose, with the
    /// engine's own commands. Returns how many containers there were.
    ///
    /// # Errors
    /// If they fail.
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

    /// How the host and the state directory differ from before, at this moment.
    ///
    /// # Errors
    /// Those of looking.
    pub fn differences(&self) -> Result<Vec<String>> {
        let mut all = self.of_ours(self.host.differences(&Snapshot::take()?));
        all.extend(self.differences_of_state()?);
        Ok(all.into_iter().map(|line| self.plain.text(&line)).collect())
    }

    /// The same, of what does not go away by itself.
    ///
    /// # Errors
    /// Those of looking.
    pub fn settled_differences(&self) -> Result<Vec<String>> {
        let mut all = self.of_ours(self.host.settled_differences()?);
        all.extend(self.differences_of_state()?);
        Ok(all.into_iter().map(|line| self.plain.text(&line)).collect())
    }

    /// Without devices of disks, which are the whole machine's: the forms use
    /// none, and others may.
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

    /// Puts host and state directory back by force.
    ///
    /// # Errors
    /// Those of doing so.
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

/// Runs a command that must succeed, and returns what it prints.
pub fn succeed(command: Command, what: &str) -> Result<String> {
    let ran = launch(command, Watch::Not)?;
    match ran.status {
        Some(0) => Ok(ran.stdout),
        Some(status) => bail!("{what}: status {status}: {}", ran.stderr.trim()),
        None => bail!("{what}: it hung: {}", ran.stderr.trim()),
    }
}

/// Every file below a directory: mode, owner, size, target.
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

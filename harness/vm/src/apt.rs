//! Packages of the distribution, fetched and unpacked without root: apt-get(8)
//! `download`, apt-cache(8), dpkg-deb(1).

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use check::workspace;

/// Age at which the package lists of another suite are fetched again.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A client of the package sources that the system uses.
pub struct Apt {
    /// Configuration of an apt with package lists of our own; `None` for the
    /// system's.
    own: Option<PathBuf>,
}

impl Apt {
    /// Runs `work` with the system's package lists. If it fails, because they
    /// are missing or out of date, fetches lists into the cache and runs it
    /// again with those.
    pub fn with_lists<T>(work: impl Fn(&Apt) -> Result<T>) -> Result<T> {
        if let Ok(done) = work(&Apt { own: None }) {
            return Ok(done);
        }
        if Command::new("apt-get").arg("--version").output().is_err() {
            bail!("no apt-get on this system: choose `--kernel host` or `--kernel FILE`");
        }
        let dir = workspace::cache().join("apt");
        let apt = Apt::with_own_lists(&dir, None)?;
        apt.update(&dir)?;
        work(&apt)
    }

    /// A client of another suite of the distribution, such as `oldstable` or
    /// `trixie`, from the archive of the system's own suite. Its lists are in
    /// the cache, and are fetched again when they are older than a day.
    pub fn of_suite(suite: &str) -> Result<Apt> {
        let dir = workspace::cache().join("apt").join(suite);
        let archive = archive()?;
        let keyring = PathBuf::from(format!(
            "/usr/share/keyrings/{}-archive-keyring.gpg",
            os_release("ID").unwrap_or_default()
        ));
        let signed = match keyring.exists() {
            true => format!("[signed-by={}] ", keyring.display()),
            false => String::new(),
        };
        let apt =
            Apt::with_own_lists(&dir, Some(&format!("deb {signed}{archive} {suite} main\n")))?;
        let fetched = dir.join("fetched");
        let age = fs::metadata(&fetched).and_then(|meta| meta.modified());
        let fresh = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < A_DAY));
        if !fresh {
            apt.update(&dir)
                .with_context(|| format!("the suite {suite}"))?;
            fs::write(&fetched, "").with_context(|| format!("write {}", fetched.display()))?;
        }
        Ok(apt)
    }

    /// An apt with package lists in `dir`. `sources` replace the system's.
    fn with_own_lists(dir: &Path, sources: Option<&str>) -> Result<Apt> {
        for part in ["state/lists/partial", "cache/archives/partial", "no-parts"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("mkdir {}", part.display()))?;
        }
        // Clear the system's hooks, which change the system.
        let mut text = format!(
            "Dir::State {:?};\nDir::State::status \"/var/lib/dpkg/status\";\nDir::Cache {:?};\n\
             Acquire::Languages \"none\";\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n",
            dir.join("state"),
            dir.join("cache"),
        );
        if let Some(sources) = sources {
            let list = dir.join("sources.list");
            fs::write(&list, sources).with_context(|| format!("write {}", list.display()))?;
            let parts = dir.join("no-parts");
            text += &format!("Dir::Etc::SourceList {list:?};\nDir::Etc::SourceParts {parts:?};\n");
        }
        let config = dir.join("apt.conf");
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Apt { own: Some(config) })
    }

    fn update(&self, dir: &Path) -> Result<()> {
        eprintln!("Fetching package lists into {} …", dir.display());
        let mut update = self.command("apt-get");
        // Without this, a missing suite is a warning only.
        update.args(["update", "-qq", "-o", "APT::Update::Error-Mode=any"]);
        finish(&mut update).map(|_| ())
    }

    /// The packages on which a package depends.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let args = ["depends", "--important", "--no-recommends", package];
        let text = finish(self.command("apt-cache").args(args))?;
        let depends: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned()))
            .collect();
        if depends.is_empty() {
            bail!("apt knows no package {package} that depends on anything");
        }
        Ok(depends)
    }

    /// Fetches a package and unpacks its files into the existing directory
    /// `into`.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let dir = tempfile::tempdir_in(into).context("mkdir")?;
        eprintln!("Fetching {package} …");
        let mut download = self.command("apt-get");
        download.args(["download", package]).current_dir(dir.path());
        if stderr().is_terminal() {
            download.stdout(stderr());
        } else {
            download.arg("-qq");
        }
        finish(&mut download)?;
        let mut found = fs::read_dir(dir.path()).context("read the download")?;
        let Some(deb) = found.next() else {
            bail!("apt-get download {package} left no file");
        };
        let deb = deb.context("read the download")?.path();
        finish(Command::new("dpkg-deb").arg("-x").args([&deb, into]))?;
        dir.close().context("remove the download")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // The user that apt would switch to cannot write to the cache.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if let Some(config) = &self.own {
            command.arg("-c").arg(config);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }
}

/// The archive of the system's own suite: the part before `dists/SUITE` of the
/// addresses that an update would fetch.
fn archive() -> Result<String> {
    let suite = os_release("VERSION_CODENAME").context("/etc/os-release names no suite")?;
    let uris = finish(
        Apt { own: None }
            .command("apt-get")
            .args(["update", "--print-uris"]),
    )?;
    uris.lines()
        .filter_map(|line| line.strip_prefix('\''))
        .find_map(|uri| Some(uri.split_once(&format!("dists/{suite}/"))?.0.to_owned()))
        .with_context(|| format!("apt has no source for {suite}"))
}

/// A value of os-release(5).
pub fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
        .map(|value| value.trim_matches('"').to_owned())
}

/// Runs a command and returns its standard output.
fn finish(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", errors.lines().last().unwrap_or("failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Packages of the distribution, fetched and unpacked without root: apt-get(8)
//! `download`, apt-cache(8), dpkg-deb(1).

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Fetches packages, the system's way: from where the system gets them.
pub struct Apt {
    /// Configuration of an apt whose package lists are ours.
    own: Option<PathBuf>,
}

impl Apt {
    /// Runs `work` with the system's package lists. Where they are missing or
    /// out of date, and `work` fails, fetches lists into the cache and runs it
    /// with those.
    ///
    /// # Errors
    /// If there is no apt, and those of the second run of `work`.
    pub fn with_lists<T>(work: impl Fn(&Apt) -> Result<T>) -> Result<T> {
        if let Ok(done) = work(&Apt { own: None }) {
            return Ok(done);
        }
        if Command::new("apt-get").arg("--version").output().is_err() {
            bail!("no apt-get on this system: choose `--kernel host` or `--kernel FILE`");
        }
        let dir = workspace::cache().join("apt");
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("mkdir {}", part.display()))?;
        }
        let config = dir.join("apt.conf");
        // The system's hooks are cleared because they change the system.
        let text = format!(
            "Dir::State {:?};\nDir::State::status \"/var/lib/dpkg/status\";\nDir::Cache {:?};\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n",
            dir.join("state"),
            dir.join("cache"),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let apt = Apt { own: Some(config) };
        eprintln!("Fetching package lists into {} …", dir.display());
        finish(apt.command("apt-get").args(["update", "-qq"]))?;
        work(&apt)
    }

    /// The packages on which a package depends.
    ///
    /// # Errors
    /// If apt knows no such package.
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

    /// Fetches a package and unpacks its files into `into`, which exists.
    ///
    /// # Errors
    /// If it cannot be fetched or unpacked.
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
        // The user that apt would become cannot write to the cache.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if let Some(config) = &self.own {
            command.arg("-c").arg(config);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }
}

/// Runs a command and returns what it says.
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

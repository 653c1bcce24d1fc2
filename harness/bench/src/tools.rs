//! Programs of others: engines that start containers here, and tools that
//! measure.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A program that another project provides.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name on the PATH.
    pub program: &'static str,
    /// The Debian package with the program; `None` if there is none.
    pub package: Option<&'static str>,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool {
        program,
        package: Some(package),
    }
}

/// The peers: other programs that start containers.
pub const PEERS: [Tool; 6] = [
    tool("runc", "runc"),
    tool("crun", "crun"),
    Tool {
        program: "youki",
        package: None,
    },
    tool("bwrap", "bubblewrap"),
    tool("podman", "podman"),
    tool("docker", "docker.io"),
];

/// The helpers: programs that measure, or make what is measured.
pub const HELPERS: [Tool; 8] = [
    tool("hyperfine", "hyperfine"),
    tool("strace", "strace"),
    tool("iperf3", "iperf3"),
    tool("umoci", "umoci"),
    tool("skopeo", "skopeo"),
    tool("dockerd", "docker.io"),
    tool("docker-registry", "docker-registry"),
    tool("buildah", "buildah"),
];

impl Tool {
    /// The program's file, if it is on the PATH.
    pub fn find(&self) -> Option<PathBuf> {
        self.find_in(&std::env::var_os("PATH").unwrap_or_default())
    }

    /// The program's file, if it is on this PATH.
    pub fn find_in(&self, path: &OsStr) -> Option<PathBuf> {
        std::env::split_paths(path)
            .map(|dir| dir.join(self.program))
            .find(|file| file.is_file())
    }

    /// The message for a missing program: what to install.
    pub fn missing(&self) -> String {
        match self.package {
            Some(package) => format!("missing: package {package}"),
            None => format!("missing: no package; cargo install {}", self.program),
        }
    }

    /// The version that the program prints. For docker it is that of the
    /// daemon, which does the work, if one answers.
    pub fn version(&self) -> Option<String> {
        let daemons: &[&str] = &["version", "--format", "{{.Server.Version}}"];
        let ways = match self.program {
            "docker" => vec![daemons, &["--version"]],
            _ => vec![&["--version"] as &[&str]],
        };
        let program = self.find()?;
        ways.into_iter().find_map(|words| {
            let output = Command::new(&program)
                .args(words)
                .stdin(Stdio::null())
                .output()
                .ok()?;
            number(&String::from_utf8_lossy(&output.stdout))
        })
    }
}

/// The first word that starts with a digit and contains a dot: `1.1.5+ds1`.
fn number(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches([',', ';', '(', ')', 'v']))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

/// The peer or helper of this name.
pub fn named(program: &str) -> Result<&'static Tool> {
    static ALL: [&[Tool]; 2] = [&PEERS, &HELPERS];
    ALL.iter()
        .flat_map(|tools| tools.iter())
        .find(|tool| tool.program == program)
        .with_context(|| format!("{program} is unknown here"))
}

/// The file of a helper that a bench requires.
///
/// # Errors
/// Names the package to install.
pub fn need(program: &str) -> Result<PathBuf> {
    let tool = named(program)?;
    match tool.find() {
        Some(path) => Ok(path),
        None => bail!(
            "{program} is {}; --install installs what is missing",
            tool.missing()
        ),
    }
}

/// The peers and helpers that are not on this PATH.
pub fn missing(path: &OsStr) -> Vec<&'static Tool> {
    let all = HELPERS.iter().chain(&PEERS);
    all.filter(|tool| tool.find_in(path).is_none()).collect()
}

/// Installs the packages of the missing programs. apt-get reports a package
/// that cannot be installed; the others are still installed.
pub fn install() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in missing(&path) {
        let Some(package) = tool.package else {
            println!("{} {}", tool.program, tool.missing());
            continue;
        };
        println!("installing {package} …");
        let status = Command::new("apt-get")
            .args(["-qq", "-y", "install", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .context("run apt-get")?;
        if !status.success() {
            println!("apt-get install {package} failed: apt-get update first?");
        }
    }
    Ok(())
}

/// Runs a command and returns its standard output. If the command fails, the
/// error is its [`last_words`].
pub fn output<S: AsRef<OsStr>>(argv: &[S]) -> Result<Vec<u8>> {
    let output = run(argv)?;
    if !output.status.success() {
        bail!("{}", last_words(&output.stderr));
    }
    Ok(output.stdout)
}

/// Runs a command. Returns its [`last_words`] if it fails, `None` if it
/// succeeds.
pub fn complaint<S: AsRef<OsStr>>(argv: &[S]) -> Result<Option<String>> {
    let output = run(argv)?;
    Ok((!output.status.success()).then(|| last_words(&output.stderr)))
}

/// Runs a command to its end, with /dev/null as standard input.
fn run<S: AsRef<OsStr>>(argv: &[S]) -> Result<Output> {
    let (program, args) = argv.split_first().context("no command")?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.as_ref().display()))
}

/// The last nonblank line of a program's standard error, cut to 160 characters
/// for a remark in a table.
pub fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("without a word");
    let words: String = line.trim().chars().take(160).collect();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_empty_path_everything_is_missing_and_its_package_is_named() {
        let all = missing(OsStr::new(""));
        assert_eq!(all.len(), PEERS.len() + HELPERS.len());
        let words: Vec<String> = all.iter().map(|tool| tool.missing()).collect();
        assert!(words.contains(&"missing: package bubblewrap".to_owned()));
        assert!(words.contains(&"missing: no package; cargo install youki".to_owned()));
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let says = |text| number(text).unwrap();
        assert_eq!(says("runc version 1.1.5+ds1\ncommit: 1.1"), "1.1.5+ds1");
        assert_eq!(says("bubblewrap 0.8.0"), "0.8.0");
        assert_eq!(says("Docker version 28.2.2, build e6"), "28.2.2");
        assert_eq!(says("strace -- version 6.1"), "6.1");
        assert_eq!(number("none"), None);
    }

    #[test]
    fn a_command_prints_or_complains() {
        let script = |script| ["sh", "-c", script];
        assert_eq!(output(&script("cat; echo a")).unwrap(), b"a\n");
        assert_eq!(complaint(&script("echo a >&2")).unwrap(), None);
        let fails = script("echo a; echo b >&2; false");
        assert_eq!(output(&fails).unwrap_err().to_string(), "b");
        assert_eq!(complaint(&fails).unwrap().unwrap(), "b");
        let nothing = complaint(&["/nowhere/at-all"]).unwrap_err();
        assert_eq!(nothing.to_string(), "run /nowhere/at-all");
        assert!(output::<&str>(&[]).is_err());
    }

    #[test]
    fn last_words_are_one_line() {
        assert_eq!(last_words(b"a\nError: b\n\n"), "Error: b");
        assert_eq!(last_words(b""), "without a word");
    }
}

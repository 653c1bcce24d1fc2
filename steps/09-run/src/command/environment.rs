//! The command's environment (environ(7)) and command line: the image's, and
//! what the caller gives instead.
//!
//! Of the caller's own environment only variables that are asked for by name
//! are passed on: it may hold secrets, and its paths are those of the host.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use process::Failure;
use process::LAUNCHER_FAILED;
use process::exec::DEFAULT_PATH;

use crate::cli::options::ProcessArgs;
use crate::image::config::Config;

/// The longest line of an `--env-file`, in bytes: Docker's limit.
const LONGEST: u64 = 64 << 10;
/// The largest `--env-file`, in bytes: more than execve(2) takes.
const MOST: u64 = 8 << 20;

/// Variables in the order in which they were first set, each with its last
/// value.
#[derive(Debug, Default)]
struct Environment {
    pairs: Vec<OsString>,
    places: HashMap<OsString, usize>,
}

impl Environment {
    fn set(&mut self, name: &OsStr, value: &OsStr) {
        let mut pair = name.to_owned();
        pair.push("=");
        pair.push(value);
        match self.places.get(name) {
            Some(place) => self.pairs[*place] = pair,
            None => {
                self.places.insert(name.to_owned(), self.pairs.len());
                self.pairs.push(pair);
            }
        }
    }

    /// Sets a variable to `NAME=VALUE`, or for `NAME` alone to the caller's
    /// value; if the caller has none, the variable is removed, as with Docker.
    fn add(&mut self, variable: &OsStr) -> Result<()> {
        let bytes = variable.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b'=');
        let name = OsStr::from_bytes(&bytes[..end.unwrap_or(bytes.len())]);
        ensure!(
            !name.is_empty(),
            "{variable:?} has no name: use NAME=VALUE or NAME"
        );
        match end {
            Some(end) => self.set(name, OsStr::from_bytes(&bytes[end + 1..])),
            None => match std::env::var_os(name) {
                Some(value) => self.set(name, &value),
                None => self.remove(name),
            },
        }
        Ok(())
    }

    fn remove(&mut self, name: &OsStr) {
        let Some(removed) = self.places.remove(name) else {
            return;
        };
        self.pairs.remove(removed);
        for place in self.places.values_mut().filter(|place| **place > removed) {
            *place -= 1;
        }
    }

    /// Reads variables from a file, one per line, as Docker does (docker/cli,
    /// `kvfile`): a byte order mark, empty lines and those that begin with `#`
    /// are skipped; quotes, and blanks at the end, are part of the value.
    ///
    /// # Errors
    /// If a name contains a blank, as in `export A=b`, if the file has more
    /// than [`MOST`] bytes, or a line more than [`LONGEST`].
    fn add_file(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("open {path:?}"))?;
        let mut file = BufReader::new(file.take(MOST + 1));
        let (mut line, mut size) = (Vec::new(), 0);
        for number in 1.. {
            line.clear();
            let mut rest = (&mut file).take(LONGEST + 1);
            let length = rest.read_until(b'\n', &mut line);
            let length = length.with_context(|| format!("read {path:?}"))? as u64;
            if length == 0 {
                break;
            }
            let place = || format!("{path:?}, line {number}");
            ensure!(
                length <= LONGEST,
                "{}: it is longer than {LONGEST} bytes",
                place()
            );
            size += length;
            ensure!(size <= MOST, "{path:?} has more than {MOST} bytes");
            self.add_line(number, &line).with_context(place)?;
        }
        Ok(())
    }

    fn add_line(&mut self, number: usize, line: &[u8]) -> Result<()> {
        let line = str::from_utf8(line).context("it is not UTF-8")?;
        let mark = if number == 1 { "\u{feff}" } else { "" };
        let line = line.strip_prefix(mark).unwrap_or(line);
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        ensure!(
            !name.contains(char::is_whitespace),
            "the name {name:?} contains a blank: the file is read line by line, not by a shell"
        );
        // Unlike `--env NAME`, a line does not remove what others have set.
        if !line.contains('=') && std::env::var_os(line).is_none() {
            return Ok(());
        }
        self.add(OsStr::new(line))
    }
}

/// The environment of the command. In this order, each overriding the ones
/// before: `PATH` and, with a terminal, `TERM`; the image's variables;
/// `--env-file`; `--env`. What only a start knows is added then: `HOSTNAME`
/// ([`with_hostname`]), and `HOME`, from the container's `/etc/passwd`.
///
/// # Errors
/// If a variable has no name.
pub fn environment(image: &Config, args: &ProcessArgs, tty: bool) -> Result<Vec<OsString>> {
    // ANCHOR: exercise_environment
    let mut environment = Environment::default();
    environment.set(OsStr::new("PATH"), OsStr::new(DEFAULT_PATH));
    if tty {
        environment.set(OsStr::new("TERM"), OsStr::new("xterm"));
    }
    for variable in &image.env {
        // An image's variable without a value does not get the caller's.
        if let Some((name, value)) = variable.split_once('=')
            && !name.is_empty()
        {
            environment.set(OsStr::new(name), OsStr::new(value));
        }
    }
    for path in &args.env_file {
        environment.add_file(path).context("--env-file")?;
    }
    for variable in &args.env {
        environment.add(variable).context("--env")?;
    }
    Ok(environment.pairs)
    // ANCHOR_END: exercise_environment
}

/// Adds the host name that a process sees, unless somebody has said another
/// `HOSTNAME`.
pub fn with_hostname(mut environment: Vec<OsString>, hostname: &OsStr) -> Vec<OsString> {
    let is_of = |name: &str| {
        let begin = format!("{name}=");
        move |pair: &OsString| pair.as_bytes().starts_with(begin.as_bytes())
    };
    if !environment.iter().any(is_of("HOSTNAME")) {
        let mut pair = OsString::from("HOSTNAME=");
        pair.push(hostname);
        let place = environment.iter().position(is_of("PATH"));
        environment.insert(place.map_or(0, |place| place + 1), pair);
    }
    environment
}

/// The environment of a further process in a container: that of the container,
/// overridden by the caller's.
///
/// # Errors
/// If a variable has no name.
pub fn further(
    container: &[OsString],
    given: &[OsString],
    files: &[PathBuf],
) -> Result<Vec<OsString>> {
    let mut environment = Environment::default();
    for variable in container {
        environment.add(variable)?;
    }
    for path in files {
        environment.add_file(path).context("--env-file")?;
    }
    for variable in given {
        environment.add(variable).context("--env")?;
    }
    Ok(environment.pairs)
}

/// The program and its arguments: the entrypoint, then the caller's command, or
/// else the image's. If the caller gives an entrypoint, the image's command is
/// omitted: it holds arguments for the image's entrypoint.
///
/// # Errors
/// A [`Failure`] of status [`LAUNCHER_FAILED`] if neither image nor caller
/// names a command.
// ANCHOR: argv
pub fn argv(
    image: &Config,
    entrypoint: Option<&OsString>,
    command: &[OsString],
) -> Result<Vec<OsString>> {
    // ANCHOR: exercise_command_line
    let owned = |words: &[String]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
    let (mut argv, default) = match entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), Vec::new()),
        Some(program) => (vec![program.clone()], Vec::new()),
        None => {
            let default = image.cmd.as_ref().map_or(&[][..], |words| &words.0);
            (owned(image.entrypoint()), owned(default))
        }
    };
    argv.extend(match command {
        [] => default,
        given => given.to_vec(),
    });
    if argv.is_empty() {
        return Err(Failure::new(
            LAUNCHER_FAILED,
            "no command: the image has no default command; give one after the image's name",
        )
        .into());
    }
    Ok(argv)
    // ANCHOR_END: exercise_command_line
}
// ANCHOR_END: argv

/// Converts an argument of the command line to text.
///
/// # Errors
/// If it is not UTF-8. `what` names it in the error.
pub fn text(what: &str, string: OsString) -> Result<String> {
    String::from_utf8(string.into_vec())
        .map_err(|error| error.utf8_error())
        .with_context(|| format!("{what} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::Words;

    fn image() -> Config {
        Config {
            env: vec!["PATH=/image".into(), "A=1".into(), "B=2".into()],
            entrypoint: Some(Words(vec!["/entry".into()])),
            cmd: Some(Words(vec!["default".into()])),
            ..Config::default()
        }
    }

    #[test]
    fn the_last_word_counts_and_the_callers_environment_stays_outside() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        std::fs::write(&file, "# no\n\nA=from file\nQ=\"q\"\n  C=3\r\n").unwrap();
        let args = ProcessArgs {
            env: vec!["B=x=y".into(), "NO_SUCH_VARIABLE".into(), "E=".into()],
            env_file: vec![file],
            ..ProcessArgs::default()
        };
        let mut image = image();
        image.env.insert(1, "NO_SUCH_VARIABLE=1".into());
        let environment = environment(&image, &args, true).unwrap();
        let environment = with_hostname(environment, OsStr::new("box"));
        assert_eq!(
            with_hostname(environment.clone(), OsStr::new("x")),
            environment
        );
        let expected = [
            "PATH=/image",
            "HOSTNAME=box",
            "TERM=xterm",
            "A=from file",
            "B=x=y",
            "Q=\"q\"",
            "C=3",
            "E=",
        ];
        assert_eq!(environment, expected);
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            let file = directory.path().join("env");
            std::fs::write(&file, text).unwrap();
            let mut environment = Environment::default();
            environment.add_file(&file).map(|()| environment.pairs)
        };
        let text = "\u{feff}A=b\n \t\n#C=d\n  E=f \r\nG='h' # i\nK==\n";
        let pairs = ["A=b", "E=f ", "G='h' # i", "K=="];
        assert_eq!(read(text.as_bytes()).unwrap(), pairs);
        assert_eq!(read(b"A=b").unwrap(), ["A=b"]);
        let long = [b"A=".as_slice(), &vec![b'x'; 70_000]].concat();
        for bad in [b"export A=b\n".as_slice(), b"A =b", b"=b", b"A=\xff", &long] {
            assert!(read(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
        let endless = Environment::default().add_file(Path::new("/dev/zero"));
        assert!(endless.unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn a_variable_needs_a_name() {
        let args = ProcessArgs {
            env: vec!["=x".into()],
            ..ProcessArgs::default()
        };
        let error = environment(&Config::default(), &args, false).unwrap_err();
        assert!(format!("{error:#}").contains("no name"), "{error:#}");
    }

    #[test]
    fn the_command_is_the_images_unless_one_is_given() {
        let run = |entrypoint: Option<&str>, command: &[&str]| {
            let command: Vec<OsString> = command.iter().map(Into::into).collect();
            argv(&image(), entrypoint.map(OsString::from).as_ref(), &command)
        };
        assert_eq!(run(None, &[]).unwrap(), ["/entry", "default"]);
        assert_eq!(run(None, &["x"]).unwrap(), ["/entry", "x"]);
        assert_eq!(run(Some("sh"), &[]).unwrap(), ["sh"]);
        assert_eq!(run(Some("sh"), &["-c"]).unwrap(), ["sh", "-c"]);
        assert_eq!(run(Some(""), &["x"]).unwrap(), ["x"]);
        assert!(run(Some(""), &[]).is_err());
        let reset = Config {
            entrypoint: Some(Words(vec![String::new()])),
            ..image()
        };
        assert_eq!(argv(&reset, None, &[]).unwrap(), ["default"]);
    }
}

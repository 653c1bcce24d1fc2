//! The last act of the child: find the command and become it.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::unistd::execve;

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::sys::c_string;

/// Where commands are looked for when the environment has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container runs: a program, its arguments and its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments; the first is looked up in `PATH` unless
    /// it holds a slash. Never empty.
    pub argv: Vec<OsString>,
    /// The whole environment, as `NAME=VALUE`.
    pub env: Vec<OsString>,
}

impl Command {
    /// `argv` in the caller's environment.
    pub fn new(argv: Vec<OsString>) -> Self {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                let mut pair = name;
                pair.push("=");
                pair.push(value);
                pair
            })
            .collect();
        Command { argv, env }
    }

    fn search_path(&self) -> &OsStr {
        self.env
            .iter()
            .find_map(|pair| pair.as_bytes().strip_prefix(b"PATH="))
            .map_or(OsStr::new(DEFAULT_PATH), OsStr::from_bytes)
    }

    /// The files to try, in order, as execvp(3) would.
    fn candidates(&self, program: &OsStr) -> Vec<PathBuf> {
        if program.as_bytes().contains(&b'/') {
            return vec![program.into()];
        }
        std::env::split_paths(self.search_path())
            .map(|dir| dir.join(program))
            .collect()
    }

    // ANCHOR: exec
    /// Replaces this process by the command: execve(2). Returns only if that
    /// could not be done.
    ///
    /// # Errors
    /// A [`Failure`] of status 127 where there is no such command (`ENOENT`),
    /// which names the missing interpreter where the file itself exists; 126
    /// where there is one that cannot be executed (`EACCES`, `ENOEXEC`…).
    pub(crate) fn exec(&self) -> Result<Infallible> {
        // ANCHOR: exercise_execve
        let strings = |list: &[OsString]| {
            list.iter()
                .map(|s| c_string(s))
                .collect::<Result<Vec<CString>>>()
        };
        let (argv, env) = (strings(&self.argv)?, strings(&self.env)?);
        let program = self.argv.first().context("no command given")?;
        if program.is_empty() {
            return Err(Failure::new(NOT_FOUND, "the command is an empty string").into());
        }
        // A file that cannot be executed does not end the search, but it is a
        // better thing to report than that the other directories have none.
        let mut refused = None;
        for path in self.candidates(program) {
            let file = c_string(path.as_os_str())?;
            let Err(errno) = execve(&file, &argv, &env);
            match errno {
                Errno::ENOENT if path.symlink_metadata().is_err() => {}
                Errno::ENOTDIR => {}
                _ => refused = refused.or(Some(why_refused(&path, errno))),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let place = if program.as_bytes().contains(&b'/') {
                String::new()
            } else {
                format!(" in PATH={}", self.search_path().display())
            };
            Failure::new(
                NOT_FOUND,
                format!("execve({program:?}): ENOENT: no such command{place}"),
            )
            .into()
        }))
        // ANCHOR_END: exercise_execve
    }
    // ANCHOR_END: exec
}

/// The error for a file that is there and yet was not executed.
fn why_refused(path: &Path, errno: Errno) -> Error {
    let (status, why) = match errno {
        Errno::ENOENT => (
            NOT_FOUND,
            match interpreter(path) {
                Some(interpreter) => format!(
                    "the file exists, but its interpreter {} does not: use a statically linked \
                     program, or a root file system that has the interpreter",
                    interpreter.display()
                ),
                None => "it is a link to a file that does not exist".to_owned(),
            },
        ),
        Errno::EACCES if path.is_dir() => (NOT_EXECUTABLE, "it is a directory".to_owned()),
        Errno::EACCES => (
            NOT_EXECUTABLE,
            "it may not be executed: check its mode (chmod +x), its directories, and whether \
             its file system is mounted noexec"
                .to_owned(),
        ),
        Errno::ENOEXEC => (
            NOT_EXECUTABLE,
            "it is neither a program for this machine nor a script that begins with #!".to_owned(),
        ),
        other => (NOT_EXECUTABLE, other.desc().to_owned()),
    };
    Failure::new(status, format!("execve({path:?}): {errno:?}: {why}")).into()
}

/// The program that the kernel needs to run this file: `PT_INTERP` of an ELF
/// file (elf(5)), or the rest of a `#!` line (execve(2)).
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut file = File::open(path).ok()?;
    let mut magic = [0; 2];
    file.read_exact(&mut magic).ok()?;
    if &magic == b"#!" {
        let mut line = Vec::new();
        BufReader::new(file)
            .take(256)
            .read_until(b'\n', &mut line)
            .ok()?;
        let word = line
            .split(|b| b.is_ascii_whitespace())
            .find(|word| !word.is_empty())?;
        return Some(OsString::from_vec(word.to_vec()).into());
    }
    file.rewind().ok()?;
    let mut elf = elf::ElfStream::<elf::endian::AnyEndian, _>::open_stream(file).ok()?;
    let header = elf
        .segments()
        .iter()
        .find(|segment| segment.p_type == elf::abi::PT_INTERP)
        .copied()?;
    let bytes = elf.segment_data(&header).ok()?;
    let name = bytes.split(|b| *b == 0).next()?;
    Some(OsString::from_vec(name.to_vec()).into())
}

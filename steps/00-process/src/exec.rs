//! Execution of the command: the lookup in `PATH`, then execve(2).

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use elf::ParseError;
use elf::abi::PT_INTERP;
use elf::endian::AnyEndian;
use elf::file::{FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::inside;
use kit::sys::{Arguments, c_string};

/// The search path for commands if the environment has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command of a container: a program, its arguments and its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments; the first is looked up in `PATH` unless
    /// it contains a slash. Never empty.
    pub argv: Vec<OsString>,
    /// The complete environment: `NAME=VALUE` strings.
    pub env: Vec<OsString>,
}

impl Command {
    /// Creates a command with the caller's environment.
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

    /// The paths to try, in the order of execvp(3).
    fn candidates(&self, program: &OsStr) -> Vec<PathBuf> {
        if program.as_bytes().contains(&b'/') {
            return vec![program.into()];
        }
        std::env::split_paths(self.search_path())
            .map(|dir| dir.join(program))
            .collect()
    }

    // ANCHOR: exec
    /// Replaces this process with the command: execve(2). Returns only if that
    /// fails. If `program` is given, executes that file instead of looking the
    /// command up. Calls `seal` when only execve(2) itself is left to do.
    ///
    /// # Errors
    /// A [`Failure`] of status 127 if there is no such command (`ENOENT`), or
    /// if the file exists but its interpreter does not: the message then names
    /// the interpreter. A [`Failure`] of status 126 if the file cannot be
    /// executed (`EACCES`, `ENOEXEC`…), or if a magic link leads to it. An error
    /// of `seal`.
    pub(crate) fn exec(
        &self,
        program: Option<BorrowedFd<'_>>,
        seal: impl FnOnce() -> Result<()>,
    ) -> Result<Infallible> {
        // ANCHOR: exercise_execve
        let arguments = Arguments::new(&self.argv, &self.env)?;
        if let Some(own) = program {
            seal()?;
            return Err(arguments.execve_open(own)).context("execveat(the engine's own program)");
        }
        let program = self.argv.first().context("no command given")?;
        if program.is_empty() {
            return Err(Failure::new(NOT_FOUND, "the command is an empty string").into());
        }
        let mut candidates = Vec::new();
        for path in self.candidates(program) {
            candidates.push(Candidate {
                file: c_string(path.as_os_str())?,
                magic: refuse_magic(&path, INTERPRETERS),
                missing: path.symlink_metadata().is_err(),
                path,
            });
        }
        seal()?;
        // The search continues after a file that cannot be executed. If no
        // other directory has the command, that file is the error to report.
        let mut refused = None;
        for candidate in candidates {
            candidate.magic?;
            let errno = arguments.execve(&candidate.file);
            match errno {
                Errno::ENOENT if candidate.missing => {}
                Errno::ENOTDIR => {}
                _ => refused = refused.or(Some(why_refused(&candidate.path, errno))),
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

/// A file that may be the command.
struct Candidate {
    path: PathBuf,
    file: CString,
    /// Whether execve(2) may be tried at all.
    magic: Result<()>,
    missing: bool,
}

/// The error for a file that exists but was not executed.
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
                None => "it is a dangling symbolic link".to_owned(),
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

/// The kernel's limit on nested interpreters: scripts whose interpreter is a
/// script (execve(2)).
const INTERPRETERS: usize = 5;

/// Refuses a program if a magic link leads to it or to its interpreter. Until
/// execve(2), `/proc/self/exe` is the engine's program on the host: a container
/// that could execute it could also get hold of it (CVE-2019-5736). Missing and
/// unreadable files are left to execve(2), which reports them.
///
/// # Errors
/// A [`Failure`] of status 126 that names the path.
// ANCHOR: refuse_magic
fn refuse_magic(path: &Path, depth: usize) -> Result<()> {
    match inside::open(path, OFlag::O_PATH) {
        Ok(_) => {}
        Err(Errno::ELOOP) => {
            let why = format!(
                "execve({path:?}): refused: ELOOP: too many symbolic links, or one of /proc that \
                 leads to a program of another container or of the host"
            );
            return Err(Failure::new(NOT_EXECUTABLE, why).into());
        }
        Err(Errno::ENOSYS) => return Err(Errno::ENOSYS).context("openat2"),
        Err(_) => return Ok(()),
    }
    let Some(next) = interpreter(path).filter(|_| depth > 0) else {
        return Ok(());
    };
    refuse_magic(&next, depth - 1).with_context(|| format!("the interpreter of {path:?}"))
}
// ANCHOR_END: refuse_magic

/// Refuses a program of the container that leads, by itself or by its
/// interpreter, to the engine's own: for a process other than the command.
///
/// # Errors
/// As for a command.
pub fn refuse_own_program(path: &Path) -> Result<()> {
    refuse_magic(path, INTERPRETERS)
}

/// The interpreter of a file: `PT_INTERP` of an ELF file (elf(5)), or the first
/// word after `#!` (execve(2)).
fn interpreter(path: &Path) -> Option<PathBuf> {
    // O_NONBLOCK: open(2) of a FIFO would wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(inside::open(path, flags).ok()?);
    if !inside::is_regular(&file).ok()? {
        return None;
    }
    // The kernel reads the same number of bytes (BINPRM_BUF_SIZE).
    let mut start = [0; 256];
    let length = file.read_at(&mut start, 0).ok()?;
    let name = match start[..length].strip_prefix(b"#!") {
        Some(rest) => rest
            .split(|b| *b == b'\n')
            .next()?
            .split(|b| matches!(b, b' ' | b'\t' | 0))
            .find(|word| !word.is_empty())?
            .to_vec(),
        None => elf_interpreter(&file, &start[..length]).ok()??,
    };
    Some(OsString::from_vec(name).into())
}

/// Reads `PT_INTERP` of an ELF file. Lengths from the file are checked against
/// the kernel's limits (`load_elf_phdrs`, `PATH_MAX`) before anything is read.
fn elf_interpreter(file: &File, start: &[u8]) -> Result<Option<Vec<u8>>, ParseError> {
    const TABLE: usize = 64 * 1024;
    const NAME: u64 = libc::PATH_MAX as u64;
    // The length of a 64-bit header, which the library does not check.
    if start.len() < 64 {
        return Ok(None);
    }
    let ident = parse_ident::<AnyEndian>(start)?;
    let (endian, class) = (ident.0, ident.1);
    let tail = start.get(elf::abi::EI_NIDENT..).unwrap_or_default();
    let header = FileHeader::parse_tail(ident, tail)?;
    let length = usize::from(header.e_phnum) * usize::from(header.e_phentsize);
    if length > TABLE {
        return Ok(None);
    }
    let mut table = vec![0; length];
    file.read_exact_at(&mut table, header.e_phoff)?;
    let is_interpreter = |segment: &ProgramHeader| segment.p_type == PT_INTERP;
    let found = SegmentTable::new(endian, class, &table)
        .iter()
        .find(is_interpreter);
    let Some(segment) = found.filter(|segment| segment.p_filesz <= NAME) else {
        return Ok(None);
    };
    let mut name = vec![0; segment.p_filesz as usize];
    file.read_exact_at(&mut name, segment.p_offset)?;
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_read_with_limits() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let found = |bytes: &[u8]| {
            std::fs::write(at("file"), bytes).unwrap();
            interpreter(&at("file"))
        };
        assert_eq!(found(b"#! /bin/sh -x\n"), Some("/bin/sh".into()));
        assert_eq!(found(b"#!\n/bin/sh\n"), None);
        assert_eq!(found(b"#!"), None);
        assert_eq!(found(b""), None);
        // A 64-bit header whose one segment is an interpreter at offset 120.
        let mut elf = vec![0; 128];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[20] = 1;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 3;
        elf[72] = 120;
        elf[96] = 8;
        elf[120..124].copy_from_slice(b"/ld\0");
        assert_eq!(found(&elf), Some("/ld".into()));
        // Lengths that nobody could read: of the name, then of the table.
        elf[96..104].copy_from_slice(&[0xff; 8]);
        assert_eq!(found(&elf), None);
        elf[54..58].copy_from_slice(&[0xff; 4]);
        assert_eq!(found(&elf), None);
    }

    #[test]
    fn what_a_magic_link_leads_to_is_not_executed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("/proc/self/exe", at("link")).unwrap();
        std::fs::write(at("script"), "#!/proc/self/exe\n").unwrap();
        std::fs::write(at("second"), format!("#!{}\n", at("script").display())).unwrap();
        std::fs::write(at("good"), "#!/bin/sh\n").unwrap();
        for name in ["link", "script", "second"] {
            let error = refuse_magic(&at(name), INTERPRETERS).unwrap_err();
            assert_eq!(Failure::status_of(&error), NOT_EXECUTABLE, "{name}");
        }
        for name in ["good", "nothing"] {
            refuse_magic(&at(name), INTERPRETERS).unwrap();
        }
    }
}

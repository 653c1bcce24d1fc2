//! Compiled programs, kept from one start to the next.
//!
//! A file's name is the digest of all that its program depends on: the profile,
//! the machine, the capabilities, the kernel, and this compiler. Nothing is
//! ever out of date, and nothing needs to be looked up in a list.
//!
//! Whoever can write to the cache decides what containers may do. So a file
//! counts only if it, and its directory, belong to the caller or to root, and
//! nobody else may write to them; and if its content has the digest that it
//! begins with: a file that was cut off, as by a full disk, is made anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::own::{make, read_own, remove_file, require_own};
use kit::{atomic_file, say, warn};
use libc::sock_filter;
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use crate::seccomp::action::Action;
use crate::seccomp::bpf::{Instruction, LONGEST};
use crate::seccomp::compile::compile;
use crate::seccomp::profile::Profile;
use crate::seccomp::resolve::Situation;

/// A filter, ready to be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The instructions.
    pub code: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// What the author of the profile should know.
    pub notes: Vec<String>,
}

impl Program {
    /// Compiles a profile.
    pub fn new(profile: &Profile, situation: &Situation) -> Result<Program> {
        let filter = profile.resolve(situation)?;
        Ok(Program {
            code: compile(&filter)?,
            flags: filter.flags,
            notes: filter.notes,
        })
    }

    /// Whether another process decides on some calls.
    pub fn asks(&self) -> bool {
        let notify = Instruction::Return(Action::Notify.value());
        let mut code = self.code.iter();
        code.any(|one| Instruction::decode(one) == Some(notify))
    }
}

/// The file of the running program, which is also the compiler: another build
/// has another inode, size or time.
fn compiler() -> Result<[u64; 5]> {
    let file = fs::metadata("/proc/self/exe").context("stat /proc/self/exe")?;
    let times = [file.mtime(), file.mtime_nsec()].map(i64::cast_unsigned);
    Ok([file.dev(), file.ino(), file.len(), times[0], times[1]])
}

/// How many programs are kept. One more, and all are made anew as they are
/// needed.
const MOST: usize = 100;
/// The largest file: a program of the kernel's maximum, and its notes.
const LARGEST: u64 = 1 << 20;
const DIGEST: usize = 32;

/// A directory of compiled programs.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache in `directory`, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Cache {
        Cache {
            directory: directory.into(),
        }
    }

    /// The cache of this user: below `$DRYDOCK_STATE`, or /run/drydock for root,
    /// or the user's runtime directory. `None` for a user without one.
    pub fn of_caller() -> Option<Cache> {
        let base: PathBuf =
            match std::env::var_os("DRYDOCK_STATE").filter(|directory| !directory.is_empty()) {
                Some(directory) => directory.into(),
                None if geteuid().is_root() => "/run/drydock".into(),
                None => {
                    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                    runtime
                        .filter(|runtime| runtime.is_absolute())?
                        .join("drydock")
                }
            };
        Some(Cache::new(base.join("seccomp")))
    }

    // ANCHOR: program
    /// The program for a profile, from the cache if it is there, else compiled
    /// and put there. A cache that cannot be used costs time, and nothing else.
    ///
    /// # Errors
    /// A profile that cannot be read, resolved or compiled.
    pub fn program(&self, text: &str, situation: &Situation) -> Result<Program> {
        let path = self.directory.join(key(text, situation)?);
        match self.read(&path) {
            Ok(Some(program)) => {
                say!("seccomp: the program is in {}", path.display());
                return Ok(program);
            }
            Ok(None) => {}
            Err(error) => warn!("seccomp: the cache is not used: {error:#}"),
        }
        let program = Program::new(&text.parse()?, situation)?;
        say!("seccomp: compiled to {} instructions", program.code.len());
        if let Err(error) = self.write(&path, &program) {
            say!("seccomp: the program is not kept: {error:#}");
        }
        Ok(program)
    }
    // ANCHOR_END: program

    fn read(&self, path: &Path) -> Result<Option<Program>> {
        if !self.directory.exists() {
            return Ok(None);
        }
        require_own(&self.directory)?;
        let Some(bytes) = read_own(path, LARGEST)? else {
            return Ok(None);
        };
        Ok(decode(&bytes))
    }

    fn write(&self, path: &Path, program: &Program) -> Result<()> {
        // Others may have to look up files beside it.
        if let Some(above) = self.directory.parent() {
            make(above, 0o755)?;
        }
        make(&self.directory, 0o700)?;
        require_own(&self.directory)?;
        let entries = fs::read_dir(&self.directory).context("read the cache")?;
        let files: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        if files.len() >= MOST {
            for file in files {
                remove_file(&file)?;
            }
        }
        atomic_file::write_file(path, encode(program))
    }
}

/// The name of the file: the digest of all that a program depends on.
fn key(text: &str, situation: &Situation) -> Result<String> {
    let Situation {
        native,
        capabilities,
        kernel,
    } = situation;
    let mut digest = Sha256::new();
    for number in compiler()? {
        digest.update(number.to_le_bytes());
    }
    digest.update(native.audit_arch().to_le_bytes());
    digest.update(capabilities.bits().to_le_bytes());
    digest.update(kernel.0.to_le_bytes());
    digest.update(kernel.1.to_le_bytes());
    digest.update(text);
    let mut name = String::with_capacity(2 * DIGEST);
    for byte in digest.finalize() {
        name.push_str(&format!("{byte:02x}"));
    }
    Ok(name)
}

/// Digest of the rest, flags, number of instructions, instructions, notes.
fn encode(program: &Program) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(program.flags.to_le_bytes());
    body.extend((program.code.len() as u32).to_le_bytes());
    for one in &program.code {
        body.extend(one.code.to_le_bytes());
        body.extend([one.jt, one.jf]);
        body.extend(one.k.to_le_bytes());
    }
    body.extend(program.notes.join("\n").into_bytes());
    let mut file = Sha256::digest(&body).to_vec();
    file.extend(body);
    file
}

/// `None` for anything that [`encode`] has not made.
fn decode(file: &[u8]) -> Option<Program> {
    let (digest, body) = file.split_at_checked(DIGEST)?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
    let (flags, rest) = body.split_at_checked(4)?;
    let (count, rest) = rest.split_at_checked(4)?;
    let count = number(count)? as usize;
    if count > LONGEST {
        return None;
    }
    let (code, notes) = rest.split_at_checked(8 * count)?;
    let code = code.chunks_exact(8).map(|one| {
        Some(sock_filter {
            code: u16::from_le_bytes([one[0], one[1]]),
            jt: one[2],
            jf: one[3],
            k: number(&one[4..])?,
        })
    });
    let notes = std::str::from_utf8(notes).ok()?;
    Some(Program {
        code: code.collect::<Option<_>>()?,
        flags: number(flags)?,
        notes: notes.lines().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::abi::Abi;
    use crate::seccomp::builtin::DEFAULT;
    use crate::seccomp::profile::KernelVersion;
    use rustix::thread::CapabilitySet;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    fn situation(capabilities: CapabilitySet) -> Situation {
        Situation {
            native: Abi::X86_64,
            capabilities,
            kernel: KernelVersion(6, 1),
        }
    }

    #[test]
    fn a_damaged_or_planted_file_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("seccomp"));
        let here = situation(CapabilitySet::CHOWN);
        let program = cache.program(DEFAULT, &here).unwrap();
        let path = cache.directory.join(key(DEFAULT, &here).unwrap());
        let whole = fs::read(&path).unwrap();
        assert_eq!(cache.read(&path).unwrap().unwrap(), program);
        for cut in [0, 10, 40, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(cache.read(&path).unwrap(), None);
            assert_eq!(cache.program(DEFAULT, &here).unwrap(), program);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        let mut other = whole.clone();
        other[50] ^= 1;
        fs::write(&path, &other).unwrap();
        assert_eq!(cache.read(&path).unwrap(), None);
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o602)).unwrap();
        assert!(cache.read(&path).is_err());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(cache.read(&path).is_err());
        assert_eq!(cache.program(DEFAULT, &here).unwrap(), program);
        fs::set_permissions(&cache.directory, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(cache.read(&path).is_err());
        assert_eq!(cache.program(DEFAULT, &here).unwrap(), program);
        assert_ne!(
            key(DEFAULT, &here).unwrap(),
            key(DEFAULT, &situation(CapabilitySet::KILL)).unwrap()
        );
    }

    #[test]
    fn the_cache_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        for n in 0..=MOST {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        cache
            .program(DEFAULT, &situation(CapabilitySet::empty()))
            .unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -- --ignored --nocapture"]
    fn how_long_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let median = |what: &mut dyn FnMut()| {
            let mut times: Vec<_> = (0..101)
                .map(|_| {
                    let start = Instant::now();
                    what();
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[50]
        };
        let here = situation(CapabilitySet::CHOWN);
        let parsed = median(&mut || drop(DEFAULT.parse::<Profile>().unwrap()));
        let profile: Profile = DEFAULT.parse().unwrap();
        let resolved = median(&mut || drop(profile.resolve(&here).unwrap()));
        let filter = profile.resolve(&here).unwrap();
        let compiled = median(&mut || drop(compile(&filter).unwrap()));
        let first = median(&mut || {
            drop(Program::new(&DEFAULT.parse().unwrap(), &here).unwrap());
        });
        cache.program(DEFAULT, &here).unwrap();
        let cached = median(&mut || drop(cache.program(DEFAULT, &here).unwrap()));
        kit::outln!("parse {parsed:?}, resolve {resolved:?}, compile {compiled:?}").unwrap();
        kit::outln!("all {first:?}, from the cache {cached:?}").unwrap();
    }
}

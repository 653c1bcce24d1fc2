//! The jail of a submission's compiler: it can read the toolchain, the
//! libraries and the submission, and nothing else of this machine.
//!
//! A source can make rustc, the linker and the assembler read files in
//! endlessly many ways: macros that make up the name of a macro, attributes,
//! linker scripts that pass for Rust. So the teacher's files are not protected
//! by looking for words but by the kernel: by landlock(7), which an ordinary
//! user and a container without privileges have too, or by a mount namespace in
//! which the other files do not exist. The harness tries whether one of them
//! holds; if none does, nothing is compiled.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, make_bitflags, path_beneath_rules,
};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{getegid, geteuid};

use super::limited;
use check::sys;

/// The system's directories: programs, libraries, and the files that find a
/// linker. Packages fill them, so nothing in them is the teacher's.
pub const SYSTEM: [&str; 11] = [
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/etc/alternatives",
    "/etc/ld.so.cache",
];

/// System calls that a compiler does not need, and that lead to other
/// processes, to keys, and to the network, of which landlock(7) covers only a
/// part.
const CALLS: [libc::c_long; 8] = [
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_pidfd_getfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// The kernel's mechanism that confines the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jail {
    /// landlock(7) of Linux 5.19 or newer. Older ones refuse every rename from
    /// one directory to another.
    Landlock,
    /// mount_namespaces(7), by root or in a user namespace.
    Namespaces,
}

/// The paths that exist inside besides [`SYSTEM`], under the same names as
/// outside.
#[derive(Debug, Default)]
pub struct View {
    /// Readable directories.
    pub read: Vec<PathBuf>,
    /// The directory that is also writable.
    pub write: PathBuf,
    /// An empty directory, in which another root can be assembled.
    pub root: PathBuf,
}

impl Jail {
    /// The first mechanism that holds on this machine.
    ///
    /// # Errors
    /// If none holds: says why, and what would help.
    pub fn find() -> Result<Jail> {
        let mut why = String::new();
        for jail in [Jail::Landlock, Jail::Namespaces] {
            match jail.holds() {
                Ok(()) => return Ok(jail),
                Err(error) => why += &format!("\n  {}: {error:#}", jail.name()),
            }
        }
        bail!(
            "no submission is compiled: on this machine its compiler could read your files.{why}\n\
             One of the two is needed. Landlock: Linux 5.19 or newer, with landlock in its list of \
             security modules (lsm= on the kernel's command line); in a container, a runtime that \
             allows it, such as Docker from version 23. Namespaces: root, but not in a container; \
             or user namespaces for everybody (sysctl user.max_user_namespaces)"
        )
    }

    fn name(self) -> &'static str {
        match self {
            Jail::Landlock => "Landlock",
            Jail::Namespaces => "namespaces",
        }
    }

    /// Tries whether the mechanism shows the files that it should show, and
    /// hides the others.
    ///
    /// # Errors
    /// Says which of the two fails.
    pub fn holds(self) -> Result<()> {
        let dir = tempfile::tempdir().context("make a temporary directory")?;
        let view = View {
            read: vec![dir.path().join("shown")],
            write: dir.path().join("out"),
            root: dir.path().join("root"),
        };
        for name in ["shown", "out", "root", "hidden"] {
            let dir = dir.path().join(name);
            fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
            let file = dir.join("file");
            if name != "root" {
                fs::write(&file, "secret\n").with_context(|| format!("write {name}/file"))?;
            }
        }
        let script = "cat shown/file >out/copy || exit 2; cat hidden/file && exit 3; exit 0";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        self.confine(&mut command, &view, dir.path())?;
        let ended = limited::run(&mut command, Duration::from_secs(20)).context(match self {
            Jail::Landlock => "landlock_restrict_self",
            Jail::Namespaces => "unshare, mount or pivot_root",
        })?;
        match ended.status.code() {
            Some(0) => Ok(()),
            Some(3) => bail!("what should be hidden can be read"),
            _ => bail!(
                "what should be shown cannot be used: {}",
                ended.output.trim()
            ),
        }
    }

    /// Confines `command`, which starts in `cwd`. It inherits only the standard
    /// streams.
    pub fn confine(self, command: &mut Command, view: &View, cwd: &Path) -> Result<()> {
        match self {
            Jail::Landlock => {
                command.current_dir(cwd);
                sys::confine::landlock_child(command, ruleset(view)?);
            }
            Jail::Namespaces => sys::confine::enter_root(command, root(view, cwd)?),
        }
        sys::confine::forbid_child(command, &CALLS, Errno::EPERM);
        Ok(())
    }
}

/// The Landlock rules: read and execute, write in one directory, no network, no
/// signals to other processes.
fn ruleset(view: &View) -> Result<OwnedFd> {
    let read = AccessFs::from_read(ABI::V1);
    let write = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg
        | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer});
    let shown = view.read.iter().map(PathBuf::as_path);
    let shown: Vec<&Path> = shown.chain(SYSTEM.map(Path::new)).collect();
    let made = || -> Result<Option<OwnedFd>, landlock::RulesetError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V2))?
            // Rights that only later kernels know.
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(shown, read))?
            .add_rules(path_beneath_rules([&view.write], write))?
            .add_rules(path_beneath_rules(["/dev/null"], write))?;
        Ok(ruleset.into())
    };
    match made() {
        Ok(Some(ruleset)) => Ok(ruleset),
        // The cause is a list of rights that this kernel does not know.
        Ok(None) | Err(landlock::RulesetError::HandleAccesses(_)) => {
            bail!("landlock_create_ruleset: there is none, or it is older than Linux 5.19")
        }
        Err(error) => Err(error).context("landlock_create_ruleset"),
    }
}

/// A root with the view's paths: mount points, each for the path of the same
/// name outside.
fn root(view: &View, cwd: &Path) -> Result<sys::confine::Root> {
    let lasting = MsFlags::MS_NOSUID;
    let unchanged = lasting | MsFlags::MS_RDONLY;
    let mut shown: Vec<(&Path, MsFlags)> = Vec::new();
    shown.extend(SYSTEM.map(|path| (Path::new(path), unchanged)));
    shown.extend(view.read.iter().map(|path| (path.as_path(), unchanged)));
    shown.push((&view.write, lasting | MsFlags::MS_NOEXEC));
    shown.push((Path::new("/dev/null"), lasting));
    let mut binds = Vec::new();
    for (path, flags) in shown {
        let about = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            about => about.with_context(|| format!("stat {}", path.display()))?,
        };
        let to = within(&view.root, path);
        if about.is_dir() {
            fs::create_dir_all(&to).with_context(|| format!("mkdir {}", to.display()))?;
        } else {
            let dir = to.parent().unwrap_or(&to);
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
            fs::write(&to, "").with_context(|| format!("create {}", to.display()))?;
        }
        let flags = match about.file_type().is_char_device() {
            true => flags,
            false => flags | MsFlags::MS_NODEV,
        };
        binds.push((text(path)?, text(&to)?, flags | locked(path)?));
    }
    let proc = view.root.join("proc");
    for dir in [&proc, &within(&view.root, cwd)] {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    let ids = [geteuid().as_raw(), getegid().as_raw()];
    Ok(sys::confine::Root {
        dir: text(&view.root)?,
        binds,
        proc: text(&proc)?,
        cwd: text(cwd)?,
        maps: ids.map(|id| format!("{id} {id} 1\n")),
    })
}

/// The path of `path` below another root.
fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The flags of the mount at `path` that a user namespace may not clear:
/// mount(2) fails with `EPERM`.
fn locked(path: &Path) -> Result<MsFlags> {
    let about = statvfs(path).with_context(|| format!("statvfs {}", path.display()))?;
    let known = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let set = known
        .into_iter()
        .filter(|(flag, _)| about.flags().contains(*flag));
    Ok(set.map(|(_, flag)| flag).collect())
}

fn text(path: &Path) -> Result<CString> {
    ensure!(
        path.is_absolute(),
        "{} is not an absolute path",
        path.display()
    );
    CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("{}: a path with NUL", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_is_found_here() -> Result<()> {
        Jail::find().map(drop)
    }

    #[test]
    fn there_is_no_network() -> Result<()> {
        let dir = tempfile::tempdir()?;
        for name in ["out", "root"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let view = View {
            read: Vec::new(),
            write: dir.path().join("out"),
            root: dir.path().join("root"),
        };
        // bash opens a socket for a file of this name.
        let mut command = Command::new("bash");
        command.args(["-c", "exec 3<>/dev/udp/127.0.0.1/9"]);
        assert!(command.status()?.success());
        Jail::find()?.confine(&mut command, &view, dir.path())?;
        let ended = limited::run(&mut command, Duration::from_secs(20))?;
        assert!(
            ended.output.contains("Operation not permitted"),
            "{}",
            ended.output
        );
        Ok(())
    }
}

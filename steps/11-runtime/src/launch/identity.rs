//! Who the command is, and what it may: IDs, capabilities, and the filter.
//!
//! Step 10 explains the order. Here the configuration has five sets of
//! capabilities. execve(2) computes new ones from them (capabilities(7)), and
//! for root only the bounding and the inheritable set count, unless
//! `PR_SET_NO_NEW_PRIVS` forbids to gain any. Without that, `CAP_SYS_ADMIN` is
//! needed for the filter up to execve(2) itself, which takes it away.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use engine::command::ulimit::Ulimits;
use harden::Door;
use harden::capabilities::{bound, names};
use harden::seccomp::listener::{Listener, Which};
use harden::seccomp::profile::Profile;
use kit::sys::MemoryPolicy;
use kit::{say, sys, warn};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};
use process::{Command, Isolation};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets as Sets, capabilities,
    clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities,
};
use serde_json::Value;
use user::credentials::set_groups;

use crate::config::check::{CapabilitySets, CheckedProcess};

/// The umask of a process whose configuration has none, as runc's.
const UMASK: u32 = 0o022;

/// The isolation that makes a process who it shall be. Add it after everything
/// that needs the rights of root.
pub(crate) struct Identity {
    pub process: CheckedProcess,
    pub door: Door,
    /// Who decides on calls, if the filter asks anybody.
    pub asked: Option<Asked>,
    pub listener: Option<Listener>,
    pub new_keyring: bool,
    pub personality: Option<u32>,
    pub memory_policy: Option<MemoryPolicy>,
}

/// A filter that asks another process, and what that is told.
#[derive(Debug)]
pub(crate) struct Asked {
    pub profile: Profile,
    pub state: Value,
    pub which: Which,
}

impl Identity {
    pub(crate) fn limits(process: &CheckedProcess) -> Ulimits {
        Ulimits::new(process.limits.clone())
    }

    fn session(&self) -> Result<()> {
        let process = &self.process;
        // Before the keyring, which gets the label too.
        if !process.raw.selinux_label.is_empty() {
            harden::label::selinux(&process.raw.selinux_label).context("process.selinuxLabel")?;
        }
        if self.new_keyring {
            sys::new_session_keyring()?;
        }
        if let Some(domain) = self.personality {
            sys::personality(domain)?;
        }
        if let Some(scheduler) = process.scheduler {
            sys::set_scheduler(scheduler).context("process.scheduler")?;
        }
        if let Some((class, level)) = process.io_priority {
            sys::set_io_priority(class, level).context("process.ioPriority")?;
        }
        if let Some(policy) = &self.memory_policy {
            sys::set_memory_policy(policy).context("linux.memoryPolicy")?;
        }
        if let Some(profile) = &process.apparmor {
            harden::label::apparmor(profile)?;
        }
        Ok(())
    }
}

impl Isolation for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    /// Refuses limits and warns of capabilities that the runtime cannot grant,
    /// while `create` can still say so.
    fn prepare(&mut self) -> Result<()> {
        let own = capabilities(None).context("capget")?.permitted;
        if !own.contains(CapabilitySet::SYS_RESOURCE) {
            for limit in &self.process.limits {
                limit.require_possible().context("process.rlimits")?;
            }
        }
        let lacking = self.process.capabilities.all() - own;
        if !lacking.is_empty() {
            // The specification wants a warning (config.md “capabilities”).
            warn!(
                "process.capabilities: {} cannot be granted: the runtime does not have it",
                names(lacking)
            );
        }
        if let (Some(program), Some(asked)) = (&self.door.program, &self.asked) {
            self.listener =
                Listener::connect(program, &asked.profile, asked.state.clone(), asked.which)
                    .context("linux.seccomp")?;
        }
        Ok(())
    }

    /// The connection to the process that decides on calls.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.listener.iter().flat_map(Listener::keeps).collect()
    }

    fn seals_with(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(Listener::socket)
    }

    fn in_container(&mut self) -> Result<()> {
        self.listener.as_mut().map_or(Ok(()), Listener::hear)
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        if let Some(listener) = self.listener.take() {
            listener.tell(child)?;
        }
        let Some(score) = self.process.raw.oom_score_adj else {
            return Ok(());
        };
        let file = format!("/proc/{child}/oom_score_adj");
        std::fs::write(&file, score.to_string()).with_context(|| {
            format!(
                "process.oomScoreAdj: write {score} to {file}: a score below the caller's own \
                 needs CAP_SYS_RESOURCE"
            )
        })
    }

    // ANCHOR: before_exec
    fn before_exec(&mut self) -> Result<()> {
        self.session()?;
        // ANCHOR: exercise_sets
        let user = &self.process.raw.user;
        umask(Mode::from_bits_truncate(user.umask.unwrap_or(UMASK)));
        set_capabilities_secure_bits(CapabilitiesSecureBits::empty())
            .context("prctl(PR_SET_SECUREBITS, 0)")?;
        let wanted = self.process.capabilities;
        let own = capabilities(None).context("capget")?.permitted;
        // The inheritable set may have nothing that is not bounding, so it is
        // set before the bounding set loses anything.
        let inheritable = wanted.inheritable & own;
        let held = Sets {
            effective: own,
            permitted: own,
            inheritable,
        };
        clear_ambient_capability_set().context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
        set_capabilities(None, held).context("capset")?;
        bound(wanted.bounding)?;
        set_keep_capabilities(true).context("prctl(PR_SET_KEEPCAPS)")?;
        set_groups(&user.additional_gids)?;
        let gid = Gid::from_raw(user.gid);
        setresgid(gid, gid, gid).with_context(|| format!("setresgid({gid})"))?;
        let uid = Uid::from_raw(user.uid);
        setresuid(uid, uid, uid).with_context(|| format!("setresuid({uid})"))?;
        let last = match self.door.no_new_privileges {
            true => Sets {
                effective: wanted.effective & wanted.permitted & own,
                permitted: wanted.permitted & own,
                inheritable,
            },
            false => held,
        };
        set_capabilities(None, last).context("capset")?;
        let ambient = wanted.ambient & wanted.permitted & last.permitted & inheritable;
        for one in ambient.iter() {
            configure_capability_in_ambient_set(one, true)
                .with_context(|| format!("prctl(PR_CAP_AMBIENT_RAISE, {one:?})"))?;
        }
        Ok(())
        // ANCHOR_END: exercise_sets
    }
    // ANCHOR_END: before_exec

    fn seal(&mut self) -> Result<()> {
        self.door.close(self.listener.as_ref())
    }

    fn cleanup(&mut self) -> Result<()> {
        self.listener = None;
        Ok(())
    }
}

/// Whether a process with these capabilities may look into others.
pub(crate) fn may_trace(sets: CapabilitySets) -> bool {
    sets.all().contains(CapabilitySet::SYS_PTRACE)
}

/// The isolation that makes sure of the command while `create` can still say so,
/// and adds `HOME`. Peers derive the exit statuses 126 and 127 from its words,
/// which are runc's.
pub(crate) struct Lookup {
    pub uid: u32,
}

impl Isolation for Lookup {
    fn name(&self) -> &'static str {
        "command"
    }

    fn adjust(&mut self, command: &mut Command) -> Result<()> {
        let has = |name: &str| {
            let mut env = command.env.iter();
            env.any(|pair| pair.as_encoded_bytes().starts_with(name.as_bytes()))
        };
        if !has("HOME=") {
            // Whoever is inside may have put anything in the place of the file.
            let accounts = user::accounts::accounts().unwrap_or_else(|error| {
                say!("HOME=/: {error:#}");
                Vec::new()
            });
            let own = accounts.iter().find(|account| account.uid == self.uid);
            let home = own.map(|account| account.home.as_str());
            let home = home.filter(|home| !home.is_empty()).unwrap_or("/");
            command.env.push(format!("HOME={home}").into());
        }
        look_up(command)
    }
}

// ANCHOR: look_up
fn look_up(command: &Command) -> Result<()> {
    // ANCHOR: exercise_look_up
    let name = command.argv.first().context("no command")?;
    let text = name.to_string_lossy();
    if name.is_empty() {
        bail!("exec: \"\": executable file not found in $PATH");
    }
    if text.contains('/') {
        return usable(Path::new(name)).with_context(|| format!("exec: {text:?}"));
    }
    let path = command.env.iter().rev().find_map(|pair| {
        let path = pair.to_str()?.strip_prefix("PATH=")?;
        Some(path.to_owned())
    });
    let path = path.unwrap_or_else(|| process::exec::DEFAULT_PATH.to_owned());
    let mut refused = false;
    for dir in std::env::split_paths(&path) {
        match usable(&dir.join(name)) {
            Ok(()) => return Ok(()),
            Err(error) => refused |= format!("{error:#}").contains("permission denied"),
        }
    }
    match refused {
        true => bail!("exec: {text:?}: permission denied"),
        false => bail!("exec: {text:?}: executable file not found in $PATH"),
    }
    // ANCHOR_END: exercise_look_up
}
// ANCHOR_END: look_up

/// Whether a file can be a program.
fn usable(path: &Path) -> Result<()> {
    use nix::errno::Errno;
    use nix::fcntl::OFlag;
    let file = match process::inside::open(path, OFlag::O_PATH) {
        Ok(file) => file,
        Err(Errno::ENOENT) => bail!("stat {}: no such file or directory", path.display()),
        Err(Errno::ENOTDIR) => bail!("stat {}: not a directory", path.display()),
        // A magic link is execve's to refuse, with its reason.
        Err(Errno::ELOOP) => return Ok(()),
        Err(Errno::EACCES) => bail!("permission denied"),
        Err(errno) => return Err(errno).with_context(|| format!("open {}", path.display())),
    };
    let mode = nix::sys::stat::fstat(file.as_fd())
        .context("fstat")?
        .st_mode;
    ensure!(
        process::inside::is_regular(&file)? && mode & 0o111 != 0,
        "permission denied"
    );
    Ok(())
}

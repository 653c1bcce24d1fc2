//! What a container gives up, and in which order.
//!
//! To the kernel, root in a container without a user namespace is root of the
//! host. What keeps it from the host is the lack of capabilities, and a filter
//! over system calls.
//!
//! The filter comes last of all: it would stand in the way of what comes before
//! it. But who loads a filter must have either `CAP_SYS_ADMIN` or
//! `PR_SET_NO_NEW_PRIVS` (seccomp(2)), or else an ordinary user could run a
//! set-user-ID program under a filter of their own, in which setuid(2) does
//! nothing and returns 0. And `CAP_SYS_ADMIN` is what has to be given up before
//! anything else.
//!
//! The way out is execve(2) itself, which computes the capabilities anew:
//!
//! ```text
//! permitted' = (inheritable & file's inheritable) | (file's permitted & bounding) | ambient
//! ```
//!
//! For root the file has all of them. So the bounding set is what remains, if
//! the inheritable and the ambient set are empty; for any other user nothing
//! remains. The child holds `CAP_SYS_ADMIN` up to the call in which it loses
//! it, and nothing has to be dropped between filter and execve(2).

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use kit::{say, sys, warn};
use nix::unistd::Pid;
use process::Isolation;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};
use serde_json::{Value, json};

use crate::capabilities::{CapabilityArg, bound, named, names, wanted};
use crate::label;
use crate::options::{HardenSettings, Seccomp};
use crate::seccomp::abi::Abi;
use crate::seccomp::action::Action;
use crate::seccomp::builtin::DEFAULT;
use crate::seccomp::cache::{Cache, Program};
use crate::seccomp::interpret::{Call, run};
use crate::seccomp::listener::{Listener, Which};
use crate::seccomp::profile::LARGEST;
use crate::seccomp::resolve::Situation;

/// The isolation that bounds the command's capabilities, and loads the filter
/// as the very last. Add it before `PidNamespace`, so that an init is bounded
/// too.
pub struct Harden {
    settings: HardenSettings,
    cache: Option<Cache>,
    told: Option<Told>,
    /// What is loaded. Empty before `prepare`; without a program if there is to
    /// be no filter.
    lock: Rc<std::cell::OnceCell<Lock>>,
    listener: Option<Listener>,
}

/// What [`Isolation::seal`] does, for the command and for an init.
struct Lock {
    /// The capabilities that the command may have. Known before the child
    /// exists: its /proc is the image's.
    kept: CapabilitySet,
    door: Door,
}

/// What a process that decides on calls is told of the container.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its ID.
    pub id: String,
    /// The directory of its root file system, or its image.
    pub bundle: PathBuf,
}

impl Told {
    fn state(&self) -> Value {
        json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": "creating",
            "pid": 0,
            "bundle": self.bundle,
        })
    }
}

/// The version of the OCI runtime specification whose form the messages have.
const OCI_VERSION: &str = "1.2.0";

/// The last step before execve(2): the filter, and whether new privileges can
/// be had behind it.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// The filter, if there is one.
    pub program: Option<Program>,
    /// Whether `PR_SET_NO_NEW_PRIVS` is set.
    pub no_new_privileges: bool,
}

impl Harden {
    /// The isolation that `settings` describe. They are checked in `prepare`.
    pub fn new(settings: HardenSettings) -> Self {
        Harden {
            settings,
            cache: Cache::of_caller(),
            told: None,
            lock: Rc::default(),
            listener: None,
        }
    }

    /// Sets what a process that decides on calls is told of the container.
    #[must_use]
    pub fn telling(mut self, told: Told) -> Self {
        self.told = Some(told);
        self
    }

    /// Keeps compiled programs in `directory` instead of the caller's runtime
    /// directory. It need not exist.
    #[must_use]
    pub fn cached_in(mut self, directory: PathBuf) -> Self {
        self.cache = Some(Cache::new(directory));
        self
    }

    /// What an init has to do last, to be sealed as the command is: for
    /// `PidNamespace::sealed`.
    pub fn seal_of_init(&self) -> pid::Seal {
        let lock = Rc::clone(&self.lock);
        Box::new(move || {
            let lock = lock.get().context("no filter was prepared")?;
            lock.door.close(None)
        })
    }

    /// The capabilities that the command may have.
    fn wanted(&self) -> Result<CapabilitySet> {
        let HardenSettings {
            cap_add,
            cap_drop,
            privileged,
            ..
        } = &self.settings;
        let all = user::caps::of_kernel()?;
        Ok(match privileged {
            true => wanted(&[CapabilityArg::All], cap_drop, all),
            false => wanted(cap_add, cap_drop, all),
        })
    }

    /// Reads, checks and compiles the profile, for a container with the
    /// capabilities `kept`, and connects to the process that decides on calls.
    fn program(&mut self, kept: CapabilitySet) -> Result<Option<Program>> {
        let Some(seccomp) = self.settings.seccomp() else {
            return Ok(None);
        };
        let (text, name) = match seccomp {
            Seccomp::File(file) => {
                let name = file.display().to_string();
                let text = read(&file).with_context(|| format!("the profile {name}"))?;
                (text, name)
            }
            _ => (DEFAULT.to_owned(), "builtin".to_owned()),
        };
        let situation = Situation::here(kept)?;
        let program = match &self.cache {
            Some(cache) => cache.program(&text, &situation),
            None => text
                .parse()
                .and_then(|profile| Program::new(&profile, &situation)),
        }
        .with_context(|| format!("the profile {name}"))?;
        for note in &program.notes {
            warn!("the profile {name}: {note}");
        }
        must_start(&program).with_context(|| format!("the profile {name}"))?;
        if program.asks() {
            let told = self.told.clone().unwrap_or_else(|| Told {
                id: std::process::id().to_string(),
                bundle: "/".into(),
            });
            self.listener = Listener::connect(&program, &text.parse()?, told.state(), Which::First)
                .with_context(|| format!("the profile {name}"))?;
        }
        Ok(Some(program))
    }
}

/// Reads a profile. A FIFO or a device is refused, since reading it may never
/// end.
pub(crate) fn read(file: &std::path::Path) -> Result<String> {
    let bytes = process::inside::read(file, LARGEST as u64)?.context("it does not exist")?;
    String::from_utf8(bytes).context("it is not UTF-8")
}

// ANCHOR: must_start
/// Refuses a filter under which no command can start: execve(2) is the one call
/// that is left to make behind it. Where that fails, two more calls are needed
/// to say so.
pub fn must_start(program: &Program) -> Result<()> {
    // ANCHOR: exercise_must_start
    let action = |name| -> Result<Action> {
        let call = Call {
            arch: Abi::NATIVE.audit_arch(),
            number: Abi::NATIVE.number(name).context("no such call")?,
            ..Call::default()
        };
        Ok(run(&program.code, &call)?.action)
    };
    let execve = action("execve")?;
    ensure!(
        execve.lets_pass(),
        "no command can start under it: execve is {execve}"
    );
    for name in ["write", "exit_group"] {
        let action = action(name)?;
        if !action.lets_pass() {
            warn!("under this filter an error of execve may go unsaid: {name} is {action}");
        }
    }
    Ok(())
    // ANCHOR_END: exercise_must_start
}
// ANCHOR_END: must_start

impl Door {
    // ANCHOR: close
    /// Loads the filter. Nothing but execve(2) may follow. Without a listener,
    /// calls on which it would decide fail (`ENOSYS`).
    ///
    /// # Errors
    /// `EACCES` without `CAP_SYS_ADMIN` and without `PR_SET_NO_NEW_PRIVS`; those
    /// of the listener.
    pub fn close(&self, listener: Option<&Listener>) -> Result<()> {
        // ANCHOR: exercise_close
        if self.no_new_privileges {
            set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
        }
        let Some(program) = &self.program else {
            return Ok(());
        };
        // Not effective any more if the command's user is not root.
        let held = capabilities(None).context("capget")?;
        let raised = CapabilitySets {
            effective: held.effective | (held.permitted & CapabilitySet::SYS_ADMIN),
            ..held
        };
        set_capabilities(None, raised).context("capset(CAP_SYS_ADMIN)")?;
        let loaded = match listener {
            Some(listener) => listener.load().map(Some),
            None => sys::seccomp::install(&program.code, program.flags).map(|()| None),
        };
        let descriptor = loaded.context(
            "without its filter the container is not started: --security-opt \
             seccomp=unconfined says that it needs none, and no-new-privileges that the caller \
             needs no CAP_SYS_ADMIN",
        )?;
        match listener.zip(descriptor) {
            Some((listener, descriptor)) => listener.hand_over(descriptor.as_fd()),
            None => Ok(()),
        }
        // ANCHOR_END: exercise_close
    }
    // ANCHOR_END: close
}

impl Isolation for Harden {
    fn name(&self) -> &'static str {
        "harden"
    }

    fn prepare(&mut self) -> Result<()> {
        label::check(&self.settings)?;
        let kept = self.wanted()?;
        let lock = Lock {
            kept,
            door: Door {
                program: self.program(kept)?,
                no_new_privileges: self.settings.no_new_privileges(),
            },
        };
        if self.lock.set(lock).is_err() {
            bail!("prepared twice");
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
        match self.settings.oom_score_adj {
            Some(score) => set_oom_score(child, score),
            None => Ok(()),
        }
    }

    // ANCHOR: before_exec
    fn before_exec(&mut self) -> Result<()> {
        // ANCHOR: exercise_bound
        if let Some(profile) = self.settings.apparmor() {
            label::apparmor(profile)?;
        }
        let kept = self.lock.get().context("no filter was prepared")?.kept;
        let own = capabilities(None).context("capget")?.permitted;
        let asked = named(&self.settings.cap_add);
        ensure!(
            own.contains(asked),
            "--cap-add {}: the caller does not have it, and cannot pass it on",
            names(asked - own)
        );
        // Whatever is not in the bounding set is lost in execve(2).
        bound(kept)?;
        clear_ambient_capability_set().context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
        let sets = CapabilitySets {
            effective: own,
            permitted: own,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).with_context(|| format!("capset({own:?})"))?;
        // Until execve(2), also for a command of another user: to load the
        // filter.
        set_keep_capabilities(true).context("prctl(PR_SET_KEEPCAPS)")?;
        say!("capabilities: {}", names(kept & own));
        Ok(())
        // ANCHOR_END: exercise_bound
    }
    // ANCHOR_END: before_exec

    fn seal(&mut self) -> Result<()> {
        let lock = self.lock.get().context("no filter was prepared")?;
        lock.door.close(self.listener.as_ref())
    }

    fn cleanup(&mut self) -> Result<()> {
        self.listener = None;
        Ok(())
    }
}

/// Writes oom_score_adj (proc_pid_oom_score_adj(5)).
///
/// # Errors
/// A score below the caller's own needs `CAP_SYS_RESOURCE`.
fn set_oom_score(child: Pid, score: i32) -> Result<()> {
    let file = format!("/proc/{child}/oom_score_adj");
    match fs::write(&file, score.to_string()) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(error).with_context(|| {
                format!(
                    "--oom-score-adj {score}: a score below the caller's own needs \
                     CAP_SYS_RESOURCE"
                )
            })
        }
        written => written.with_context(|| format!("write {score} to {file}")),
    }
}

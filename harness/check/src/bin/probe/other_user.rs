//! `probe as`: runs the next program as another user, perhaps with another
//! /etc.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Whom to become.
#[derive(Args)]
pub(crate) struct OtherUser {
    /// User ID
    #[arg(long)]
    uid: u32,
    /// Group ID; by default as the user ID
    #[arg(long)]
    gid: Option<u32>,
    /// Supplementary groups; none by default
    #[arg(long, value_delimiter = ',')]
    groups: Vec<u32>,
    /// Directory to see as /etc
    #[arg(long)]
    etc: Option<PathBuf>,
}

impl OtherUser {
    /// Makes this process that user's.
    pub(crate) fn take(&self) -> Result<()> {
        if let Some(etc) = &self.etc {
            cover_etc(etc)?;
        }
        become_user(self.uid, self.gid.unwrap_or(self.uid), &self.groups)
    }
}

/// Binds a directory over /etc, in a mount namespace of its own.
fn cover_etc(etc: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, flags, none).context("mount(/, MS_REC | MS_PRIVATE)")?;
    mount(Some(etc), "/etc", none, MsFlags::MS_BIND, none)
        .with_context(|| format!("mount({etc:?}, /etc, MS_BIND)"))
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("setgroups")?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid).context("setresgid")?;
    setresuid(uid, uid, uid).context("setresuid")
}

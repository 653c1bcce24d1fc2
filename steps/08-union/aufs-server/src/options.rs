//! The mount options of AUFS in the syntax of aufs(5):
//! `dirs=./rw:./ro=ro+wh,create=mfs,udba=none`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rustix::mount::MountFlags;

use crate::spelling::{BranchOption, branch_option, split};

/// The largest number of branches of a union, as in AUFS.
pub const MAX_BRANCHES: usize = 1023;

/// `create=`: the choice of a writable branch for a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatePolicy {
    /// `tdp`, top-down-parent: the highest writable branch in which the parent
    /// directory exists. The default.
    TopDownParent,
    /// `rr`, round-robin: one writable branch after the other.
    RoundRobin,
    /// `mfs[:SECONDS]`, most-free-space: the one with the most free space,
    /// measured again after that time.
    MostFreeSpace(Duration),
}

/// `udba=`, "user's direct branch access": whether changes made directly in the
/// branches are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udba {
    /// They need not be seen: the kernel may cache names and attributes.
    None,
    /// They are seen: each lookup looks at the branches again. The default.
    Reval,
}

/// The mount options of a union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The branches, the highest first.
    pub branches: Vec<BranchOption>,
    /// The branch for new files.
    pub create: CreatePolicy,
    /// Whether changes made directly in the branches are seen.
    pub udba: Udba,
    /// `sum`: statfs(2) adds up all branches instead of showing the first
    /// writable one.
    pub sum: bool,
    /// `acl`: POSIX access control lists are enforced.
    pub acl: bool,
    /// Whether reads and writes of open files go past the server if the kernel
    /// supports it (`FUSE_PASSTHROUGH`). `nopassthrough` turns it off.
    pub passthrough: bool,
    /// `ro`, `nosuid`, `nodev`, `noexec`, `noatime`, `relatime`.
    pub flags: MountFlags,
}

impl Options {
    /// The options of a union of these branches, with the defaults for
    /// everything else.
    pub fn new(branches: Vec<BranchOption>) -> Self {
        Options {
            branches,
            create: CreatePolicy::TopDownParent,
            udba: Udba::Reval,
            sum: false,
            acl: false,
            passthrough: true,
            flags: MountFlags::empty(),
        }
    }

    /// Parses the argument of `-o`. Without a right given, the first branch is
    /// `rw` and the others are `ro`. In a path a backslash escapes a following
    /// `,`, `:` or `\`.
    ///
    /// # Errors
    /// Names the option that is unknown or wrong. A missing list of branches is
    /// an error.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let mut options = Options::new(Vec::new());
        for option in split(text.as_bytes(), b',') {
            options.set(&option)?;
        }
        if options.branches.is_empty() {
            bail!("no branches: give dirs=TOP:NEXT:… or br:TOP:NEXT:…");
        }
        if options.branches.len() > MAX_BRANCHES {
            bail!(
                "{} branches: AUFS takes {MAX_BRANCHES} at most",
                options.branches.len()
            );
        }
        Ok(options)
    }

    fn set(&mut self, option: &[u8]) -> Result<()> {
        for list in [&b"dirs="[..], b"br:", b"br=", b"dirs:"] {
            if let Some(list) = option.strip_prefix(list) {
                return self.add_branches(list);
            }
        }
        let text = String::from_utf8_lossy(option);
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        match (key, value) {
            ("", "") | ("rw" | "defaults" | "suid" | "dev" | "exec" | "atime", "") => {}
            ("ro", "") => self.flags |= MountFlags::RDONLY,
            ("nosuid", "") => self.flags |= MountFlags::NOSUID,
            ("nodev", "") => self.flags |= MountFlags::NODEV,
            ("noexec", "") => self.flags |= MountFlags::NOEXEC,
            ("noatime", "") => self.flags |= MountFlags::NOATIME,
            ("relatime", "") => self.flags |= MountFlags::RELATIME,
            ("create" | "create_policy", policy) => self.create = create_policy(policy)?,
            // Copies go up to the highest writable branch that has the parent.
            ("cpup" | "copyup" | "copyup_policy", "tdp" | "top-down-parent") => {}
            ("udba", "none") => self.udba = Udba::None,
            ("udba", "reval") => self.udba = Udba::Reval,
            ("sum", "") => self.sum = true,
            ("nosum", "") => self.sum = false,
            ("acl", "") => self.acl = true,
            ("noacl", "") => self.acl = false,
            ("nopassthrough", "") => self.passthrough = false,
            // Inode numbers are kept in the server's memory: there is no file
            // to place.
            ("xino", _) | ("noxino" | "plink" | "diropq", _) => {}
            ("si", _) => {}
            _ => bail!("unknown AUFS option {text:?}"),
        }
        Ok(())
    }

    fn add_branches(&mut self, list: &[u8]) -> Result<()> {
        for branch in split(list, b':') {
            if branch.is_empty() {
                bail!("an empty branch in {:?}", String::from_utf8_lossy(list));
            }
            let first = self.branches.is_empty();
            self.branches.push(branch_option(branch, first)?);
        }
        Ok(())
    }
}

fn create_policy(text: &str) -> Result<CreatePolicy> {
    let (name, seconds) = text.split_once(':').unwrap_or((text, "30"));
    Ok(match name {
        "tdp" | "top-down-parent" => CreatePolicy::TopDownParent,
        "rr" | "round-robin" => CreatePolicy::RoundRobin,
        "mfs" | "most-free-space" => {
            let seconds = seconds.parse().ok().filter(|s| *s <= 3600);
            let seconds = seconds.ok_or_else(|| anyhow!("create={text}: 0 to 3600 seconds"))?;
            CreatePolicy::MostFreeSpace(Duration::from_secs(seconds))
        }
        _ => bail!("create={text}: the policies here are tdp, rr and mfs[:SECONDS]"),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::*;
    use crate::spelling::{escape, right_text};

    fn parse(text: &str) -> Options {
        Options::parse(OsStr::new(text)).unwrap()
    }

    fn rights(options: &Options) -> Vec<String> {
        let show = |b: &BranchOption| {
            format!("{}={}", b.path.display(), right_text(b.access, b.whiteouts))
        };
        options.branches.iter().map(show).collect()
    }

    #[test]
    fn the_first_branch_is_written_and_the_others_are_read() {
        let options = parse("dirs=./container-layer:./image-layer2:./image-layer1");
        assert_eq!(
            rights(&options),
            [
                "./container-layer=rw",
                "./image-layer2=ro",
                "./image-layer1=ro"
            ]
        );
    }

    #[test]
    fn rights_are_taken_branch_by_branch() {
        let options = parse("br:/a=rw:/b=ro+wh:/c=rr:/d=rw+nolwh:/e=rr+wh,create=rr,udba=none");
        assert_eq!(
            rights(&options),
            ["/a=rw", "/b=ro+wh", "/c=rr", "/d=rw", "/e=rr+wh"]
        );
        assert_eq!(options.create, CreatePolicy::RoundRobin);
        assert_eq!(options.udba, Udba::None);
    }

    #[test]
    fn what_is_no_right_belongs_to_the_name() {
        assert_eq!(rights(&parse("br=/a=b:/c=d=ro")), ["/a=b=rw", "/c=d=ro"]);
    }

    #[test]
    fn a_backslash_keeps_separators_in_names() {
        let name = OsStr::new("/a,b:c\\d=ro");
        let mut text = OsString::from("dirs=");
        text.push(escape(name));
        text.push("=rw:/x,ro");
        let options = Options::parse(&text).unwrap();
        assert_eq!(options.branches[0].path, PathBuf::from(name));
        assert_eq!(options.branches[1].path, PathBuf::from("/x"));
        assert_eq!(options.flags, MountFlags::RDONLY);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| Options::parse(OsStr::new(text)).unwrap_err().to_string();
        assert!(error("create=mfs").contains("no branches"));
        assert!(error("dirs=/a::/b").contains("empty branch"));
        assert!(error("dirs=/a,frobnicate=1").contains("frobnicate"));
        assert!(error("dirs=/a,create=best").contains("tdp, rr and mfs"));
        assert!(error("dirs=/a,create=mfs:9999").contains("3600"));
    }

    #[test]
    fn the_free_space_is_looked_at_every_thirty_seconds_or_as_told() {
        let every = |text| parse(text).create;
        let seconds = |s| CreatePolicy::MostFreeSpace(Duration::from_secs(s));
        assert_eq!(every("dirs=/a,create=mfs"), seconds(30));
        assert_eq!(every("dirs=/a,create=mfs:5"), seconds(5));
    }
}

//! Random changes, applied to a union and to a plain directory: both must
//! answer alike and hold the same tree at the end.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{CWD, RenameFlags, XattrFlags, lsetxattr, renameat_with};

use crate::mounted::{Mounted, possible};
use crate::tree::describe;

/// A name among few, so that changes meet.
type Name = usize;

const NAMES: [&str; 17] = [
    "h1", "h2", "d1/h3", "a", "b", "c", "d1", "d1/a", "d1/x", "d1/sub", "d1/sub/y", "d2", "d2/a",
    "d2/z", "d3", "d3/n", "new",
];

#[derive(Clone, Debug)]
enum Change {
    Write(Name, u8, u16),
    Append(Name, u8),
    Patch(Name, u16, u8),
    Truncate(Name, u16),
    Mkdir(Name),
    Rmdir(Name),
    Unlink(Name),
    RemoveAll(Name),
    Swap(Name, Name),
    Rename(Name, Name),
    Exchange(Name, Name),
    NoReplace(Name, Name),
    Link(Name, Name),
    Symlink(Name),
    Chmod(Name, u32),
    Chown(Name, u32),
    Xattr(Name, u8),
    Fifo(Name),
}

fn change() -> impl Strategy<Value = Change> {
    use Change::*;
    let n = || 0..NAMES.len();
    prop_oneof![
        3 => (n(), any::<u8>(), 0..9000u16).prop_map(|(a, b, c)| Write(a, b, c)),
        3 => (n(), any::<u8>()).prop_map(|(a, b)| Append(a, b)),
        2 => (n(), 0..9000u16, any::<u8>()).prop_map(|(a, b, c)| Patch(a, b, c)),
        2 => (n(), 0..9000u16).prop_map(|(a, b)| Truncate(a, b)),
        3 => n().prop_map(Mkdir),
        3 => n().prop_map(RemoveAll),
        3 => (n(), n()).prop_map(|(a, b)| Swap(a, b)),
        3 => n().prop_map(Rmdir),
        5 => n().prop_map(Unlink),
        5 => (n(), n()).prop_map(|(a, b)| Rename(a, b)),
        2 => (n(), n()).prop_map(|(a, b)| Exchange(a, b)),
        1 => (n(), n()).prop_map(|(a, b)| NoReplace(a, b)),
        2 => (n(), n()).prop_map(|(a, b)| Link(a, b)),
        1 => n().prop_map(Symlink),
        2 => (n(), 0..0o10000u32).prop_map(|(a, b)| Chmod(a, b)),
        1 => (n(), 0..3u32).prop_map(|(a, b)| Chown(a, b)),
        1 => (n(), any::<u8>()).prop_map(|(a, b)| Xattr(a, b)),
        1 => n().prop_map(Fifo),
    ]
}

fn apply(root: &Path, change: &Change) -> io::Result<()> {
    use Change::*;
    let at = |name: &Name| root.join(NAMES[*name]);
    // Opening a FIFO would wait for the other end.
    let regular = |path: PathBuf| match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ => Ok(path),
    };
    match change {
        Write(a, byte, length) => fs::write(regular(at(a))?, vec![*byte; (*length).into()]),
        Append(a, byte) => {
            let mut file = OpenOptions::new().append(true).open(regular(at(a))?)?;
            file.write_all(&[*byte; 7])
        }
        Patch(a, offset, byte) => {
            let file = OpenOptions::new().write(true).open(regular(at(a))?)?;
            file.write_all_at(&[*byte], (*offset).into())
        }
        Truncate(a, length) => {
            let file = OpenOptions::new().write(true).open(regular(at(a))?)?;
            file.set_len((*length).into())
        }
        Mkdir(a) => fs::create_dir(at(a)),
        Rmdir(a) => fs::remove_dir(at(a)),
        Unlink(a) => fs::remove_file(at(a)),
        RemoveAll(a) => match at(a).symlink_metadata()?.is_dir() {
            true => fs::remove_dir_all(at(a)),
            false => fs::remove_file(at(a)),
        },
        // A new directory with something in it takes the place of another.
        Swap(a, b) => {
            fs::create_dir(at(a))?;
            fs::write(at(a).join("inside"), "i")?;
            if at(b).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                fs::remove_dir_all(at(b))?;
            }
            fs::rename(at(a), at(b))
        }
        Rename(a, b) => fs::rename(at(a), at(b)),
        Exchange(a, b) => Ok(renameat_with(
            CWD,
            at(a),
            CWD,
            at(b),
            RenameFlags::EXCHANGE,
        )?),
        NoReplace(a, b) => Ok(renameat_with(
            CWD,
            at(a),
            CWD,
            at(b),
            RenameFlags::NOREPLACE,
        )?),
        Link(a, b) => fs::hard_link(at(a), at(b)),
        Symlink(a) => symlink("some/where", at(a)),
        Chmod(a, mode) => {
            // chmod(2) follows links, which lead nowhere here.
            fs::set_permissions(at(a), fs::Permissions::from_mode(*mode))
        }
        Chown(a, id) => chown(regular(at(a))?, Some(*id), Some(*id)),
        Xattr(a, value) => Ok(lsetxattr(
            regular(at(a))?,
            "user.x",
            &[*value],
            XattrFlags::empty(),
        )?),
        Fifo(a) => {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            Ok(rustix::fs::mknodat(
                CWD,
                at(a),
                rustix::fs::FileType::Fifo,
                mode,
                0,
            )?)
        }
    }
}

fn fill(union: &Mounted) {
    union.write("ro1/a", "lower a");
    union.write("ro1/b", "lower b".repeat(900));
    union.write("ro1/d1/a", "d1/a");
    union.write("ro1/d1/sub/y", "deep");
    union.write("ro1/d2/a", "d2/a");
    union.write("ro1/d2/z", "z");
    union.write("ro1/c", "whited out");
    union.write("ro2/.wh.c", "");
    union.write("ro1/h1", "one file, three names");
    for name in ["ro1/h2", "ro1/d1/h3"] {
        fs::hard_link(union.path("ro1/h1"), union.path(name)).unwrap();
    }
    union.write("ro2/a", "middle a");
    union.write("ro2/d1/x", "x");
    union.write("ro2/d2/.wh.z", "");
    union.write("ro1/d3/gone", "");
    union.write("ro2/d3/.wh..wh..opq", "");
    union.write("ro2/d3/n", "n");
}

fn run(changes: &[Change], options: &str) -> Result<(), TestCaseError> {
    let mut union = Mounted::prepare(&["rw", "ro2", "ro1"]);
    fill(&union);
    let lower = || describe(&union.path("ro1")) + &describe(&union.path("ro2"));
    let before = lower();
    drop(before.clone());
    union.mount(&format!("dirs=./rw:./ro2=ro+wh:./ro1{options}"));
    union.sh("cp -a mnt plain");
    let (mnt, plain) = (union.path("mnt"), union.path("plain"));
    prop_assert_eq!(describe(&mnt), describe(&plain));
    for change in changes {
        let ours = apply(&mnt, change).map_err(|e| e.raw_os_error());
        if ours == Err(Some(libc::EXDEV)) {
            // A directory with parts below, which AUFS does not rename.
            continue;
        }
        let theirs = apply(&plain, change).map_err(|e| e.raw_os_error());
        let full = [Some(libc::ENOTEMPTY), Some(libc::EEXIST)];
        if let (Err(a), Err(b)) = (&ours, &theirs)
            && full.contains(a)
            && full.contains(b)
        {
            continue;
        }
        prop_assert_eq!(&ours, &theirs, "{:?}", change);
    }
    prop_assert_eq!(describe(&mnt), describe(&plain));
    prop_assert_eq!(
        describe(&union.path("ro1")) + &describe(&union.path("ro2")),
        before
    );
    // And after the server has forgotten everything.
    union.umount();
    union.mount(&format!("dirs=./rw:./ro2=ro+wh:./ro1{options}"));
    prop_assert_eq!(describe(&mnt), describe(&plain));
    Ok(())
}

/// `AUFS_CASES=5000` for a long run.
fn cases() -> u32 {
    let asked = std::env::var("AUFS_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    asked.unwrap_or(40)
}

fn compare(options: &str) {
    if !possible() {
        return;
    }
    let config = Config {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let sequences = prop::collection::vec(change(), 1..40);
    let outcome = TestRunner::new(config).run(&sequences, |changes| run(&changes, options));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn a_union_behaves_as_a_plain_directory() {
    compare("");
}

#[test]
fn also_when_the_kernel_remembers_names() {
    compare(",udba=none");
}

#[test]
fn also_without_passthrough() {
    compare(",nopassthrough");
}

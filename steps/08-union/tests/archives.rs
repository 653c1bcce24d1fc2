//! Random archives, read by this crate, by GNU tar, and by Python's tarfile:
//! where the other two make the same tree, this one makes it too.
//!
//! Headers are made byte by byte, right and wrong: what programs have written
//! since 1979, and what none of them would. A difference is shown with its
//! seed. `DRYDOCK_ARCHIVES` says how many are drawn, `DRYDOCK_SEED` where the
//! drawing begins, and `DRYDOCK_KEEP` a directory for those that differ.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

#[path = "archives/draw.rs"]
mod draw;
#[path = "archives/peers.rs"]
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use union::archive::Marks;
use union::archive::apply::apply;
use union::tree::Tree;

use draw::{Draw, archive};
use peers::{Looks, gnu, have, looks, pythons, same};

/// How many are read at a time: Python takes a moment to start.
const BATCH: u64 = 50;

/// What the others accept and we refuse, with our words for it: a file would be
/// missing, or belong to somebody else, and nobody would be told.
const REFUSED: [&str; 5] = [
    "a PAX record is damaged",
    "the archive ends within a header",
    "a block of zeroes is in the middle",
    "is out of range",
    "leaves the layer",
];

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}

#[test]
fn archives_are_what_gnu_tar_and_python_read() {
    if !have() {
        return;
    }
    let (first, count) = (number("DRYDOCK_SEED", 1), number("DRYDOCK_ARCHIVES", BATCH));
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut seed = first;
    while seed < first + count {
        let batch: Vec<u64> = (seed..(seed + BATCH).min(first + count)).collect();
        seed += BATCH;
        let place = tempfile::tempdir().unwrap();
        let at = |seed: u64, what: &str| place.path().join(format!("{seed}{what}"));
        for seed in &batch {
            fs::write(at(*seed, ".tar"), archive(&mut Draw::new(*seed))).unwrap();
        }
        let python = pythons(place.path(), &batch);
        for (seed, python) in batch.iter().zip(python) {
            let gnu = gnu(&at(*seed, ".tar"), &at(*seed, ".gnu"));
            let own = own(&at(*seed, ".tar"), &at(*seed, ".own"));
            let verdict = judge(&own, &gnu, &python);
            *counts.entry(verdict.0).or_default() += 1;
            if let Some(why) = verdict.1 {
                keep(&at(*seed, ".tar"));
                wrong.push(format!("DRYDOCK_SEED={seed} DRYDOCK_ARCHIVES=1: {why}"));
            }
        }
    }
    eprintln!("{counts:?}");
    assert!(wrong.is_empty(), "{}\n{counts:?}", wrong.join("\n"));
    // Archives that everybody refuses compare nothing.
    let compared = counts.get("same").copied().unwrap_or(0);
    assert!(count < BATCH || compared * 5 >= count, "{counts:?}");
}

fn own(archive: &Path, to: &Path) -> Result<Looks, String> {
    fs::create_dir(to).unwrap();
    let tree = Tree::open(to).unwrap();
    let mut file = fs::File::open(archive).unwrap();
    match apply(&tree, Marks::Whole, &[], &mut file) {
        Ok(()) => Ok(looks(to)),
        Err(error) => Err(format!("{error:#}")),
    }
}

type Read = Result<Looks, String>;

fn judge(own: &Read, gnu: &Read, python: &Read) -> (&'static str, Option<String>) {
    let (gnu, python) = match (gnu, python) {
        (Ok(gnu), Ok(python)) => (gnu, python),
        (Err(_), Err(_)) => return ("both refuse", None),
        _ => return ("one refuses", None),
    };
    if same(python, gnu, true).is_some() {
        return ("they differ", None);
    }
    match own {
        Err(error) if REFUSED.iter().any(|word| error.contains(word)) => ("refused", None),
        Err(error) => ("wrong", Some(format!("refused: {error}"))),
        Ok(own) => match same(own, gnu, false) {
            Some(why) => ("wrong", Some(why)),
            None => ("same", None),
        },
    }
}

fn keep(archive: &Path) {
    if let Some(place) = std::env::var_os("DRYDOCK_KEEP") {
        let name = archive.file_name().unwrap();
        fs::copy(archive, PathBuf::from(place).join(name)).unwrap();
    }
}

/// What is written here, the others read as we do.
#[test]
fn what_is_written_is_read_by_all() {
    use rustix::fs::{CWD, XattrFlags, lsetxattr, mkfifoat};
    if !have() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(240));
    fs::create_dir_all(at("from").join(&long).parent().unwrap()).unwrap();
    fs::write(at("from").join(&long), "long").unwrap();
    let target = "../".repeat(60) + &"t".repeat(200);
    std::os::unix::fs::symlink(&target, at("from/to")).unwrap();
    std::os::unix::fs::symlink("a\nb", at("from/nl\n")).unwrap();
    fs::hard_link(at("from").join(&long), at("from").join("l".repeat(200))).unwrap();
    mkfifoat(CWD, at("from/fifo"), rustix::fs::Mode::RUSR).unwrap();
    let holes = fs::File::create(at("from/holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    let old = std::time::UNIX_EPOCH - std::time::Duration::new(86_400, 250_000_000);
    fs::write(at("from/old"), "before 1970").unwrap();
    let file = fs::File::options()
        .write(true)
        .open(at("from/old"))
        .unwrap();
    file.set_modified(old).unwrap();
    let value = b"\n\0= 12 a=b\n";
    for (name, value) in [("user.binary", &value[..]), ("user.empty", b"")] {
        match lsetxattr(at("from/old"), name, value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(errno) => eprintln!("without {name}: {errno}"),
        }
    }
    let tree = Tree::open(&at("from")).unwrap();
    let mut archive = Vec::new();
    union::archive::write::whole(&tree, &mut archive).unwrap();
    fs::write(at("1.tar"), archive).unwrap();
    let written = looks(&at("from"));
    let python = pythons(place.path(), &[1]).remove(0).unwrap();
    assert_eq!(same(&python, &written, true), None);
    let gnu = gnu(&at("1.tar"), &at("1.gnu")).unwrap();
    assert_eq!(same(&gnu, &written, false), None);
    let own = own(&at("1.tar"), &at("1.own")).unwrap();
    assert_eq!(same(&own, &written, false), None);
}

//! Rights of branches, policies, and what of direct changes is seen.

use crate::mounted::{Mounted, possible};

#[test]
fn whiteouts_count_in_ro_only_with_wh() {
    if !possible() {
        return;
    }
    for (right, seen) in [
        ("ro", true),
        ("ro+wh", false),
        ("rr", true),
        ("rr+wh", false),
    ] {
        let mut union = Mounted::prepare(&["rw", "mid", "low"]);
        union.write("low/file", "low");
        union.write("mid/.wh.file", "");
        union.write("low/dir/inside", "low");
        union.write("mid/dir/.wh..wh..opq", "");
        union.mount(&format!("dirs=rw:mid={right}:low=ro"));
        assert_eq!(union.exists("mnt/file"), seen, "{right}");
        assert_eq!(union.exists("mnt/dir/inside"), seen, "{right}");
        let expected: &[&str] = if seen { &["dir", "file"] } else { &["dir"] };
        assert_eq!(union.names("mnt"), expected, "{right}");
    }
}

#[test]
fn direct_changes_are_seen_at_once() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/file", "old"));
    assert_eq!(union.read("mnt/file"), "old");
    union.write("ro1/file", "changed");
    assert_eq!(union.read("mnt/file"), "changed");
    union.write("ro1/new", "n");
    assert_eq!(union.read("mnt/new"), "n");
    union.sh("rm ro1/new");
    assert!(!union.exists("mnt/new"));
    union.write("ro2/file", "above");
    assert_eq!(union.read("mnt/file"), "above");
    union.write("rw/sub/deep", "d");
    assert_eq!(union.read("mnt/sub/deep"), "d");
    union.write("ro1/sub/other", "o");
    assert_eq!(union.names("mnt/sub"), ["deep", "other"]);
}

#[test]
fn without_a_writable_branch_nothing_changes() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["a", "b"]);
    union.write("a/file", "a");
    union.mount("dirs=a=ro:b=ro");
    for line in [
        "echo x >> mnt/file",
        "rm mnt/file",
        "mkdir mnt/d",
        "mv mnt/file mnt/g",
        "chmod 0 mnt/file",
    ] {
        let error = String::from_utf8(union.try_sh(line).stderr).unwrap();
        assert!(error.contains("Read-only file system"), "{line}: {error}");
    }
    assert_eq!(union.read("mnt/file"), "a");
}

#[test]
fn new_files_go_to_the_highest_branch_with_the_parent() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["one", "two"]);
    union.write("two/dir/file", "");
    union.mount("dirs=one=rw:two=rw,create=tdp");
    union.write("mnt/dir/new", "n");
    assert!(union.exists("two/dir/new"));
    assert!(!union.exists("one/dir"));
    union.write("mnt/top", "t");
    assert!(union.exists("one/top"));
}

#[test]
fn round_robin_takes_turns() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["one", "two", "low"]);
    union.write("low/dir/file", "");
    union.mount("dirs=one=rw:two=rw:low=ro,create=rr");
    for n in 0..10 {
        union.write(&format!("mnt/dir/{n}"), "x");
    }
    assert_eq!(union.names("one/dir").len(), 5);
    assert_eq!(union.names("two/dir").len(), 5);
    assert_eq!(union.names("mnt/dir").len(), 11);
}

#[test]
fn the_branch_with_the_most_space_is_taken() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["small", "big"]);
    union.sh("mount -t tmpfs -o size=1m none small && mount -t tmpfs -o size=8m none big");
    union.mount("dirs=small=rw:big=rw,create=mfs");
    union.write("mnt/file", "x");
    let there = (union.exists("small/file"), union.exists("big/file"));
    union.umount();
    union.sh("umount small; umount big");
    assert_eq!(there, (false, true));
}

#[test]
fn a_file_of_a_lower_writable_branch_is_changed_there() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["one", "two", "low"]);
    union.write("two/file", "2");
    union.write("low/file", "low");
    union.mount("dirs=one=rw:two=rw:low=ro");
    union.sh("echo more >> mnt/file");
    assert_eq!(union.read("two/file"), "2more\n");
    assert!(!union.exists("one/file"));
    union.sh("rm mnt/file");
    assert!(!union.exists("mnt/file") && union.exists("two/.wh.file"));
    // A new file must not be hidden by anything above it.
    union.write("mnt/file", "new");
    assert_eq!(union.read("mnt/file"), "new");
}

#[test]
fn renaming_over_a_file_of_a_higher_branch_wins() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["one", "two"]);
    union.write("one/target", "1");
    union.write("two/source", "2");
    union.mount("dirs=one=rw:two=rw");
    union.sh("mv mnt/source mnt/target");
    assert_eq!(union.read("mnt/target"), "2");
    assert_eq!(union.names("mnt"), ["target"]);
}

#[test]
fn names_with_separators_can_be_branches() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["a,b", "c:d", "e\\f", "g=h"]);
    union.write("c:d/file", "x");
    union.write("g=h/other", "y");
    union.mount("dirs=a\\,b:c\\:d:e\\\\f:g=h");
    assert_eq!(union.names("mnt"), ["file", "other"]);
}

#[test]
fn mistakes_are_told_in_one_line() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["a", "a/b", "c"]);
    union.write("file", "");
    for (options, word) in [
        ("dirs=a:missing", "missing"),
        ("dirs=a:file", "Not a directory"),
        ("dirs=a:a/b", "overlaps"),
        ("dirs=a,frobnicate", "frobnicate"),
        ("create=tdp", "no branches"),
    ] {
        let output = union.try_mount(options);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{options}");
        assert!(
            error.contains(word) && error.lines().count() == 1,
            "{options}: {error}"
        );
    }
    union.mount("dirs=c");
    let second = union.try_mount("dirs=c");
    assert!(
        String::from_utf8(second.stderr)
            .unwrap()
            .contains("another union")
    );
}

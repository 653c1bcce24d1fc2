//! Archives that nobody should trust, each with what must come of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::apply::apply;
use super::reader::HEADERS;
use super::{Marks, OPAQUE_USER};
use crate::tree::Tree;
use crate::tree::node::xattr;

const OVERLAY: Marks = Marks::Overlay {
    opaque: OPAQUE_USER,
};

/// An archive, written past the library, which would not write such names.
struct Evil(Builder<Vec<u8>>);

impl Evil {
    fn new() -> Self {
        Evil(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &str, target: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        if kind == EntryType::Directory {
            header.set_mode(0o755);
        }
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_link_name_literal(target).unwrap();
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name, "", b"new")
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layer in a directory of which nothing else may change.
struct Place {
    around: TempDir,
}

impl Place {
    fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        fs::create_dir(around.path().join("layer")).unwrap();
        fs::write(around.path().join("victim"), "untouched").unwrap();
        Place { around }
    }

    fn layer(&self) -> PathBuf {
        self.around.path().join("layer")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.layer().join(name)
    }

    fn victim(&self) -> String {
        self.around.path().join("victim").to_string_lossy().into()
    }

    /// Applies an archive and looks around.
    fn apply(&self, marks: Marks, archive: Evil) -> anyhow::Result<()> {
        self.apply_on(marks, &[], &archive.bytes())
    }

    fn apply_on(&self, marks: Marks, below: &[Tree], bytes: &[u8]) -> anyhow::Result<()> {
        let tree = Tree::open(&self.layer()).unwrap();
        let applied = apply(&tree, marks, below, &mut &bytes[..]);
        let victim = self.around.path().join("victim");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.around.path()).unwrap().count(), 2);
        applied
    }

    fn refuses(&self, archive: Evil, word: &str) {
        let error = self.apply(OVERLAY, archive).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn names_stay_inside() {
    let place = Place::new();
    place.refuses(Evil::new().file("../victim"), "leaves the layer");
    place.refuses(Evil::new().file("a/../../victim"), "leaves the layer");
    let absolute = Evil::new().file(&place.victim());
    place.apply(OVERLAY, absolute).unwrap();
    assert!(place.at(&place.victim()[1..]).exists());
}

#[test]
fn links_lead_nowhere_else() {
    for target in ["..", "../..", "/"] {
        let place = Place::new();
        let archive = Evil::new().symlink("out", target).file("out/victim");
        place.apply(OVERLAY, archive).unwrap();
        assert!(place.at("victim").exists(), "{target}");
    }
    let place = Place::new();
    let outside = place.victim();
    // The link itself is replaced, not what it points to.
    let archive = Evil::new().symlink("out", &outside).file("out");
    place.apply(OVERLAY, archive).unwrap();
    assert_eq!(fs::read_to_string(place.at("out")).unwrap(), "new");
    // Nor is anything taken away through it.
    let archive = Evil::new().symlink("up", "..").file("up/.wh.victim");
    place.apply(OVERLAY, archive).unwrap();
}

#[test]
fn hard_links_are_to_files_of_the_archive() {
    let place = Place::new();
    let outside = place.victim();
    place.refuses(Evil::new().link("linked", &outside), "there is no");
    place.refuses(Evil::new().link("linked", "../victim"), "leaves the layer");
    let through = Evil::new().symlink("up", "..").link("linked", "up/victim");
    place.refuses(through, "not a file");
    // A link to a link is that link again, and not followed.
    let archive = Evil::new()
        .symlink("to", &outside)
        .link("linked", "to")
        .file("linked");
    place.apply(OVERLAY, archive).unwrap();
    place.refuses(Evil::new().directory("d").link("d2", "d"), "not a file");
    let inside_out = Evil::new().file("e/f").link("e", "e/f");
    place.refuses(inside_out, "which is in it");
}

#[test]
fn whiteouts_are_of_names() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..."] {
        let place = Place::new();
        place.refuses(Evil::new().file(name), "without a name");
    }
    let place = Place::new();
    place.refuses(Evil::new().file(".wh.d/x"), "not a directory");
    // To overlay it would be a whiteout.
    let forged = Evil::new().entry(EntryType::Char, "forged", "", b"");
    place.apply(OVERLAY, forged).unwrap();
    assert!(!place.at("forged").exists());
    place.refuses(Evil::new().file(".wh.a").link("b", ".wh.a"), "whiteout");
    let place = Place::new();
    let own = Evil::new().file(".wh..wh.aufs").file(".wh..wh.plnk/1.2");
    place.apply(OVERLAY, own).unwrap();
    assert_eq!(fs::read_dir(place.layer()).unwrap().count(), 0);
}

#[test]
fn an_archive_cannot_speak_for_overlay() {
    let place = Place::new();
    let mut builder = Evil::new().0;
    let records = [
        ("SCHILY.xattr.user.overlay.opaque", &b"y"[..]),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let archive = Evil(builder).directory("d");
    place.apply(OVERLAY, archive).unwrap();
    let tree = Tree::open(&place.layer()).unwrap();
    for name in ["user.overlay.opaque", "user.overlay.redirect"] {
        assert_eq!(xattr(&tree, Path::new("d"), name).unwrap(), None);
    }
}

#[test]
fn what_was_promised_must_come() {
    let whole = Evil::new().file("a").file("b").bytes();
    for length in [100, 514, 1100, 1538] {
        let place = Place::new();
        let cut = &whole[..length];
        assert!(place.apply_on(OVERLAY, &[], cut).is_err(), "{length}");
    }
    // The last block need not be full, nor the end marked.
    let place = Place::new();
    place.apply_on(OVERLAY, &[], &whole[..1539]).unwrap();
    assert_eq!(fs::read_to_string(place.at("b")).unwrap(), "new");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_path("huge").unwrap();
    header.set_size(1 << 60);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([0; 1024]);
    let error = place.apply_on(OVERLAY, &[], &bytes).unwrap_err();
    assert!(format!("{error:#}").contains("room"), "{error:#}");
    // A name without an end is not read into memory.
    let name = vec![b'x'; 2 * HEADERS as usize];
    let long = Evil::new().entry(EntryType::GNULongName, "././@LongLink", "", &name);
    place.refuses(long.file("x"), "headers");
}

#[test]
fn a_hole_takes_no_room() {
    // 256 MiB, of which the archive holds one block at the end.
    const SIZE: u64 = 256 << 20;
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("sparse").unwrap();
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(0);
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(SIZE - 512);
    gnu.sparse[0].set_length(512);
    gnu.set_real_size(SIZE);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([1; 512]);
    match place.apply_on(OVERLAY, &[], &bytes) {
        Ok(()) => {
            let metadata = fs::metadata(place.at("sparse")).unwrap();
            assert_eq!(metadata.len(), SIZE);
            assert!(metadata.blocks() < 10_000);
        }
        // On a small disk even the promise is too much.
        Err(error) => assert!(format!("{error:#}").contains("room"), "{error:#}"),
    }
}

#[test]
fn the_last_entry_of_a_name_counts() {
    let place = Place::new();
    let archive = Evil::new()
        .directory("a")
        .directory("a/b")
        .file("a/b/c")
        .file("a")
        .symlink("d", "a")
        .directory("d")
        .file("d/e")
        .file("f")
        .symlink("f", "d");
    place.apply(OVERLAY, archive).unwrap();
    assert!(place.at("a").is_file() && place.at("d/e").is_file());
    assert_eq!(fs::read_link(place.at("f")).unwrap(), Path::new("d"));
}

#[test]
fn setuid_survives_its_owner() {
    let place = Place::new();
    let mut builder = Evil::new().0;
    let mut header = Header::new_gnu();
    header.set_path("su").unwrap();
    header.set_mode(0o6755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    place.apply(OVERLAY, Evil(builder)).unwrap();
    let mode = fs::metadata(place.at("su")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o6755);
}

#[test]
fn a_new_directory_in_place_of_an_old_one_is_opaque() {
    let below = tempfile::tempdir().unwrap();
    fs::create_dir(below.path().join("d")).unwrap();
    for names in [[".wh.d", "d/x"], ["d/x", ".wh.d"]] {
        let place = Place::new();
        let archive = Evil::new().file(names[0]).file(names[1]).bytes();
        let tree = Tree::open(below.path()).unwrap();
        place.apply_on(OVERLAY, &[tree], &archive).unwrap();
        let tree = Tree::open(&place.layer()).unwrap();
        let opaque = xattr(&tree, Path::new("d"), OPAQUE_USER).unwrap();
        assert_eq!(opaque.as_deref(), Some(&b"y"[..]), "{names:?}");
    }
    // Where the whole tree is kept, the old content goes, and only that.
    let place = Place::new();
    fs::create_dir_all(place.at("d/sub")).unwrap();
    fs::write(place.at("d/sub/old"), "").unwrap();
    let archive = Evil::new().file("d/sub/new").file("d/.wh..wh..opq");
    place.apply(Marks::Whole, archive).unwrap();
    assert!(place.at("d/sub/new").exists() && !place.at("d/sub/old").exists());
}

#[test]
fn an_opaque_directory_without_a_mark_hides_all_that_is_below() {
    // Of the root overlay takes no mark; the other is not there to be set.
    let unknown = Marks::Overlay {
        opaque: "none.such.overlay.opaque",
    };
    for (marks, root) in [(OVERLAY, ""), (unknown, "d/")] {
        let below = tempfile::tempdir().unwrap();
        let below_at = |name: &str| below.path().join(root).join(name);
        fs::create_dir_all(below_at("both")).unwrap();
        fs::write(below_at("both/old"), "").unwrap();
        fs::write(below_at("old"), "").unwrap();
        let place = Place::new();
        let (new, mark) = (format!("{root}both/new"), format!("{root}.wh..wh..opq"));
        let archive = Evil::new().file(&new).file(&mark).bytes();
        let tree = Tree::open(below.path()).unwrap();
        place.apply_on(marks, &[tree], &archive).unwrap();
        let is_hidden = |name: &str| {
            let metadata = fs::symlink_metadata(place.at(root).join(name));
            metadata.is_ok_and(|metadata| metadata.rdev() == 0 && !metadata.is_file())
        };
        assert!(is_hidden("old"));
        let layer = Tree::open(&place.layer()).unwrap();
        let both = Path::new(root).join("both");
        let opaque = xattr(&layer, &both, OPAQUE_USER).unwrap();
        assert!(opaque.is_some() || is_hidden("both/old"));
    }
}

#[test]
fn a_directory_on_the_way_keeps_its_look() {
    let below = tempfile::tempdir().unwrap();
    fs::create_dir(below.path().join("tmp")).unwrap();
    let sticky = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(below.path().join("tmp"), sticky).unwrap();
    symlink("tmp", below.path().join("link")).unwrap();
    let place = Place::new();
    let archive = Evil::new().file("tmp/x").file("link/y").bytes();
    let tree = Tree::open(below.path()).unwrap();
    place.apply_on(OVERLAY, &[tree], &archive).unwrap();
    let mode = fs::metadata(place.at("tmp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
    // The link of the layer below is followed, and stays one.
    assert!(place.at("tmp/y").exists() && !place.at("link").exists());
}

#[test]
fn links_lead_no_further_than_the_root_of_the_stack() {
    let below = tempfile::tempdir().unwrap();
    let below_at = |name: &str| below.path().join(name);
    fs::create_dir_all(below_at("usr/lib")).unwrap();
    for (name, target) in [
        ("lib", "usr/lib"),
        ("absolute", "/usr"),
        ("usr/up", "../../../../usr"),
        ("loop", "loop"),
        ("marked", ".wh.usr"),
    ] {
        symlink(target, below_at(name)).unwrap();
    }
    fs::write(below_at("file"), "").unwrap();
    let apply = |name: &str| {
        let place = Place::new();
        let tree = Tree::open(below.path()).unwrap();
        let applied = place.apply_on(OVERLAY, &[tree], &Evil::new().file(name).bytes());
        applied.map(|()| place)
    };
    for named in ["lib/x", "absolute/lib/x", "usr/up/up/lib/x"] {
        assert!(apply(named).unwrap().at("usr/lib/x").exists(), "{named}");
    }
    for named in ["loop/x", "file/x", "marked/x"] {
        assert!(apply(named).is_err(), "{named}");
    }
}

#[test]
fn a_new_name_of_a_file_below_takes_its_other_names_along() {
    let below = tempfile::tempdir().unwrap();
    let below_at = |name: &str| below.path().join(name);
    fs::create_dir(below_at("d")).unwrap();
    fs::write(below_at("a"), "content").unwrap();
    fs::set_permissions(below_at("a"), fs::Permissions::from_mode(0o4751)).unwrap();
    for name in ["d/b", "gone"] {
        fs::hard_link(below_at("a"), below_at(name)).unwrap();
    }
    let place = Place::new();
    let archive = Evil::new().file(".wh.gone").link("new", "a").bytes();
    let tree = Tree::open(below.path()).unwrap();
    place.apply_on(OVERLAY, &[tree], &archive).unwrap();
    let new = fs::metadata(place.at("new")).unwrap();
    for name in ["a", "d/b"] {
        assert_eq!(fs::metadata(place.at(name)).unwrap().ino(), new.ino());
    }
    assert_eq!((new.nlink(), new.mode() & 0o7777), (3, 0o4751));
    assert_eq!(fs::read_to_string(place.at("new")).unwrap(), "content");
    assert_eq!(fs::metadata(below_at("a")).unwrap().nlink(), 3);
}

#[test]
fn files_that_aufs_kept_for_its_links_come_by_their_names() {
    let place = Place::new();
    let kept = ".wh..wh.plnk/7.9";
    let archive = Evil::new().file(kept).link("one", kept).link("two", kept);
    place.apply(OVERLAY, archive).unwrap();
    assert_eq!(fs::read_to_string(place.at("one")).unwrap(), "new");
    let inode = |name: &str| fs::metadata(place.at(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
    assert_eq!(fs::read_dir(place.layer()).unwrap().count(), 2);
    place.refuses(Evil::new().link("three", kept), "not there");
}

//! Archives as others write them, each read as Go and GNU tar read it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use check::prelude::*;
use rustix::fs::lgetxattr;
use rustix::io::Errno;

use crate::tarball::{
    BLOCK, GID, GNU, LINK, Layers, MAGIC, MTIME, SIZE, UID, entry, file, header, long, octal,
    padded, pax,
};

#[test]
fn a_size_without_content_swallows_nothing() {
    check(|c| {
        let layers = Layers::new(c)?;
        let to: (usize, &[u8]) = (LINK, b"before");
        for (flag, name) in [
            (b'1', "hard"),
            (b'2', "soft"),
            (b'5', "directory"),
            (b'6', "fifo"),
        ] {
            let sized = header(flag, name.as_bytes(), 600, &[to]);
            let entries = [file("before"), sized, file("after")];
            layers.has(name, &entries, &["before", "after"])?;
        }
        // V7 knew no directories but files whose name ends in a slash.
        let old = [(MAGIC, &[0; 8][..])];
        let entries = [header(0, b"v7/", 0, &old), file("v7/in"), file("after")];
        layers.has("v7", &entries, &["v7/in", "after"])?;
        Ok(())
    });
}

#[test]
fn headers_say_what_others_read_in_them() {
    check(|c| {
        let layers = Layers::new(c)?;
        let empty: [(usize, &[u8]); 3] = [(UID, &[0; 8]), (GID, &[b' '; 8]), (MTIME, &[0; 12])];
        let root = layers.has(
            "empty",
            &[entry(b'0', b"a", b"content", &empty), file("b")],
            &["a", "b"],
        )?;
        let of = |root: &PathBuf, name: &str| -> Result<(u32, i64)> {
            let metadata = root.join(name).symlink_metadata().context("stat")?;
            Ok((metadata.uid(), metadata.mtime()))
        };
        expect_eq("owner and time of empty fields", of(&root, "a")?, (0, 0))?;
        // GNU's large and negative numbers; star's before 1970.
        let mut binary = [0; 12];
        binary[0] = 0x80;
        binary[11] = 7;
        let mut before = [0xff; 12];
        before[11] = 0xfe;
        let uid = [0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0];
        let fields: [(usize, &[u8]); 3] = [(SIZE, &binary), (MTIME, &before), (UID, &uid)];
        let entries = [
            entry(b'0', b"a", b"content", &fields),
            pax(b'x', &[("mtime", b"-1.5")]),
            file("b"),
        ];
        let root = layers.has("binary", &entries, &["a", "b"])?;
        expect_eq("base-256 owner and time", of(&root, "a")?, (3_000_000, -2))?;
        expect_eq("the time -1.5", of(&root, "b")?, (0, -2))?;
        // Names that need to be cleaned, a link to itself, and the ID that
        // chown(2) takes for "unchanged".
        let itself: (usize, &[u8]) = (LINK, b"b");
        let nobody: [(usize, &[u8]); 1] = [(UID, &[0xff; 8])];
        let entries = [
            file("q/../a"),
            file("/../b"),
            header(b'1', b"b", 0, &[itself]),
            entry(b'0', b"c", b"content", &nobody),
        ];
        let root = layers.has("cleaned", &entries, &["a", "b", "c"])?;
        expect_eq("the owner -1", of(&root, "c")?.0, 0)?;

        let (one, two) = ("d/".to_owned() + &"1".repeat(150), "2".repeat(150));
        let nul = [two.as_bytes(), b"\0\0behind\0"].concat();
        for (id, before, name) in [
            (
                "twice",
                [long(b'L', one.as_bytes()), long(b'L', two.as_bytes())].concat(),
                &*two,
            ),
            ("nul", long(b'L', &nul), &two),
            (
                "pax",
                [pax(b'x', &[("path", b"p1")]), pax(b'x', &[("path", b"p2")])].concat(),
                "p2",
            ),
            ("none", pax(b'x', &[("path", b""), ("uid", b"")]), "short"),
            (
                "newline",
                pax(b'x', &[("comment", b"a\n9 path=b\n")]),
                "short",
            ),
            ("global", pax(b'g', &[("comment", b"0123456789")]), "short"),
        ] {
            layers.has(id, &[before, file("short")], &[name])?;
        }
        // A capability is binary: here with a newline, a NUL, and an equals sign.
        let value = b"\x01\0\0\x02\x0a\0\0\0=\0\0\0\0\0\0\0\0\0\0\0";
        let records: [(&str, &[u8]); 2] = [
            ("SCHILY.xattr.security.capability", value),
            ("linkpath", b"a\nb"),
        ];
        let entries = [
            pax(b'x', &records[..1]),
            file("tool"),
            pax(b'x', &records[1..]),
            header(b'2', b"link", 0, &[(LINK, b"short")]),
        ];
        let root = layers.has("binary-value", &entries, &["tool"])?;
        let mut found = [0; 64];
        let length = match lgetxattr(root.join("tool"), "security.capability", &mut found[..]) {
            Err(Errno::NODATA) => 0,
            length => length.context("getxattr")?,
        };
        expect_eq("the capability", &found[..length], &value[..])?;
        let target = fs::read_link(root.join("link")).context("readlink")?;
        expect_eq("the link", target.as_os_str().as_bytes(), b"a\nb")
    });
}

#[test]
fn files_with_holes_are_whole() {
    check(|c| {
        let layers = Layers::new(c)?;
        // A hole, a block of x, a hole, a block of y, a hole.
        let data = [[b'x'; BLOCK], [b'y'; BLOCK]].concat();
        let mut whole = vec![0; 6 * BLOCK];
        whole[BLOCK..2 * BLOCK].fill(b'x');
        whole[4 * BLOCK..5 * BLOCK].fill(b'y');
        let size: &[u8] = b"3072";
        let name: &[u8] = b"sparse";
        let other = b"GNUSparseFile.0/x";
        let map = |join: &str| ["512", "512", "2048", "512", "3072", "0"].join(join);
        let in_front = padded(format!("3\n{}\n", map("\n")).as_bytes());
        let old: Vec<u8> = [512, 512, 2048, 512, 3072, 0]
            .iter()
            .flat_map(|n| octal(*n))
            .collect();
        let formats = [
            (
                "old",
                entry(
                    b'S',
                    name,
                    &data,
                    &[(MAGIC, GNU), (386, &old), (483, &octal(3072))],
                ),
            ),
            (
                "pax-0.0",
                [
                    pax(
                        b'x',
                        &[
                            ("GNU.sparse.size", size),
                            ("GNU.sparse.numblocks", b"3"),
                            ("GNU.sparse.offset", b"512"),
                            ("GNU.sparse.numbytes", b"512"),
                            ("GNU.sparse.offset", b"2048"),
                            ("GNU.sparse.numbytes", b"512"),
                            ("GNU.sparse.offset", b"3072"),
                            ("GNU.sparse.numbytes", b"0"),
                        ],
                    ),
                    entry(b'0', name, &data, &[]),
                ]
                .concat(),
            ),
            (
                "pax-0.1",
                [
                    pax(
                        b'x',
                        &[
                            ("GNU.sparse.size", size),
                            ("GNU.sparse.numblocks", b"3"),
                            ("GNU.sparse.map", map(",").as_bytes()),
                            ("GNU.sparse.name", name),
                        ],
                    ),
                    entry(b'0', other, &data, &[]),
                ]
                .concat(),
            ),
            (
                "pax-1.0",
                [
                    pax(
                        b'x',
                        &[
                            ("GNU.sparse.major", b"1"),
                            ("GNU.sparse.minor", b"0"),
                            ("GNU.sparse.name", name),
                            ("GNU.sparse.realsize", size),
                        ],
                    ),
                    entry(b'0', other, &[in_front, data.clone()].concat(), &[]),
                ]
                .concat(),
            ),
        ];
        for (id, archive) in formats {
            let root = layers.has(id, &[archive, file("after")], &["after"])?;
            let found = fs::read(root.join("sparse")).unwrap_or_default();
            expect(
                found == whole,
                format!("a file with holes, {id}, of {} bytes", whole.len()),
                match found.len() {
                    0 => "no such file, or an empty one".to_owned(),
                    length => format!("{length} bytes, the holes not where they were"),
                },
            )?;
        }
        Ok(())
    });
}

#[test]
fn no_file_is_missing_without_a_word() {
    check(|c| {
        let layers = Layers::new(c)?;
        let cut = file("cut");
        let sparse = pax(
            b'x',
            &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")],
        );
        let many = [
            pax(
                b'x',
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")],
            ),
            entry(b'0', b"many", &padded(b"99999999999999\n"), &[]),
        ]
        .concat();
        let damaged = {
            let mut archive = file("\x1b[2J\x1b]0;title\x07");
            archive[SIZE] = b'\x1b';
            archive
        };
        let no_number = entry(b'0', b"\x1b[2J", b"content", &[(UID, b"\x1b[31m\0\0\0")]);
        for (id, archive, words) in [
            (
                "zeroes",
                [file("a"), vec![0; BLOCK], file("b")].concat(),
                &["zeroes"][..],
            ),
            (
                "cut",
                [&file("a")[..], &cut[..300]].concat(),
                &["entry 2", "1024"],
            ),
            ("name", long(b'L', b"nothing"), &["ends after the headers"]),
            (
                "version",
                [sparse, file("a")].concat(),
                &["entry 1", "sparse"],
            ),
            ("pieces", many, &["entry 1", "pieces"]),
            (
                "garbage",
                b"\x1b[2Jno archive \x07".repeat(60),
                &["entry 1", "header"],
            ),
            ("damaged", damaged, &["entry 1", "checksum"]),
            ("number", no_number, &["entry 1", "uid"]),
        ] {
            let ran = layers.create(id, &archive)?;
            let ran = ran.expect_error(125, words)?;
            expect(
                !ran.stderr.trim_end().chars().any(char::is_control),
                format!("an error about {id:?} without control characters"),
                format!("{:?}", ran.stderr),
            )?;
            expect(
                !layers.store.layers()?.contains(&id.to_owned()),
                "no layer of an archive that was refused",
                id,
            )?;
        }
        Ok(())
    });
}

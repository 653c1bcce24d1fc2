//! Contexts, `COPY` and `ADD`.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use check::check::wait_for;
use check::prelude::*;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};
use tar::{Builder, EntryType, Header};

use super::yard::Yard;

/// Builds with files.
struct Shelf<'a>(Yard<'a>);

impl<'a> Deref for Shelf<'a> {
    type Target = Yard<'a>;

    fn deref(&self) -> &Yard<'a> {
        &self.0
    }
}

impl<'a> Shelf<'a> {
    /// `prepare` changes the files of the image.
    fn new(c: &'a Check, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Yard::new(c, prepare).map(Shelf)
    }

    /// Builds `FROM box` and these instructions as the image `made`.
    fn build(&self, instructions: &str) -> Result<Ran> {
        let file = self.c.dir().join("Dockerfile");
        fs::write(&file, format!("FROM box\n{instructions}\n")).context("write")?;
        let words = ["build", "-q", "-t", "made", "-f"];
        let (file, context) = (
            file.display().to_string(),
            self.context.display().to_string(),
        );
        self.call(&[&words[..], &[&file, &context]].concat()).run()
    }

    /// Runs a script in the image `made`.
    fn inside(&self, script: &str) -> Result<String> {
        let words = [
            "run",
            "--rm",
            "--network",
            "none",
            "made",
            "sh",
            "-c",
            script,
        ];
        let ran = self.call(&words).run()?.success()?;
        Ok(ran.stdout.trim_end().to_owned())
    }

    /// Builds, and lists what is below `/y` then, without its directory: type and
    /// mode, owner, name, target.
    fn listed(&self, instructions: &str) -> Result<String> {
        self.build(instructions)?.success()?;
        let script = "cd /y 2>/dev/null || exit 0; find . -mindepth 1 | sort | while read -r f; do \
                      stat -c '%A %u:%g %N' \"$f\"; done";
        let text = self.inside(script)?;
        let lines = text
            .lines()
            .map(|line| line.replace(['\'', '"'], "").replace("./", ""));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Builds from an archive on standard input.
    fn archive_as_context(&self, archive: &[u8], options: &[&str]) -> Result<Ran> {
        let words = [&["build", "-q", "-t", "made"], options, &["-"]].concat();
        self.call(&words).stdin(archive).run()
    }

    /// What builds have left in the state directory besides images and caches.
    fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for directory in ["build/context", "run/overlay2", "containers"] {
            let Ok(entries) = fs::read_dir(self.root.join(directory)) else {
                continue;
            };
            for entry in entries {
                let name = entry.context("readdir")?.file_name().display().to_string();
                let known = ["names", "events"].contains(&&*name);
                if !name.starts_with('.') && !known {
                    left.push(format!("{directory}/{name}"));
                }
            }
        }
        Ok(left)
    }
}

/// An error of a build: several lines, of which the last one says it.
trait Refused: Sized {
    /// Expects that the build failed, with these words.
    fn refused(self, words: &[&str]) -> Result<Self>;
}

impl Refused for Ran {
    fn refused(self, words: &[&str]) -> Result<Self> {
        expect_eq("the exit status", self.status, 1)?;
        let last = self.stderr.trim_end().lines().last().unwrap_or_default();
        for word in words {
            let wanted = format!("an error that begins with \"drydock: \" and says {word:?}");
            let says = last.starts_with("drydock: ") && last.contains(word);
            expect(says, wanted, &self.stderr)?;
        }
        Ok(self)
    }
}

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

/// An archive of these entries: name, type, target of a link, content.
fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, target, content) in entries {
        let mut header = Header::new_gnu();
        // As it is: the library refuses names that lead out.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        header.set_link_name_literal(target).context("a link")?;
        if kind.is_block_special() || kind.is_character_special() {
            header.set_device_major(0).context("a device")?;
            header.set_device_minor(0).context("a device")?;
        }
        header.set_cksum();
        archive.append(&header, *content).context("an archive")?;
    }
    archive.into_inner().context("an archive")
}

/// Runs a packer of the host over some bytes.
fn packed(words: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = std::process::Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(words[0].to_owned())?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(bytes).context("write")?;
    drop(input);
    let output = child.wait_with_output().context("wait")?;
    expect(output.status.success(), words[0], output.status)?;
    Ok(output.stdout)
}

/// Instructions, and what is in `/y` then, or the words of the error. Docker's
/// BuildKit gives the same.
const RULES: &[(&str, Result<&str, &str>)] = &[
    ("COPY a /y/x", Ok("-rw-r----- 0:0 x")),
    ("COPY a /y/", Ok("-rw-r----- 0:0 a")),
    (
        "COPY a /y/new/x",
        Ok("drwxr-xr-x 0:0 new\n-rw-r----- 0:0 new/x"),
    ),
    (
        "COPY --chown=1:2 a /y/new/x",
        Ok("drwxr-xr-x 1:2 new\n-rw-r----- 1:2 new/x"),
    ),
    (
        "COPY d /y",
        Ok(
            "-rw-r--r-- 0:0 .hidden\nlrwxrwxrwx 0:0 l -> f\ndrwx------ 0:0 sub\n\
             -rw-r--r-- 0:0 sub/deep\n-rw-r--r-- 0:0 f",
        ),
    ),
    (
        "COPY d/sub a /y/",
        Ok("-rw-r----- 0:0 a\n-rw-r--r-- 0:0 deep"),
    ),
    ("COPY d/sub/. /y/", Ok("-rw-r--r-- 0:0 deep")),
    (
        "COPY to-? /y/",
        Ok("-rw-r----- 0:0 to-a
-rw-r--r-- 0:0 .hidden
lrwxrwxrwx 0:0 l -> f
\
             drwx------ 0:0 sub
-rw-r--r-- 0:0 sub/deep
-rw-r--r-- 0:0 f"),
    ),
    ("COPY [a-c] /y/", Ok("-rw-r----- 0:0 a\n-rw-r--r-- 0:0 b")),
    ("COPY */sub /y/", Ok("-rw-r--r-- 0:0 deep")),
    ("COPY none* /y/", Ok("")),
    ("COPY to-a /y/", Ok("-rw-r----- 0:0 to-a")),
    ("COPY to-d/sub /y/", Ok("-rw-r--r-- 0:0 deep")),
    ("COPY /a /y/", Ok("-rw-r----- 0:0 a")),
    ("COPY ./d/../a /y/", Ok("-rw-r----- 0:0 a")),
    ("COPY [\"b\", \"/y/\"]", Ok("-rw-r--r-- 0:0 b")),
    ("WORKDIR /y\nCOPY b .", Ok("-rw-r--r-- 0:0 b")),
    (
        "WORKDIR /y/w\nCOPY b ../c",
        Ok("-rw-r--r-- 0:0 c\ndrwxr-xr-x 0:0 w"),
    ),
    ("COPY --chown=bob b /y/", Ok("-rw-r--r-- 77:88 b")),
    ("COPY --chown=bob:mail b /y/", Ok("-rw-r--r-- 77:8 b")),
    ("COPY --chown=77 b /y/", Ok("-rw-r--r-- 77:77 b")),
    ("COPY --chown=:mail b /y/", Ok("-rw-r--r-- 0:8 b")),
    ("COPY --chmod=600 b /y/", Ok("-rw------- 0:0 b")),
    ("COPY --chmod=4711 b /y/", Ok("-rws--x--x 0:0 b")),
    ("COPY --chmod=u+x,g=u a /y/", Ok("-rwxrwx--- 0:0 a")),
    (
        "COPY --chmod=u=rwX,go=rX d/sub/.. /y/",
        Ok(
            "-rw-r--r-- 0:0 .hidden\nlrwxrwxrwx 0:0 l -> f\ndrwxr-xr-x 0:0 sub\n\
             -rw-r--r-- 0:0 sub/deep\n-rw-r--r-- 0:0 f",
        ),
    ),
    (
        "COPY --parents d/sub/deep /y/",
        Ok("drwx--x--x 0:0 d\ndrwx------ 0:0 d/sub\n-rw-r--r-- 0:0 d/sub/deep"),
    ),
    (
        "COPY --parents d/./sub/deep /y/",
        Ok("drwx------ 0:0 sub\n-rw-r--r-- 0:0 sub/deep"),
    ),
    (
        "COPY --parents **/deep /y/",
        Ok("drwx--x--x 0:0 d\ndrwx------ 0:0 d/sub\n-rw-r--r-- 0:0 d/sub/deep"),
    ),
    (
        "COPY --exclude=sub --exclude=.* d /y/",
        Ok("lrwxrwxrwx 0:0 l -> f\n-rw-r--r-- 0:0 f"),
    ),
    ("COPY --exclude=a [a-c] /y/", Ok("-rw-r--r-- 0:0 b")),
    (
        "COPY <<one <<two /y/\n1\none\n2\ntwo",
        Ok("-rw-r--r-- 0:0 one\n-rw-r--r-- 0:0 two"),
    ),
    ("COPY none /y/", Err("\"/none\": not found")),
    ("COPY d/none a /y/", Err("\"/d/none\": not found")),
    ("COPY a/b /y/", Err("\"/a/b\": not found")),
    ("COPY ../context/a /y/", Err("\"/context/a\": not found")),
    (
        "COPY a b /y",
        Err("the destination must be a directory and end with a /"),
    ),
    (
        "COPY d /etc/passwd",
        Err("cannot copy to non-directory: /etc/passwd"),
    ),
    (
        "COPY a /etc/passwd/",
        Err("cannot copy to non-directory: /etc/passwd"),
    ),
    (
        "COPY t /",
        Err("cannot replace to directory /etc with file"),
    ),
    ("COPY u /", Err("cannot copy to non-directory: /etc/passwd")),
    (
        "COPY --chown=nobody-here a /y/",
        Err("unable to find user nobody-here"),
    ),
    (
        "COPY --chown=bob:none a /y/",
        Err("unable to find group none"),
    ),
    ("COPY --chown=4294967295 a /y/", Err("is no ID")),
    (
        "COPY --chmod=888 a /y/",
        Err("invalid chmod parameter: '888'"),
    ),
];

fn rules_of_destinations(image: &Path) -> Result<()> {
    let text = "root:x:0:0::/root:/bin/sh\nbob:x:77:88::/:/bin/sh\n";
    fs::write(image.join("etc/passwd"), text).context("write")?;
    fs::write(image.join("etc/group"), "root:x:0:\nmail:x:8:\n").context("write")
}

#[test]
fn a_copy_goes_where_docker_puts_it() {
    check(|c| {
        let yard = Shelf::new(c, rules_of_destinations)?;
        let a = yard.file("a", "a")?;
        fs::set_permissions(&a, Permissions::from_mode(0o640)).context("chmod")?;
        rustix::fs::chown(
            &a,
            Some(rustix::fs::Uid::from_raw(12)),
            Some(rustix::fs::Gid::from_raw(12)),
        )
        .context("chown")?;
        for name in [
            "b",
            "d/f",
            "d/.hidden",
            "d/sub/deep",
            "t/etc",
            "u/etc/passwd/x",
        ] {
            yard.file(name, name)?;
        }
        for (name, mode) in [("d", 0o711), ("d/sub", 0o700)] {
            let path = yard.context.join(name);
            fs::set_permissions(path, Permissions::from_mode(mode)).context("chmod")?;
        }
        for (target, link) in [("f", "d/l"), ("a", "to-a"), ("d", "to-d"), ("d/sub", "s")] {
            symlink(target, yard.context.join(link)).context("symlink")?;
        }
        for (instructions, expected) in RULES {
            match expected {
                Ok(expected) => {
                    let found = yard.listed(instructions).context(*instructions)?;
                    let sorted = |text: &str| {
                        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                        lines.sort();
                        lines
                    };
                    let what = format!("what {instructions:?} makes");
                    expect_eq(&what, sorted(&found), sorted(expected))?;
                }
                Err(words) => {
                    let ran = yard.build(instructions)?;
                    ran.refused(&[words]).context(*instructions)?;
                }
            }
        }
        expect_eq("what failed builds leave", yard.left()?, Vec::new())
    });
}

#[test]
fn a_copy_keeps_what_a_file_is() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        let word = c.word("word");
        let file = yard.file("d/file", &word)?;
        fs::set_permissions(&file, Permissions::from_mode(0o4751)).context("chmod")?;
        fs::hard_link(&file, yard.context.join("d/other")).context("link")?;
        let sparse = File::create(yard.context.join("d/sparse")).context("open")?;
        sparse.set_len(64 << 20).context("ftruncate")?;
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (64 << 20) - 3)
            .context("write")?;
        let attribute =
            rustix::fs::setxattr(&file, "user.word", word.as_bytes(), XattrFlags::empty());
        for name in ["d/file", "d"] {
            let time = Timespec {
                tv_sec: 981_173_106,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let path = yard.context.join(name);
            rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty())
                .context("utimensat")?;
        }
        yard.build("COPY . /y/")?.success()?;
        let script = "cat /y/d/file; echo; stat -c '%a %Y %h' /y/d/file /y/d; \
                      stat -c '%i' /y/d/file /y/d/other | uniq | wc -l; \
                      tail -c 3 /y/d/sparse; echo; stat -c %s /y/d/sparse";
        let found = yard.inside(script)?;
        let lines: Vec<&str> = found.lines().collect();
        expect_eq("the content", lines[0], &word)?;
        expect_eq(
            "mode, time and names of the file",
            lines[1],
            "4751 981173106 2",
        )?;
        expect(
            lines[2].starts_with("755 981173106"),
            "mode and time of the directory",
            lines[2],
        )?;
        expect_eq("inodes of the two names", lines[3], "1")?;
        expect_eq("the end of the file with holes", lines[4], "end")?;
        expect_eq("its size", lines[5], "67108864")?;
        if attribute.is_ok() {
            let saved = yard.call(&["save", "made"]).run()?.success()?;
            expect(
                saved.stdout.contains("SCHILY.xattr.user.word") || is_packed(&saved.stdout),
                "the attribute in the layer's archive",
                "none",
            )?;
        }
        // SOURCE_DATE_EPOCH: no later time, anywhere.
        let file = c.dir().join("Dockerfile");
        let words = ["build", "-q", "-t", "made", "--no-cache", "-f"];
        let (file, context) = (
            file.display().to_string(),
            yard.context.display().to_string(),
        );
        yard.call(&[&words[..], &[&file, &context]].concat())
            .env("SOURCE_DATE_EPOCH", "900000000")
            .run()?
            .success()?;
        let late = yard.inside("find /y -newermt @900000001 2>/dev/null || find /y -mtime -1")?;
        expect_eq("files newer than SOURCE_DATE_EPOCH", &*late, "")
    });
}

/// Whether the layers of a saved image are compressed.
fn is_packed(saved: &str) -> bool {
    saved.contains("tar+gzip")
}

#[test]
fn no_link_leads_out_of_the_context() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        let secret = c.word("secret");
        let outside = c.dir().join("outside");
        fs::create_dir(&outside).context("mkdir")?;
        fs::write(outside.join("x"), &secret).context("write")?;
        yard.file("good/x", "good")?;
        let up = format!("../../../../../../../../..{}", outside.display());
        let magic = format!("/proc/self/root{}", outside.display());
        for (target, link) in [
            (outside.display().to_string(), "abs"),
            (up.clone(), "up"),
            (magic, "magic"),
            (outside.join("x").display().to_string(), "file"),
            ("/proc/self/cwd".into(), "cwd"),
        ] {
            symlink(target, yard.context.join(link)).context("symlink")?;
        }
        for source in [
            "abs/x",
            "up/x",
            "magic/x",
            "file",
            "abs",
            "cwd",
            &format!("{up}/x"),
        ] {
            let ran = yard.build(&format!("COPY {source} /y/"))?;
            ran.refused(&["not found"]).context(source.to_owned())?;
        }
        // With wildcards there is just nothing; a link that is copied as one is
        // not followed.
        for copy in [
            "COPY */x /y/",
            "COPY ma*/* /y/",
            "COPY --parents **/x /y/",
            "COPY . /y/",
        ] {
            yard.build(copy)?.success()?;
            let found = yard.inside(&format!("grep -r {secret} /y; true"))?;
            expect_eq(&format!("the secret after {copy}"), &*found, "")?;
        }
        let ignore = yard.context.join(".dockerignore");
        symlink(outside.join("x"), &ignore).context("symlink")?;
        fs::remove_file(c.dir().join("Dockerfile")).context("unlink")?;
        symlink(outside.join("x"), yard.context.join("Dockerfile")).context("symlink")?;
        let context = yard.context.display().to_string();
        let ran = yard.call(&["build", "-q", &context]).run()?;
        let ran = ran.refused(&["failed to read dockerfile"])?;
        expect(!ran.stderr.contains(&secret), "no secret", &ran.stderr)?;
        fs::remove_file(yard.context.join("Dockerfile")).context("unlink")?;
        fs::remove_file(ignore).context("unlink")?;
        // Somebody swaps a directory and a link, as fast as the kernel does it.
        let stop = Arc::new(AtomicBool::new(false));
        let swap = {
            let (stop, context) = (Arc::clone(&stop), yard.context.clone());
            std::thread::spawn(move || -> rustix::io::Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    let (one, two) = (context.join("good"), context.join("abs"));
                    rustix::fs::renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?;
                }
                Ok(())
            })
        };
        let mut leaked = Ok(());
        for copy in ["good/x", "good", ".", "good/*", "*/x"]
            .iter()
            .cycle()
            .take(15)
        {
            let ran = yard.build(&format!("COPY {copy} /y/"));
            leaked = leaked.and(ran.and_then(|ran| {
                if ran.status != 0 {
                    return Ok(());
                }
                let found = yard.inside(&format!("grep -r {secret} /y; true"))?;
                expect_eq(&format!("the secret after COPY {copy}"), &*found, "")
            }));
        }
        stop.store(true, Ordering::Relaxed);
        let swapped = swap
            .join()
            .map_err(|_| failed("a thread that swaps", "a panic"))?;
        swapped.context("renameat2(RENAME_EXCHANGE)")?;
        leaked
    });
}

#[test]
fn no_link_of_an_image_leads_out_of_the_stage() {
    check(|c| {
        let outside = c.dir().join("outside");
        fs::create_dir(&outside).context("mkdir")?;
        let up = format!("../../../../../../../..{}", outside.display());
        let magic = format!("/proc/self/root{}", outside.display());
        let yard = Shelf::new(c, |image| {
            for (target, link) in [
                (outside.display().to_string(), "abs"),
                (up.clone(), "up"),
                (magic.clone(), "magic"),
                ("etc".into(), "inner"),
                (outside.join("made").display().to_string(), "file"),
            ] {
                symlink(target, image.join(link)).context("symlink")?;
            }
            fs::create_dir(image.join("tree")).context("mkdir")?;
            symlink(&outside, image.join("tree/sub")).context("symlink")?;
            symlink(outside.join("made"), image.join("tree/f")).context("symlink")
        })?;
        yard.file("a", "a")?;
        yard.file("d/f", "f")?;
        yard.file("e/sub/f", "f")?;
        let tar = archive(&[("f", EntryType::Regular, "", b"f")])?;
        yard.file("t.tar", tar)?;
        for copy in [
            "COPY a /abs/x",
            "COPY a /up/x",
            "COPY a /magic/x",
            "COPY a /file",
            "COPY d /up",
            "COPY d /tree",
            "ADD t.tar /up/",
            "COPY --link a /up/x",
            "COPY --parents d/f /magic/",
            "COPY --from=box /etc/passwd /up/",
        ] {
            yard.build(copy)?.success().context(copy)?;
        }
        // Within the root, as for a process of the container.
        yard.build("COPY a /up/x")?.success()?;
        let script = format!("cat /up/x {}/x", outside.display());
        expect_eq(
            "what is behind the link, inside",
            &*yard.inside(&script)?,
            "aa",
        )?;
        yard.build("COPY a /inner/x")?.success()?;
        expect_eq(
            "the file behind the link",
            &*yard.inside("cat /etc/x")?,
            "a",
        )?;
        // A file takes the place of a link in a tree, and is not written
        // through it.
        yard.build("COPY d /tree")?.success()?;
        let found = yard.inside("stat -c %F /tree/f")?;
        expect_eq("what was a link", &*found, "regular file")?;
        let ran = yard.build("COPY e /tree")?;
        ran.refused(&["cannot copy to non-directory: /tree/sub"])?;
        // --link: the result does not depend on what is below.
        yard.build("COPY --link a /inner/x")?.success()?;
        let found = yard.inside("stat -c %F /inner; ls /etc/x 2>/dev/null; cat /inner/x")?;
        expect_eq("what is there after --link", &*found, "directory\na")?;
        let made: Vec<_> = fs::read_dir(&outside).context("readdir")?.collect();
        expect(made.is_empty(), "no file outside", format!("{made:?}"))
    });
}

#[test]
fn an_archive_is_unpacked_within_its_directory() {
    check(|c| {
        let outside = c.dir().join("outside");
        fs::create_dir(&outside).context("mkdir")?;
        let out = outside.display().to_string();
        let up = format!("../../../../../../../..{out}");
        let yard = Shelf::new(c, nothing)?;
        let plain = archive(&[
            ("./", EntryType::Directory, "", b""),
            ("d/", EntryType::Directory, "", b""),
            ("d/f", EntryType::Regular, "", b"text"),
            ("d/h", EntryType::Link, "d/f", b""),
            ("l", EntryType::Symlink, "d/f", b""),
        ])?;
        let listed = "drw-r--r-- 5:6 d\n-rw-r--r-- 5:6 d/f\n-rw-r--r-- 5:6 d/h\n\
                      lrwxrwxrwx 5:6 l -> d/f";
        yard.file("plain", &plain)?;
        for (name, packer) in [
            ("gzip", &["gzip", "-c"][..]),
            ("bzip2", &["bzip2", "-c"]),
            ("xz", &["xz", "-c"]),
        ] {
            yard.file(name, packed(packer, &plain)?)?;
        }
        for name in ["plain", "gzip", "bzip2", "xz"] {
            let found = yard.listed(&format!("ADD {name} /y/"))?;
            expect_eq(&format!("what ADD {name} makes"), &*found, listed)?;
        }
        // COPY does not unpack, nor does ADD with --unpack=false, or of a
        // directory.
        for copy in ["COPY gzip /y/", "ADD --unpack=false gzip /y/"] {
            let found = yard.listed(copy)?;
            expect_eq(
                &format!("what {copy} makes"),
                &*found,
                "-rw-r--r-- 0:0 gzip",
            )?;
        }
        yard.file("no", "an archive? no\n".repeat(100))?;
        expect_eq(
            "what ADD no makes",
            &*yard.listed("ADD no /y/")?,
            "-rw-r--r-- 0:0 no",
        )?;
        let long = "d/".repeat(40) + "f";
        let deep = long.as_str();
        let regular = EntryType::Regular;
        for (what, entries, words) in [
            (
                "..",
                vec![("../x", regular, "", &b"x"[..])],
                Some("leads out"),
            ),
            (
                "d/../../x",
                vec![("d/../../x", regular, "", b"x")],
                Some("leads out"),
            ),
            (
                "a hard link out",
                vec![("h", EntryType::Link, &*up, b"")],
                Some("leads out"),
            ),
            (
                "a hard link to the host",
                vec![("h", EntryType::Link, "/etc/hostname", b"")],
                Some("link"),
            ),
            (
                "a whiteout",
                vec![(".wh.bin", regular, "", b"")],
                Some(".wh."),
            ),
            (
                "an opaque mark",
                vec![("d/.wh..wh..opq", regular, "", b"")],
                Some(".wh."),
            ),
            (
                "the device of a whiteout",
                vec![("w", EntryType::Char, "", b"")],
                Some("0:0"),
            ),
            ("an absolute name", vec![(deep, regular, "", b"x")], None),
            (
                "a link out, and a file behind it",
                vec![
                    ("l", EntryType::Symlink, &*up, b""),
                    ("l/x", regular, "", b"x"),
                ],
                None,
            ),
            (
                "a link to a file, and a file of its name",
                vec![
                    ("l", EntryType::Symlink, &*up, b""),
                    ("l", regular, "", b"x"),
                ],
                None,
            ),
            (
                "a directory, and a file of its name",
                vec![("a/b", regular, "", b"x"), ("a", regular, "", b"x")],
                None,
            ),
        ] {
            let tar = archive(&entries)?;
            yard.file("t.tar", &tar)?;
            let ran = yard.build("ADD t.tar /y/")?;
            let with_file = [
                &entries[..],
                &[("Dockerfile", regular, "", &b"FROM box\nCOPY . /y/"[..])],
            ];
            let other = yard.archive_as_context(&archive(&with_file.concat())?, &[])?;
            match words {
                Some(words) => ran.refused(&[words]),
                None => ran.success(),
            }
            .context(what)?;
            // A context drops devices.
            match words.filter(|words| *words != "0:0") {
                Some(words) => other.refused(&[words]),
                None => other.success(),
            }
            .context(what)?;
            let made: Vec<_> = fs::read_dir(&outside).context("readdir")?.collect();
            expect(
                made.is_empty(),
                format!("no file outside: {what}"),
                format!("{made:?}"),
            )?;
        }
        expect_eq("what failed builds leave", yard.left()?, Vec::new())
    });
}

#[test]
fn a_context_may_come_as_an_archive() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        let text = b"FROM box\nCOPY . /y/\nCOPY --chown=1:2 f /y/g\n";
        let regular = EntryType::Regular;
        let entries = [
            ("Dockerfile", regular, "", &text[..]),
            (".dockerignore", regular, "", &b"left\nDockerfile*\n.d*"[..]),
            ("other", regular, "", &b"FROM box\nCOPY f /y/x"[..]),
            ("f", regular, "", b"f"),
            ("left", regular, "", b"left"),
            ("d/f", regular, "", b"f"),
            ("fifo", EntryType::Fifo, "", b""),
        ];
        let tar = archive(&entries)?;
        let list = "cd /y && find . -mindepth 1 | sort | xargs stat -c '%A %u:%g %n'";
        let expected = "drwxr-xr-x 0:0 ./d\n-rw-r--r-- 5:6 ./d/f\n-rw-r--r-- 5:6 ./f\n\
                        prw-r--r-- 5:6 ./fifo\n-rw-r--r-- 1:2 ./g\n-rw-r--r-- 5:6 ./other";
        for packer in [&["cat"][..], &["gzip", "-c"], &["xz", "-c"]] {
            yard.archive_as_context(&packed(packer, &tar)?, &[])?
                .success()?;
            expect_eq("the files", &*yard.inside(list)?, expected)?;
        }
        yard.archive_as_context(&tar, &["-f", "other"])?.success()?;
        expect_eq(
            "the files of another Dockerfile",
            &*yard.inside("ls /y")?,
            "x",
        )?;
        yard.archive_as_context(&tar, &["-f", "none"])?
            .refused(&["open none: no such file or directory"])?;
        // A Dockerfile alone has no files.
        yard.archive_as_context(b"FROM box\nRUN mkdir /y\n", &["--network", "none"])?
            .success()?;
        yard.archive_as_context(b"FROM box\nCOPY f /y/\n", &[])?
            .refused(&["no context"])?;
        yard.archive_as_context(b"FROM box\n", &["-f", "-"])?
            .refused(&["can't use stdin for both"])?;
        yard.archive_as_context(&packed(&["gzip", "-c"], b"FROM box\n")?, &[])?
            .refused(&["no archive"])?;
        expect_eq("what builds leave", yard.left()?, Vec::new())?;
        // One that never ends, and is killed.
        let mut command = yard.call(&["build", "-q", "-"]).command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the program")?;
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(&tar[..tar.len() - 1024]).context("write")?;
        // More than it reads at once: what came before has been unpacked.
        let more = archive(&[("big", regular, "", &vec![1; 200 << 10])])?;
        input
            .write_all(&more[..more.len() - 1024])
            .context("write")?;
        let begun = wait_for(|| yard.left().ok().filter(|left| !left.is_empty()));
        expect(begun.is_some(), "a directory with the files", "none")?;
        child.kill().context("kill")?;
        child.wait().context("wait")?;
        drop(input);
        yard.archive_as_context(&tar, &[])?.success()?;
        expect_eq("what is left after a kill", yard.left()?, Vec::new())
    });
}

#[test]
fn what_is_no_file_is_not_copied() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        yard.file("d/f", "f")?;
        let at = |name: &str| yard.context.join(name);
        let mode = Mode::RUSR | Mode::WUSR;
        for (name, kind, device) in [
            ("d/fifo", FileType::Fifo, 0),
            (
                "d/null",
                FileType::CharacterDevice,
                rustix::fs::makedev(1, 3),
            ),
            ("d/whiteout", FileType::CharacterDevice, 0),
        ] {
            rustix::fs::mknodat(CWD, at(name), kind, mode, device).context("mknod")?;
        }
        let _socket = std::os::unix::net::UnixListener::bind(at("d/socket")).context("bind")?;
        expect_eq(
            "what COPY d makes",
            &*yard.listed("COPY d /y/")?,
            "-rw-r--r-- 0:0 f\nprw------- 0:0 fifo",
        )?;
        yard.build("ADD d/fifo /y/")?.success()?;
        for name in ["null", "whiteout", "socket"] {
            for word in ["COPY", "ADD"] {
                yard.build(&format!("{word} d/{name} /y/"))?
                    .refused(&["is not copied"])?;
            }
        }
        // A name that would delete a file of the image, in whatever unpacks it.
        yard.file(".wh.passwd", "")?;
        for copy in [
            "COPY . /etc/",
            "COPY .wh.passwd /etc/",
            "COPY d/f /etc/.wh.passwd",
        ] {
            yard.build(copy)?.refused(&[".wh."]).context(copy)?;
        }
        // Odd names are names.
        fs::remove_file(at(".wh.passwd")).context("unlink")?;
        let odd = ["new\nline", "-rf", " ", "*", "ö", &"n".repeat(255)];
        for name in odd {
            yard.file(&format!("odd/{name}"), "x")?;
        }
        let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd/\xff\xfe");
        fs::write(yard.context.join(bytes), "x").context("write")?;
        yard.build("COPY odd /y/")?.success()?;
        let count = yard.inside("find /y -mindepth 1 -print0 | tr -cd '\\0' | wc -c")?;
        expect_eq("the number of files", &*count, "7")?;
        yard.build("COPY odd/[*] /y/")?.success()?;
        expect_eq("what COPY [*] makes", &*yard.inside("ls /y")?, "*")?;
        let long = "n".repeat(300);
        yard.build(&format!("COPY {long} /y/"))?
            .refused(&["not found"])?;
        yard.build(&format!("COPY d/f /{long}"))?
            .refused(&["d/f"])?;
        expect_eq("what failed builds leave", yard.left()?, Vec::new())
    });
}

#[test]
fn bombs_are_refused() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        yard.file("small", "small")?;
        // Larger than any disk, and nothing on this one.
        let giant = File::create(yard.context.join("giant")).context("open")?;
        giant.set_len(8 << 40).context("ftruncate")?;
        for copy in ["COPY giant /y/", "ADD giant /y/", "COPY . /y/"] {
            yard.build(copy)?
                .refused(&["no space left on device"])
                .context(copy)?;
        }
        fs::remove_file(yard.context.join("giant")).context("unlink")?;
        let mut header = Header::new_gnu();
        header.set_path("big").context("a name")?;
        header.set_size(8 << 40);
        header.set_cksum();
        let bomb = [header.as_bytes(), &vec![0; 16 << 20][..]].concat();
        let bomb = packed(&["gzip", "-c"], &bomb)?;
        yard.file("bomb", &bomb)?;
        yard.build("ADD bomb /y/")?
            .refused(&["no space left on device"])?;
        yard.archive_as_context(&bomb, &[])?
            .refused(&["no space left on device"])?;
        fs::remove_file(yard.context.join("bomb")).context("unlink")?;
        // Deeper than a path may be long.
        let mut at = rustix::fs::open(
            &yard.context,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
            Mode::empty(),
        )
        .context("open")?;
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).context("mkdir")?;
            at = rustix::fs::openat(
                &at,
                "d",
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
                Mode::empty(),
            )
            .context("open")?;
        }
        drop(at);
        for copy in ["COPY . /y/", "COPY d /y/", "COPY --parents **/none /y/"] {
            yard.build(copy)?
                .refused(&["nested more than"])
                .context(copy)?;
        }
        yard.build("COPY small /y/")?.success()?;
        // What is left out is not looked into.
        yard.file(".dockerignore", "d\n")?;
        yard.build("COPY . /y/")?.success()?;
        // Neither rm of busybox nor the standard library gets that deep.
        let (top, inner) = (yard.context.join("d"), yard.context.join("inner"));
        while fs::rename(top.join("d"), &inner).is_ok() {
            fs::remove_dir(&top).context("rmdir")?;
            fs::rename(&inner, &top).context("rename")?;
        }
        fs::remove_dir(&top).context("rmdir")?;
        let path = "d/".repeat(300) + "f";
        let mut deep = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        deep.append_data(&mut header, &path, std::io::empty())
            .context("an archive")?;
        yard.file("deep", deep.into_inner().context("an archive")?)?;
        yard.build("ADD deep /y/")?.refused(&["nested more than"])?;
        fs::remove_file(yard.context.join("deep")).context("unlink")?;
        // Ever the same long name. A unit test counts entries: half a million take a minute
        // under emulation.
        let path = format!("{}f", format!("{}/", "n".repeat(255)).repeat(15));
        let mut long = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        long.append_data(&mut header, &path, std::io::empty())
            .context("an archive")?;
        let long = long.into_inner().context("an archive")?;
        let entry = long.get(..long.len() - 1024).unwrap_or_default();
        let names = packed(&["gzip", "-c"], entry)?.repeat(17_500);
        yard.archive_as_context(&names, &[])?
            .refused(&["names and attributes in the archive"])?;
        yard.file("names", &names)?;
        yard.build("ADD names /y/")?
            .refused(&["names and attributes in the archive"])?;
        expect_eq("what failed builds leave", yard.left()?, Vec::new())
    });
}

/// Answers each request with the next of these, then ends.
fn serve(answers: Vec<String>) -> Result<(String, std::thread::JoinHandle<Vec<String>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let address = listener.local_addr().context("getsockname")?.to_string();
    let own = address.clone();
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else {
                break;
            };
            let mut lines = BufReader::new(&stream).lines();
            asked.push(lines.next().and_then(|line| line.ok()).unwrap_or_default());
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let answer = answer.replace("{own}", &own);
            if stream.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        asked
    });
    Ok((address, thread))
}

fn answer(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

#[test]
fn an_address_is_downloaded_and_compared() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        let word = c.word("word");
        let dated = answer("Last-Modified: Sat, 03 Feb 2001 04:05:06 GMT\r\n", &word);
        let named = answer(
            "Content-Disposition: attachment; filename=\"../../n\"\r\n",
            &word,
        );
        let (host, server) = serve(vec![
            dated.clone(),
            dated.clone(),
            named,
            "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n\
             Location: http://{own}/there\r\n\r\n"
                .into(),
            answer("", &word),
            answer("", &word),
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
            answer("", &word),
        ])?;
        let look = "cd /y && stat -c '%A %u:%g %Y %n' *; cat *";
        let expected = |name: &str| format!("-rw------- 0:0 981173106 {name}\n{word}");
        yard.build(&format!("ADD http://{host}/a/b%20c?q=/z /y/"))?
            .success()?;
        expect_eq("the file", yard.inside(look)?, expected("b c"))?;
        yard.build(&format!("ADD http://{host}/ /y/name"))?
            .success()?;
        expect_eq("the file", yard.inside(look)?, expected("name"))?;
        yard.build(&format!("ADD --chmod=644 --chown=1:2 http://{host}/x /y/"))?
            .success()?;
        let found = yard.inside("cd /y && stat -c '%A %u:%g %n' *")?;
        expect_eq(
            "the file that the server names",
            &*found,
            "-rw-r--r-- 1:2 n",
        )?;
        yard.build(&format!("ADD http://{host}/here /y/"))?
            .success()?;
        expect_eq(
            "the file behind a redirect",
            &*yard.inside("ls /y")?,
            "here",
        )?;
        let wrong = format!("sha256:{}", "0".repeat(64));
        yard.build(&format!("ADD --checksum={wrong} http://{host}/x /y/"))?
            .refused(&["digest mismatch", &wrong])?;
        yard.build(&format!("ADD http://{host}/none /y/"))?
            .refused(&["404"])?;
        yard.build(&format!("ADD http://{host}/ /y/"))?
            .refused(&["cannot determine filename"])?;
        yard.build("ADD https://127.0.0.1/x.git /y/")?
            .refused(&["is a git repository"])?;
        let asked = server.join().map_err(|_| failed("a server", "a panic"))?;
        expect_eq("the number of requests", asked.len(), 8)?;
        expect_eq("what builds leave", yard.left()?, Vec::new())
    });
}

#[test]
fn the_cache_knows_what_a_copy_reads() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        yard.file("d/f", "one")?;
        yard.file("left", "one")?;
        yard.file(".dockerignore", "left\n")?;
        symlink("f", yard.context.join("d/l")).context("symlink")?;
        let at = |name: &str| yard.context.join(name);
        let built = || -> Result<String> {
            let ran = yard.build("COPY d /y/\nCOPY l* /z/")?.success()?;
            Ok(ran.stdout.trim().to_owned())
        };
        let first = built()?;
        let mut seen = vec![first.clone()];
        let touched = |path: PathBuf| -> Result<()> {
            let time = Timespec {
                tv_sec: 1_000_000_000,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::utimensat(CWD, path, &times, flags).context("utimensat")
        };
        // Neither times, nor owners, nor what is left out.
        yard.file("left", "two")?;
        std::os::unix::fs::chown(at("d/f"), Some(3), Some(3)).context("chown")?;
        fs::copy(at("d/f"), at("copy")).context("copy")?;
        fs::rename(at("copy"), at("d/f")).context("rename")?;
        touched(at("d/f"))?;
        touched(at("d"))?;
        expect_eq("the image of the same files", &built()?, &first)?;
        type Change<'a> = (&'a str, Box<dyn Fn() -> Result<()> + 'a>);
        let changes: [Change<'_>; 6] = [
            (
                "content of the same size",
                Box::new(|| yard.file("d/f", "two").map(drop)),
            ),
            (
                "a mode",
                Box::new(|| {
                    fs::set_permissions(at("d/f"), Permissions::from_mode(0o600)).context("chmod")
                }),
            ),
            (
                "the target of a link",
                Box::new(|| {
                    fs::remove_file(at("d/l")).context("unlink")?;
                    symlink("g", at("d/l")).context("symlink")
                }),
            ),
            (
                "a new empty directory",
                Box::new(|| fs::create_dir(at("d/new")).context("mkdir")),
            ),
            (
                "a name",
                Box::new(|| fs::rename(at("d/new"), at("d/old")).context("rename")),
            ),
            (
                "one that matches",
                Box::new(|| yard.file("lot", "x").map(drop)),
            ),
        ];
        for (what, change) in changes {
            change()?;
            let image = built()?;
            expect(
                !seen.contains(&image),
                format!("another image after a change of {what}"),
                "an image of earlier files",
            )?;
            expect_eq("the image of the same files", &built()?, &image)?;
            seen.push(image);
        }
        Ok(())
    });
}

fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Waits for a point in time, in seconds since 1970.
fn is_later(than: u64) -> bool {
    wait_for(|| (now() > Duration::from_secs(than)).then_some(())).is_some()
}

#[test]
fn what_a_file_was_is_remembered() {
    check(|c| {
        let yard = Shelf::new(c, nothing)?;
        let path = yard.file("one", "first")?;
        let stat = || rustix::fs::stat(&path).context("stat");
        let kept = || -> Result<Vec<PathBuf>> {
            let Ok(entries) = fs::read_dir(yard.root.join("build/digests")) else {
                return Ok(Vec::new());
            };
            entries
                .map(|entry| Ok(entry.context("readdir")?.path()))
                .collect()
        };
        // What is about to be read in the directory, as its own file says.
        let reads = || -> Result<bool> {
            use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
            let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
            let watch = watch.context("inotify_init1")?;
            inotify::add_watch(&watch, &path, WatchFlags::ACCESS).context("inotify_add_watch")?;
            yard.build("COPY one /y")?.success()?;
            let mut buffer = [0; 4096];
            Ok(rustix::io::read(&watch, &mut buffer).is_ok_and(|length| length > 0))
        };
        let content = || yard.inside("cat /y");
        // A file that has just been written may be written again within the grain
        // of the clock.
        let young = stat()?;
        expect(reads()?, "a new file to be read", "it is not")?;
        let grain = Duration::from_secs(young.st_ctime as u64 + 2);
        if now() < grain {
            expect_eq("digests of files that are too young", kept()?, Vec::new())?;
        }
        let later = young.st_ctime as u64 + 3;
        expect(is_later(later), "time to pass", "it does not")?;
        expect(
            reads()?,
            "a file to be read whose digest is not known",
            "it is not",
        )?;
        expect(
            !reads()?,
            "a file to be left alone whose digest is known",
            "it is read",
        )?;
        // Size and time of modification are as before. The time of the change is not.
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: young.st_atime,
                tv_nsec: young.st_atime_nsec as _,
            },
            last_modification: Timespec {
                tv_sec: young.st_mtime,
                tv_nsec: young.st_mtime_nsec as _,
            },
        };
        fs::write(&path, "other").context("write")?;
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty())
            .context("utimensat")?;
        yard.build("COPY one /y")?.success()?;
        expect_eq(
            "the file in the image, after another of the same size and time",
            content()?,
            "other".into(),
        )?;
        // A file that was cut, or that somebody has changed, is of no use.
        let changed = stat()?.st_ctime as u64;
        expect(is_later(changed + 3), "time to pass", "it does not")?;
        expect(reads()?, "a changed file to be read", "it is not")?;
        let image = || yard.build("COPY one /y")?.success().map(|ran| ran.stdout);
        let before = image()?;
        for damage in ["cut", "changed", "somebody's"] {
            let [file] = &kept()?[..] else {
                return Err(failed("one file of digests", format!("{:?}", kept()?)));
            };
            let mut bytes = fs::read(file).context("read")?;
            match damage {
                "cut" => bytes.truncate(bytes.len() - 40),
                "changed" => bytes[90] ^= 1,
                _ => fs::set_permissions(file, Permissions::from_mode(0o666)).context("chmod")?,
            }
            fs::write(file, bytes).context("write")?;
            expect(
                reads()?,
                format!("a file to be read again if the file of the digests is {damage}"),
                "it is not",
            )?;
            expect(
                !reads()?,
                format!("a file of the digests that was {damage} to be made again"),
                "it is not",
            )?;
            expect_eq(
                &format!("the image of the same file, after digests that were {damage}"),
                image()?,
                before.clone(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn an_ordinary_user_copies() {
    check(|c| {
        let home = c.dir().join("home");
        fs::create_dir(&home).context("mkdir")?;
        let image = c.rootfs()?;
        let context = home.join("context");
        fs::create_dir_all(context.join("d")).context("mkdir")?;
        fs::write(context.join("d/secret"), "mine").context("write")?;
        let tar = archive(&[("t", EntryType::Regular, "", b"t")])?;
        fs::write(context.join("t.tar"), tar).context("write")?;
        let text = "FROM box\nCOPY d /y/\nADD t.tar /y/\nCOPY --from=box /etc/passwd /y/\n";
        fs::write(context.join("Dockerfile"), text).context("write")?;
        let status = std::process::Command::new("chown")
            .args(["-R", "1000:1000"])
            .arg(&home)
            .arg(&image)
            .status()
            .context("chown")?;
        expect(status.success(), "chown", status)?;
        let mode = Permissions::from_mode(0o600);
        fs::set_permissions(context.join("d/secret"), mode).context("chmod")?;
        let state = home.join("state").display().to_string();
        let call = |words: &[&str]| {
            let step = c.step().user(1000).env("HOME", &home);
            step.args(["--root", &state]).args(words)
        };
        let (image, context) = (image.display().to_string(), context.display().to_string());
        call(&["import", &image, "box"]).run()?.success()?;
        call(&["build", "-q", "-t", "made", &context])
            .run()?
            .success()?;
        let script = "cd /y && stat -c '%A %u:%g %n' * && cat secret t";
        let ran = call(&[
            "run",
            "--rm",
            "--network",
            "none",
            "made",
            "sh",
            "-c",
            script,
        ]);
        let found = ran.run()?.success()?.stdout;
        let expected = "-rw-r--r-- 0:0 passwd\n-rw------- 0:0 secret\n-rw-r--r--";
        expect(found.starts_with(expected), expected, &found)?;
        expect(found.trim_end().ends_with("minet"), "their content", &found)?;
        // What the caller may not read is not read.
        let secret = home.join("context/d/secret");
        std::os::unix::fs::chown(&secret, Some(0), Some(0)).context("chown")?;
        call(&["build", "-q", &context])
            .run()?
            .refused(&["secret"])?;
        Ok(())
    });
}

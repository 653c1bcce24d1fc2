//! Files from and to containers.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use check::prelude::*;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{XattrFlags, setxattr};

use crate::{Life, Ordinary};

/// Directories and what is copied where, in the order in which it happens:
/// source, destination, and what the destination then has, or the words of the
/// error.
const INTO: &[(&str, &str, Result<&str, &str>)] = &[
    ("file", "box:/d", Ok("/d/file")),
    ("file", "box:/d/new", Ok("/d/new")),
    ("file", "box:/d/none/", Err("no such directory")),
    (
        "file",
        "box:/d/none/x",
        Err("Could not find the file /d/none in container box"),
    ),
    ("dir", "box:/d", Ok("/d/dir/x")),
    ("dir", "box:/d/other", Ok("/d/other/x")),
    ("dir/.", "box:/d/content", Ok("/d/content/x")),
    ("dir/.", "box:/d", Ok("/d/x")),
    ("dir", "box:/d/file", Err("cannot copy directory")),
    ("file/", "box:/d/y", Err("not a directory")),
    ("file", "box:/d/file/", Err("not a directory")),
    ("none", "box:/d", Err("no such file or directory")),
    ("link", "box:/d/link", Ok("/d/link")),
    ("file", "box:/d/dir/x/y", Err("Could not find the file")),
    ("file", "box:/over", Err("cannot overwrite directory")),
    ("file", "none:/d", Err("none")),
    (
        "box:/d",
        "box:/e",
        Err("copying between containers is not supported"),
    ),
    (
        "file",
        "other",
        Err("must specify at least one container source"),
    ),
];

const OUT: &[(&str, &str, Result<&str, &str>)] = &[
    ("box:/d/file", ".", Ok("file")),
    ("box:/d/file", "new", Ok("new")),
    ("box:/d/dir", "as", Ok("as/x")),
    ("box:/d/dir", "as", Ok("as/dir/x")),
    ("box:/d/dir/.", "content", Ok("content/x")),
    ("box:/d/dir/.", "as", Ok("as/x")),
    ("box:d/file", "relative", Ok("relative")),
    ("box:/d/file", "none/", Err("no such directory")),
    (
        "box:/d/file",
        "none/x",
        Err("invalid output path: directory"),
    ),
    ("box:/d/dir", "new", Err("cannot copy directory")),
    ("box:/d/file", "new/", Err("not a directory")),
    (
        "box:/d/none",
        ".",
        Err("Could not find the file /d/none in container box"),
    ),
    ("box:/d/file/", ".", Err("not a directory")),
];

/// A command of the engine in a directory.
fn there(life: &Life<'_>, directory: &Path, words: &[&str], input: &[u8]) -> Result<Ran> {
    let call = life.call(words).stdin(input).command();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "cd \"$0\" && exec \"$@\""])
        .arg(directory)
        .arg(call.get_program())
        .args(call.get_args());
    for (name, value) in call.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let file = directory.with_extension("input");
    fs::write(&file, input).context("write the input")?;
    let input = fs::File::open(&file).context("open the input")?;
    let output = command.stdin(input).output().context("run")?;
    Ok(Ran {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

struct Ran {
    status: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn success(self, what: &str) -> Result<Vec<u8>> {
        match self.status {
            Some(0) => Ok(self.stdout),
            status => Err(failed(
                format!("{what} to succeed"),
                format!("status {status:?}: {}", self.stderr),
            )),
        }
    }
}

/// Docker's rules about what exists and what ends with a slash, once for a
/// container that runs and once for one that does not.
fn rules(life: &Life<'_>, host: &Path) -> Result<()> {
    fs::create_dir_all(host.join("dir")).context("mkdir")?;
    fs::write(host.join("file"), "the file").context("write")?;
    chown(host.join("file"), Some(33), Some(44)).context("chown")?;
    fs::write(host.join("dir/x"), "x").context("write")?;
    symlink("file", host.join("link")).context("symlink")?;
    // The files of a container, seen without the engine's help in between.
    let has = |path: &str| -> Result<bool> {
        let archive = there(life, host, &["cp", &format!("box:{path}"), "-"], b"")?;
        Ok(archive.status == Some(0))
    };
    for (source, to, expected) in INTO {
        let ran = there(life, host, &["cp", source, to], b"")?;
        judge(source, to, expected, &ran)?;
        if let Ok(path) = expected {
            expect(
                has(path)?,
                format!("cp {source} {to} to make {path}"),
                "it is not there",
            )?;
        }
    }
    let out = host.join("out");
    fs::create_dir(&out).context("mkdir")?;
    for (source, to, expected) in OUT {
        let ran = there(life, &out, &["cp", source, to], b"")?;
        judge(source, to, expected, &ran)?;
        if let Ok(path) = expected {
            let made = out.join(path).symlink_metadata().is_ok();
            expect(
                made,
                format!("cp {source} {to} to make {path}"),
                "it is not there",
            )?;
        }
    }
    let content = fs::read_to_string(out.join("new")).context("read")?;
    expect_eq("the copy of a copy", &*content, "the file")?;
    let owner = fs::metadata(out.join("new")).context("stat")?;
    expect_eq("its owner", (owner.uid(), owner.gid()), (0, 0))?;
    there(life, &out, &["cp", "-a", "box:/d/file", "owned"], b"")?.success("cp -a")?;
    let owner = fs::metadata(out.join("owned")).context("stat")?;
    expect_eq("its owner with -a", (owner.uid(), owner.gid()), (33, 44))?;
    // A link is a link, unless -L follows it.
    there(life, &out, &["cp", "box:/d/link", "link"], b"")?.success("cp of a link")?;
    there(life, &out, &["cp", "-L", "box:/d/link", "followed"], b"")?.success("cp -L")?;
    let is_link = |name: &str| fs::symlink_metadata(out.join(name)).is_ok_and(|s| s.is_symlink());
    expect(
        is_link("link") && !is_link("followed"),
        "a link, and a file",
        "not so",
    )?;
    // Archives.
    let archive = there(life, &out, &["cp", "box:/d/dir", "-"], b"")?.success("cp to -")?;
    for (to, words) in [
        ("box:/d/file", "must be a directory"),
        ("box:/none", "must be a directory"),
    ] {
        let ran = there(life, &out, &["cp", "-", to], &archive)?;
        judge("-", to, &Err(words), &ran)?;
    }
    there(life, &out, &["cp", "-", "box:/d/content"], &archive)?.success("cp from -")?;
    expect(
        has("/d/content/dir/x")?,
        "the archive's file in the directory",
        "none",
    )
}

fn judge(source: &str, to: &str, expected: &Result<&str, &str>, ran: &Ran) -> Result<()> {
    let what = format!("cp {source} {to}");
    match expected {
        Ok(_) => expect(
            ran.status == Some(0),
            format!("{what} to succeed"),
            &ran.stderr,
        ),
        Err(words) => {
            expect_eq(&format!("the status of {what}"), ran.status, Some(1))?;
            expect(
                ran.stderr.contains(words),
                format!("{what} to say {words:?}"),
                &ran.stderr,
            )
        }
    }
}

#[test]
fn files_are_copied_by_dockers_rules() {
    check(|c| {
        let life = Life::new(c)?;
        let host = |name: &str| c.dir().join(name);
        let image = PathBuf::from(&life.image);
        fs::create_dir_all(image.join("d")).context("mkdir")?;
        fs::create_dir_all(image.join("over/file")).context("mkdir")?;
        life.detached(
            "box",
            &["--tmpfs", "/t", "-v", "data:/data"],
            "exec sleep 1000",
        )?;
        rules(&life, &host("running"))?;
        // What only the container's processes see: a tmpfs, a volume.
        let file = host("running").join("file").display().to_string();
        life.said(&["cp", &file, "box:/t"])?;
        life.said(&["cp", &file, "box:/data"])?;
        life.said(&["exec", "box", "cat", "/t/file", "/data/file"])?;
        // The name of an attribute may be any bytes, but an archive holds it
        // as text (UTF-8).
        let nameless = host("running").join("nameless");
        fs::write(&nameless, "x").context("write")?;
        let set = setxattr(&nameless, &b"trusted.\xff"[..], b"x", XattrFlags::empty());
        // Not every file system has attributes.
        if set.is_ok() {
            let copy = ["cp", &nameless.display().to_string(), "box:/data"];
            let ran = life.call(&copy).run()?.success()?;
            expect(
                ran.stderr.contains("without its attribute"),
                "a word about an attribute that is lost",
                format!("{:?}", ran.stderr),
            )?;
        }
        // Directories in directories, until something gives way: not the copy.
        let deep = format!("mkdir -p /deep{}", "/d".repeat(600));
        life.said(&["exec", "box", "sh", "-c", &deep])?;
        life.call(&["cp", "box:/deep", "-"])
            .run()?
            .expect_error(1, &["nested"])?;
        life.said(&["rm", "-f", "box"])?;

        let create = [
            "create",
            "--network",
            "none",
            "--name",
            "box",
            "-v",
            "data:/data",
        ];
        life.said(&[&create[..], &[&life.image, "cat", "/d/file", "/data/two"]].concat())?;
        rules(&life, &host("stopped"))?;
        life.said(&["cp", &file, "box:/data/two"])?;
        let all = life.said(&["start", "-a", "box"])?;
        expect_eq("what the container then finds", &*all, "the filethe file")?;
        life.said(&["rm", "box"])?;
        life.said(&["volume", "rm", "data"]).map(drop)
    });
}

#[test]
fn no_link_leads_a_copy_astray() {
    check(|c| {
        let life = Life::new(c)?;
        let host = c.dir().join("host");
        let secret = c.word("secret");
        fs::create_dir(&host).context("mkdir")?;
        fs::write(host.join("secret"), &secret).context("write")?;
        let shown = host.display().to_string();
        let up = format!("{}{shown}", "../".repeat(12));
        let script = format!(
            "mkdir /d; ln -s {shown} /d/out; ln -s {up} /d/up; ln -s {shown}/secret /d/file; \
             ln -s {shown}/made /d/new; ln -s /proc/self/root /d/magic; mkfifo /d/fifo; \
             mknod /d/null c 1 3; cp /bin/busybox /d/suid; chmod 6755 /d/suid; touch /ready; \
             while :; do mkdir /d/swap; echo x > /d/swap/secret; rm -r /d/swap; \
             ln -s {shown} /d/swap; rm /d/swap; done"
        );
        life.detached("box", &[], &script)?;
        let ready = wait_for(|| life.said(&["exec", "box", "cat", "/ready"]).ok());
        expect(
            ready.is_some(),
            "the container to have its links",
            "not yet",
        )?;
        let out = c.dir().join("copied");
        let to = out.display().to_string();
        let is_secret = |text: &[u8]| String::from_utf8_lossy(text).contains(&secret);
        for name in ["out/secret", "up/secret", "file", "magic/d/file", "out/."] {
            for options in [&["cp"][..], &["cp", "-L"]] {
                let from = format!("box:/d/{name}");
                let ran = life.call(&[options, &[&from, "-"]].concat()).run()?;
                expect(
                    !is_secret(ran.stdout.as_bytes()),
                    format!("cp {from} not to read the host's file"),
                    "its content",
                )?;
            }
        }
        let plain = c.dir().join("plain");
        fs::write(&plain, "from the host").context("write")?;
        let plain = plain.display().to_string();
        for name in ["out/made", "up/made", "new", "magic/made", "out"] {
            // Into the container, or not at all.
            life.call(&["cp", &plain, &format!("box:/d/{name}")])
                .run()?;
        }
        // While directories become links.
        for _ in 0..12 {
            life.call(&["cp", &plain, "box:/d/swap/secret"]).run()?;
            life.call(&["cp", &plain, "box:/d/swap"]).run()?;
            let ran = life.call(&["cp", "box:/d/swap/secret", "-"]).run()?;
            expect(
                !is_secret(ran.stdout.as_bytes()),
                "a directory that becomes a link to lead nowhere else",
                "the host's file",
            )?;
        }
        let left = fs::read_dir(&host).context("list")?.flatten();
        let names: Vec<_> = left.map(|entry| entry.file_name()).collect();
        expect_eq(
            "what is in the host's directory",
            names,
            vec!["secret".into()],
        )?;
        let now = fs::read_to_string(host.join("secret")).context("read")?;
        expect_eq("the host's file", &now, &secret)?;

        // The whole of it, onto the host: links stay links, nothing waits for
        // the other end of a FIFO, and nobody gets a device or root's rights.
        life.said(&["exec", "box", "sh", "-c", "rm -f /d/swap"])
            .ok();
        let ran = life.call(&["cp", "box:/d", &to]).run()?;
        expect(ran.status == 0, "the copy to succeed", &ran.stderr)?;
        let kind = |name: &str| fs::symlink_metadata(out.join(name)).context("stat");
        expect(kind("out")?.is_symlink(), "a link", "something else")?;
        expect(
            kind("fifo")?.file_type().is_fifo(),
            "a FIFO",
            "something else",
        )?;
        expect(
            !out.join("null").exists() && ran.stderr.contains("is a device"),
            "no device on the host, and a warning",
            &ran.stderr,
        )?;
        let mode = kind("suid")?.permissions().mode() & 0o7777;
        expect_eq("the mode of a copied set-user-ID program", mode, 0o755)?;
        // A directory on the host with such a link, and one that becomes it
        // while files are copied into it.
        let deep = "mkdir -p /e/d/sub/1 /e/d/sub/3; echo x > /e/d/sub/1/x; echo x > \
                    /e/d/sub/3/x; i=0; while [ $i -lt 200 ]; do i=$((i + 1)); mknod \
                    /e/d/sub/2-$i c 1 3; done";
        life.said(&["exec", "box", "sh", "-c", deep])?;
        let evil = c.dir().join("evil");
        fs::create_dir_all(evil.join("d")).context("mkdir")?;
        symlink(&host, evil.join("d/sub")).context("symlink")?;
        let copy = ["cp", "box:/e/d", &evil.display().to_string()];
        life.call(&copy).run()?.expect_status(1)?;
        fs::remove_file(evil.join("d/sub")).context("unlink")?;
        // It warns of each device, and nobody reads that until the link is there.
        let (mut warnings, theirs) = std::io::pipe().context("pipe")?;
        fcntl(&theirs, FcntlArg::F_SETPIPE_SZ(4096)).context("F_SETPIPE_SZ")?;
        let mut copying = life.call(&copy).command();
        copying.stderr(theirs);
        let mut running = copying.spawn().context("run cp")?;
        drop(copying);
        let begun = wait_for(|| evil.join("d/sub/1/x").exists().then_some(()));
        expect(begun.is_some(), "the copy to begin", "not yet")?;
        fs::rename(evil.join("d/sub"), evil.join("moved")).context("rename")?;
        symlink(&host, evil.join("d/sub")).context("symlink")?;
        let mut text = String::new();
        warnings.read_to_string(&mut text).context("read")?;
        check::check::wait_or_kill(&mut running)?;
        let left = fs::read_dir(&host).context("list")?.flatten();
        let mut names: Vec<_> = left.map(|entry| entry.file_name()).collect();
        names.sort();
        expect(
            names == ["secret"],
            "a copy not to follow a link on the host",
            format!("{names:?} in the link's directory"),
        )?;
        life.said(&["rm", "-f", "box"]).map(drop)
    });
}

#[test]
fn an_ordinary_user_copies_as_root_inside() {
    check(|c| {
        let life = Life::new(c)?;
        let user = Ordinary::new(&life)?;
        let (root, image) = (&user.root, &user.image);
        let file = std::path::Path::new(root).join("file");
        fs::write(&file, "the file").context("write")?;
        let call = |words: &[&str]| user.call(words);
        let run = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            "box",
            image,
            "sleep",
            "1000",
        ];
        call(&run).run()?.success()?;
        let copy = ["cp", &file.display().to_string(), "box:/file"];
        let copied = |call: &dyn Fn(&[&str]) -> Step| -> Result<()> {
            call(&copy).run()?.success()?;
            let out = format!("{root}/out");
            call(&["cp", "box:/file", &out]).run()?.success()?;
            let stat = fs::metadata(&out).context("stat")?;
            expect_eq("the owner of the copy", stat.uid(), 1000)?;
            fs::remove_file(&out).context("unlink")
        };
        // What is closed to everybody is open to root.
        call(&["exec", "box", "mkdir", "-m", "0", "/closed"])
            .run()?
            .success()?;
        let closed = ["cp", &file.display().to_string(), "box:/closed/file"];
        let ran = call(&closed).run()?;
        expect(
            ran.status == 0,
            "cp to have the rights of the container's root",
            &ran.stderr,
        )?;
        copied(&call)?;
        let cat = call(&["exec", "box", "stat", "-c", "%u", "/file"])
            .run()?
            .success()?;
        expect_eq("its owner inside", cat.stdout.trim(), "0")?;
        call(&["stop", "-t", "0", "box"]).run()?.success()?;
        copied(&call)?;
        call(&["rm", "box"]).run()?.success()?;
        crate::wait_for_monitors();
        Ok(())
    });
}

//! The documents' experiments with AUFS, as commands to be typed and what must
//! be seen. The commands are the documents' own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use check::prelude::*;
use check::workspace;

/// A command, as typed, and what it prints; a line `…` stands for any others.
pub(crate) type Line = (&'static str, &'static str);

/// Five directories as one tree.
pub(crate) const FIVE_DIRECTORIES: [Line; 14] = [
    (
        "mount -t aufs -o dirs=./container-layer/:./image-layer1/:image-layer2/:image-layer3/:image-layer4/ none ./mnt",
        "",
    ),
    (
        "ls mnt",
        "container-layer.txt\nimage-layer1.txt\nimage-layer2.txt\nimage-layer3.txt\nimage-layer4.txt\n",
    ),
    (
        "cat /sys/fs/aufs/si_*/*",
        "$PWD/container-layer=rw\n$PWD/image-layer1=ro\n$PWD/image-layer2=ro\n\
         $PWD/image-layer3=ro\n$PWD/image-layer4=ro\n",
    ),
    (
        r#"echo -e "\nwrite to mnt's image-layer1.txt" >> ./mnt/image-layer4.txt"#,
        "",
    ),
    (
        "cat mnt/image-layer4.txt",
        "I am image layer-4\n\nwrite to mnt's image-layer1.txt\n",
    ),
    ("cat image-layer4/image-layer4.txt", "I am image layer-4\n"),
    (
        "cat container-layer/image-layer4.txt",
        "I am image layer-4\n\nwrite to mnt's image-layer1.txt\n",
    ),
    (
        "ls -A container-layer",
        "container-layer.txt\nimage-layer4.txt\n",
    ),
    ("rm -rf mnt/image-layer3.txt", ""),
    (
        "ls -A container-layer",
        ".wh.image-layer3.txt\ncontainer-layer.txt\nimage-layer4.txt\n",
    ),
    (
        "ls -A mnt",
        "container-layer.txt\nimage-layer1.txt\nimage-layer2.txt\nimage-layer4.txt\n",
    ),
    ("rm container-layer/.wh.image-layer3.txt", ""),
    ("cat mnt/image-layer3.txt", "I am image layer-3\n"),
    ("umount ./mnt", ""),
];

/// What each branch's right says, and which of several writable branches gets a
/// new file.
pub(crate) const RIGHTS_AND_POLICIES: [Line; 19] = [
    ("touch image-layer1/.wh.image-layer2.txt", ""),
    // A whiteout in a branch that is ro does nothing.
    (
        "mount -t aufs -o dirs=container-layer=rw:image-layer1=ro:image-layer2=rr none ./mnt",
        "",
    ),
    (
        "ls mnt",
        "container-layer.txt\nimage-layer1.txt\nimage-layer2.txt\n",
    ),
    (
        "cat /sys/fs/aufs/si_*/*",
        "$PWD/container-layer=rw\n$PWD/image-layer1=ro\n$PWD/image-layer2=rr\n",
    ),
    // What others do to it is seen.
    (
        "echo more >> image-layer1/image-layer1.txt; cat mnt/image-layer1.txt",
        "I am image layer-1\nmore\n",
    ),
    ("umount ./mnt", ""),
    (
        "mount -t aufs -o dirs=container-layer=rw:image-layer1=ro+wh:image-layer2=rr none ./mnt",
        "",
    ),
    ("ls mnt", "container-layer.txt\nimage-layer1.txt\n"),
    ("umount ./mnt", ""),
    // No branch may be written.
    (
        "mount -t aufs -o dirs=image-layer3=ro:image-layer4=ro none ./mnt",
        "",
    ),
    ("echo x 2>/dev/null > mnt/new || echo refused", "refused\n"),
    ("umount ./mnt", ""),
    // Round robin: one writable branch after the other.
    (
        "mount -t aufs -o dirs=image-layer3=rw:image-layer4=rw,create=rr none ./mnt",
        "",
    ),
    (
        "for n in 1 2 3 4; do echo > mnt/$n; done; ls image-layer3 image-layer4 | grep -c '^[1-4]'",
        "4\n",
    ),
    ("ls image-layer3 | grep -c '^[1-4]'", "2\n"),
    ("umount ./mnt", ""),
    // The highest writable one that has the parent directory.
    (
        "mkdir image-layer4/d; mount -t aufs -o dirs=image-layer3=rw:image-layer4=rw none ./mnt",
        "",
    ),
    (
        "echo > mnt/d/new; ls image-layer3/d image-layer4/d 2>/dev/null",
        "image-layer4/d:\nnew\n",
    ),
    ("umount ./mnt", ""),
];

/// What stands for mount(8) and sysfs(5) where the kernel has no AUFS.
const INSTEAD: &str = r#"
mount() { "$STEP" mount "$@"; }
umount() { "$STEP" umount "$@"; }
cat() { case $1 in /sys/fs/aufs/*) "$STEP" branches ./mnt ;; *) busybox cat "$@" ;; esac; }
"#;

/// The directories of the experiment, with a file in each.
pub(crate) fn directories(c: &Check) -> Result<PathBuf> {
    let work = c.dir().join("aufs");
    for (name, text) in [
        ("container-layer", "I am container layer\n"),
        ("image-layer1", "I am image layer-1\n"),
        ("image-layer2", "I am image layer-2\n"),
        ("image-layer3", "I am image layer-3\n"),
        ("image-layer4", "I am image layer-4\n"),
    ] {
        let layer = work.join(name);
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("{name}.txt")), text)?;
    }
    fs::create_dir(work.join("mnt"))?;
    Ok(work.canonicalize()?)
}

/// Types each command in `work`, in a shell of its own, and compares.
pub(crate) fn type_in(c: &Check, work: &Path, lines: &[Line]) -> Result<()> {
    let busybox = workspace::rootfs("busybox").join("bin/busybox");
    let step = c.step().command();
    let links = c.dir().join("busybox");
    if !links.exists() {
        fs::create_dir(&links)?;
        for name in ["busybox", "grep", "ls", "mkdir", "rm", "touch"] {
            std::os::unix::fs::symlink(&busybox, links.join(name))?;
        }
    }
    for (typed, printed) in lines {
        let done = Command::new(&busybox)
            .args(["sh", "-c", &format!("{INSTEAD}{typed}")])
            .env("STEP", step.get_program())
            .env("PATH", &links)
            .current_dir(work)
            .output()
            .context("run the shell of busybox")?;
        let found = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        let wanted = printed.replace("$PWD", &work.to_string_lossy());
        expect_eq(&format!("what `{typed}` prints"), found, wanted)?;
    }
    Ok(())
}

//! What the documents of overlayfs and AUFS say: layouts, marks, branches.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use check::prelude::*;

use crate::layers;
use crate::layers::{Store, experiment};

#[test]
fn the_layout_is_that_of_the_documents() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        let overlay = Store::new(c, "overlay2")?;
        overlay.image("base", &rootfs)?;
        let held = overlay
            .container(&["--layer", "base", "--name", "one"])
            .hold()?;
        let at = overlay.root.join("overlay2");
        for path in [
            "one/diff",
            "one/work",
            "one/merged",
            "one-init/diff",
            "base/diff",
        ] {
            expect(
                at.join(path).is_dir(),
                format!("the directory {path}"),
                "none",
            )?;
        }
        let read = |path: &str| fs::read_to_string(at.join(path)).context(path.to_owned());
        let base = read("base/link")?;
        let init = read("one-init/link")?;
        expect_eq(
            "one/lower",
            read("one/lower")?,
            format!("l/{init}:l/{base}"),
        )?;
        expect_eq(
            "the short name of base",
            fs::read_link(at.join("l").join(&base))?,
            "../base/diff".into(),
        )?;
        expect(
            base.len() <= 26,
            "a short name of at most 26 letters",
            &base,
        )?;
        held.end()?.success()?;

        let aufs = match Store::new(c, "aufs") {
            Err(error) if error.is::<check::outcome::Unsupported>() => return Ok(()),
            store => store?,
        };
        aufs.image("base", &rootfs)?;
        let held = aufs
            .container(&["--layer", "base", "--name", "one"])
            .hold()?;
        let at = aufs.root.join("aufs");
        for path in ["diff/one", "diff/one-init", "diff/base", "mnt/one"] {
            expect(
                at.join(path).is_dir(),
                format!("the directory {path}"),
                "none",
            )?;
        }
        expect_eq(
            "layers/one",
            fs::read_to_string(at.join("layers/one"))?,
            "one-init\nbase\n".into(),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn overlay_marks_are_the_kernels() {
    check(|c| {
        let store = Store::new(c, "overlay2")?;
        store.image("base", &layers::rootfs(c)?)?;
        let script = "rm /data/gone; rm -r /data/open; mkdir /data/open";
        store
            .container(&["--layer", "base", "--name", "one", "--keep"])
            .args(["sh", "-c", script])
            .run()?
            .success()?;
        // The same marks must come of an archive.
        let tar = store.tar("one")?;
        store
            .tool(["layer", "create", "two", "--parent", "base"])
            .args([OsStr::new("--tar"), tar.as_ref()])
            .run()?
            .success()?;
        for id in ["one", "two"] {
            let diff = store.root.join("overlay2").join(id).join("diff/data");
            let gone = fs::symlink_metadata(diff.join("gone")).context("the whiteout")?;
            let kind = std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type());
            expect(
                kind && gone.rdev() == 0,
                format!("the whiteout in {id} to be the device 0:0"),
                format!("mode {:o}, device {}", gone.mode(), gone.rdev()),
            )?;
            let mut value = [0; 8];
            let name = "trusted.overlay.opaque";
            let length = rustix::fs::lgetxattr(diff.join("open"), name, &mut value[..]).ok();
            expect(
                length == Some(1) && value[0] == b'y',
                format!("{name} to be y in {id}"),
                format!("{length:?}"),
            )?;
        }
        Ok(())
    });
}

#[test]
fn the_documents_aufs_experiment_holds() {
    check(|c| {
        Store::new(c, "aufs")?;
        let work = experiment::directories(c)?;
        experiment::type_in(c, &work, &experiment::FIVE_DIRECTORIES)
    });
}

#[test]
fn the_rights_of_aufs_branches_are_kept() {
    check(|c| {
        Store::new(c, "aufs")?;
        let work = experiment::directories(c)?;
        experiment::type_in(c, &work, &experiment::RIGHTS_AND_POLICIES)
    });
}

#[test]
fn a_name_too_long_for_aufs_is_called_so() {
    check(|c| {
        Store::new(c, "aufs")?;
        let at = |name: &str| c.dir().join(name);
        for directory in ["top", "low", "mnt"] {
            fs::create_dir(at(directory)).context("mkdir")?;
        }
        for name in ["plain", "other"] {
            fs::write(at("low").join(name), "").context("write")?;
        }
        // Longer than the union lets anybody make, and there all the same.
        let below = "b".repeat(253);
        fs::write(at("low").join(&below), "below").context("write")?;
        let branches = format!("br={}=rw:{}=ro", at("top").display(), at("low").display());
        c.step()
            .args(["mount", "-t", "aufs", "-o", &branches, "none"])
            .args([at("mnt")])
            .run()?
            .success()?;
        let looked = every_call(&at("mnt")).and_then(|()| {
            let read = fs::read_to_string(at("mnt").join(&below)).context("read a long name")?;
            expect_eq("a long name of a branch below", &*read, "below")
        });
        c.step()
            .args(["umount"])
            .args([at("mnt")])
            .run()?
            .success()?;
        looked
    });
}

/// Every call that takes a name, with names of all lengths around the limit.
fn every_call(mnt: &Path) -> Result<()> {
    use std::io::Error;
    use std::os::unix::fs::symlink;
    type Call = fn(&Path, &Path) -> std::io::Result<()>;
    let plain: [(&str, Call); 10] = [
        ("stat", |name, _| fs::symlink_metadata(name).map(drop)),
        ("open", |name, _| fs::File::open(name).map(drop)),
        ("chmod", |name, _| {
            fs::set_permissions(name, fs::Permissions::from_mode(0o600))
        }),
        ("chown", |name, _| chown(name, Some(0), None)),
        ("unlink", |name, _| fs::remove_file(name)),
        ("rmdir", |name, _| fs::remove_dir(name)),
        ("readlink", |name, _| fs::read_link(name).map(drop)),
        ("rename from", |name, other| fs::rename(name, other)),
        ("link from", |name, other| {
            fs::hard_link(name, other.with_file_name("new"))
        }),
        ("chdir", |name, _| fs::read_dir(name).map(drop)),
    ];
    let making: [(&str, Call); 6] = [
        ("creat", |name, _| fs::write(name, "")),
        ("mkdir", |name, _| fs::create_dir(name)),
        ("symlink", |name, _| symlink("x", name)),
        ("link", |name, other| fs::hard_link(other, name)),
        ("rename", |name, other| fs::rename(other, name)),
        ("mkfifo", |name, _| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, name, mode).map_err(Error::from)
        }),
    ];
    let whiteout = |length: usize| format!(".wh.{}", "w".repeat(length - 4));
    for (name, errno) in [
        ("x".repeat(251), nix::libc::ENOENT),
        ("x".repeat(252), nix::libc::ENAMETOOLONG),
        ("x".repeat(255), nix::libc::ENAMETOOLONG),
        ("x".repeat(256), nix::libc::ENAMETOOLONG),
        (whiteout(8), nix::libc::EPERM),
        (whiteout(251), nix::libc::EPERM),
        (whiteout(252), nix::libc::ENAMETOOLONG),
    ] {
        let is_missing = errno == nix::libc::ENOENT;
        let making = making.iter().filter(|_| !is_missing);
        for (call, act) in plain.iter().chain(making) {
            let said = act(&mnt.join(&name), &mnt.join("other"));
            expect(
                said.as_ref().err().and_then(Error::raw_os_error) == Some(errno),
                format!(
                    "{call} of a name of {} bytes, {:?}…, to be {}",
                    name.len(),
                    &name[..5],
                    Error::from_raw_os_error(errno)
                ),
                format!("{said:?}"),
            )?;
        }
    }
    let longest = mnt.join("x".repeat(251));
    fs::write(&longest, "").context("make the longest name")?;
    fs::remove_file(&longest).context("remove the longest name")
}

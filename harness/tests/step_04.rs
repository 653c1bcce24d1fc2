//! Checks of step 04: the mount namespace and a root of the container's own.

#[path = "step_04/common.rs"]
mod common;
#[path = "step_04/propagation.rs"]
mod propagation;
#[path = "step_04/system.rs"]
mod system;
#[path = "step_04/volumes.rs"]
mod volumes;

use std::fs;
use std::path::Path;

use check::prelude::*;
use common::{
    ask, expect_mount, expect_read_only, expect_writable, make_dir, marked, names, shared_host,
    volume, with_root, write,
};

#[test]
fn the_root_is_the_rootfs() {
    check(|c| {
        let _tree = shared_host(c)?;
        let (rootfs, mark) = marked(c)?;
        let before = names(&rootfs)?;
        let host = host::namespaces("thread-self")?;
        let seen = with_root(c, &rootfs).probe()?;
        expect(
            seen.namespaces.get("mnt") != host.get("mnt"),
            "a mount namespace of its own",
            "the host's: CLONE_NEWNS was not asked for",
        )?;
        expect(
            seen.root.contains(&mark),
            "the root inside to be the one of --rootfs",
            seen.root.join(" "),
        )?;
        expect_eq("the entries of the root", seen.root, before)?;
        expect_eq("the working directory", seen.cwd.as_str(), "/")
    });
}

#[test]
fn nothing_of_the_hosts_tree_is_left() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let held = with_root(c, &rootfs).hold()?;
        // As the host sees it: the probe could have been shown a false /proc.
        let mounts = host::mounts(&held.pid()?.to_string())?;
        let roots = mounts.iter().filter(|m| m.mount_point == "/").count();
        expect(
            roots == 1,
            "one mount on / inside",
            format!("{roots}: the old root still lies on top of the new one"),
        )?;
        let ours = ["/proc", "/sys", "/dev"];
        for mount in mounts.iter().filter(|m| m.mount_point != "/") {
            let known = ours.iter().any(|dir| {
                let rest = mount.mount_point.strip_prefix(dir);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            expect(
                known,
                "no mount of the host to be left inside",
                format!("{}: the old root was not detached", mount.describe()),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn an_escape_ends_in_the_containers_root() {
    check(|c| {
        let (rootfs, mark) = marked(c)?;
        let mut held = with_root(c, &rootfs).hold()?;
        let root = ask(&mut held, &["escape"])?;
        expect(
            root.allowed && root.text.contains(&mark),
            "the escape from a chroot to end in the container's own root",
            format!(
                "the host's: {} {}; the old root can still be reached from inside",
                root.text, root.errno
            ),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_chroot_can_be_left() {
    check(|c| {
        let (rootfs, mark) = marked(c)?;
        let tree = shared_host(c)?;
        let before = tree.mounts()?;
        let mut held = with_root(c, &rootfs).args(["--chroot"]).hold()?;
        expect(
            held.seen().root.contains(&mark),
            "the root inside to be the one of --rootfs",
            held.seen().root.join(" "),
        )?;
        let root = ask(&mut held, &["escape"])?;
        expect(
            root.allowed && !root.text.contains(&mark),
            "the escape from --chroot to reach the host's root",
            format!("it stopped: {} {}", root.text, root.errno),
        )?;
        expect_eq(
            "what the escaped process sees",
            root.text,
            names(Path::new("/"))?.join(" "),
        )?;
        tree.expect_unchanged(&before, "a container with --chroot")?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_read_only_root_refuses_writes() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        let dir = make_dir(c.dir().join("data"))?;
        let mut held = with_root(c, &rootfs)
            .args(["--read-only", "--tmpfs", "/run"])
            .args(["--bind", &volume(&dir, "/new/target")])
            .hold()?;
        for path in ["/new-file", "/etc/passwd", "/new/file"] {
            expect_read_only(&mut held, path)?;
        }
        let shm = format!("/dev/shm/{}", c.word("file"));
        for path in ["/run/file", "/new/target/file", &shm] {
            expect_writable(&mut held, path)?;
        }
        expect_mount(held.seen(), "/proc", "proc", &["rw"])?;
        held.end()?.success()?;
        // The mount inside was to be read-only, not the host's file system.
        write(&rootfs.join("on the host"), "")
    });
}

#[test]
fn a_bad_rootfs_is_refused() {
    check(|c| {
        let missing = c.dir().join(c.word("missing"));
        let file = c.dir().join(c.word("file"));
        write(&file, "")?;
        for rootfs in [&missing, &file] {
            let name = rootfs.display().to_string();
            with_root(c, rootfs)
                .args(["probe", "report"])
                .run()?
                .expect_error(125, &["--rootfs", &name])?;
        }
        for option in ["--chroot", "--read-only"] {
            let ran = c.step().args([option, "probe", "report"]).run()?;
            expect_eq(
                &format!("the status of {option} without --rootfs"),
                ran.status,
                125,
            )?;
            ran.expect_error(125, &[option, "--rootfs"])?;
        }
        expect(
            !missing.exists(),
            "a missing rootfs not to be made",
            "a directory",
        )
    });
}

#[test]
fn a_command_is_looked_for_inside() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        // It exists on the host, and not inside.
        let on_host = c.dir().join(c.word("command"));
        fs::copy("/proc/self/exe", &on_host).context("copy a program")?;
        with_root(c, &rootfs)
            .args([&on_host])
            .run()?
            .expect_error(127, &["ENOENT", "no such command"])?;
        with_root(c, &rootfs)
            .args(["/etc/passwd"])
            .run()?
            .expect_error(126, &["/etc/passwd", "EACCES"])?;
        // Its loader is missing inside, whatever the host has.
        let loader = format!("/lib/{}", c.word("ld.so"));
        let program = rootfs.join("bin/dynamic");
        write_dynamic(&program, &loader)?;
        with_root(c, &rootfs)
            .args(["dynamic"])
            .run()?
            .expect_error(127, &["interpreter", &loader])?;
        Ok(())
    });
}

/// Writes the smallest program that needs a dynamic loader: an ELF header and
/// one program header of type PT_INTERP (elf(5)).
fn write_dynamic(path: &Path, loader: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let own = fs::read("/proc/self/exe").context("read /proc/self/exe")?;
    let mut elf = own.get(..64).context("no ELF header")?.to_vec();
    elf[16..18].copy_from_slice(&2u16.to_ne_bytes()); // e_type: ET_EXEC
    elf[32..40].copy_from_slice(&64u64.to_ne_bytes()); // e_phoff
    elf[40..48].fill(0); // e_shoff
    elf[56..58].copy_from_slice(&1u16.to_ne_bytes()); // e_phnum
    elf[58..64].fill(0); // no section headers
    elf.extend(3u32.to_ne_bytes()); // p_type: PT_INTERP
    elf.extend(4u32.to_ne_bytes()); // p_flags: PF_R
    let size = loader.len() as u64 + 1;
    for field in [120, 120, 120, size, size, 1u64] {
        elf.extend(field.to_ne_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    elf.extend(loader.as_bytes());
    elf.push(0);
    fs::write(path, elf).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", path.display()))
}

#[test]
fn an_ordinary_user_is_told_what_to_do() {
    check(|c| {
        let (rootfs, _) = marked(c)?;
        with_root(c, &rootfs)
            .args(["probe", "report"])
            .user(1000)
            .run()?
            .expect_error(125, &["EPERM", "root"])?;
        Ok(())
    });
}

#[test]
fn debian_runs() {
    check(|c| {
        let debian = c.debian()?;
        let version = fs::read_to_string(debian.join("etc/debian_version"))
            .context("read etc/debian_version")?;
        // Read-only, because it is shared with other checks.
        let script = "cat /etc/debian_version && dpkg --print-architecture && ls -l /proc/self/exe \
                      && echo written > /tmp/file && cat /tmp/file";
        let ran = with_root(c, &debian)
            .args(["--read-only", "--tmpfs", "/tmp", "bash", "-euc", script])
            .run()?
            .success()?;
        expect(
            ran.stdout.starts_with(&version) && ran.stdout.ends_with("written\n"),
            "bash, dpkg and ls of Debian to run",
            format!("{:?}", ran.stdout),
        )
    });
}

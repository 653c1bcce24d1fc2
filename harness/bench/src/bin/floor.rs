//! `floor LOWERDIR COMMAND`: the lowest possible cost of starting a container.
//!
//! The benchmark measures `drydock run` against it. It only makes the requests
//! that the kernel requires: namespaces, an overlay, `/proc`, `/sys`, `/dev`,
//! three limits, a loopback device, capabilities; and it removes what it made.
//! It checks no input, explains no error, keeps no record and shares nothing,
//! so it is not a container engine.
#![allow(unsafe_code)] // libc's calls are the point: nothing stands between us and the kernel.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::{env, fs, process};

use libc::{c_int, c_ulong};

/// The limits on v1: controller, file, value.
const V1: [(&str, &str, &str); 3] = [
    ("memory", "memory.limit_in_bytes", "67108864"),
    ("cpu", "cpu.cfs_quota_us", "50000"),
    ("pids", "pids.max", "100"),
];

/// The limits on v2: file, value.
const V2: [(&str, &str); 3] = [
    ("memory.max", "67108864"),
    ("cpu.max", "50000 100000"),
    ("pids.max", "100"),
];

/// Docker's default capabilities.
const KEPT: u64 = 0xa804_25fb;

fn main() {
    let mut words = env::args_os().skip(1);
    let (Some(lower), Some(command)) = (words.next(), words.next()) else {
        eprintln!("usage: floor LOWERDIR COMMAND");
        process::exit(125);
    };
    let scratch = env::temp_dir().join(format!("floor-{}", process::id()));
    let groups = make_groups();
    for name in ["", "upper", "work", "merged"] {
        must(fs::create_dir(scratch.join(name)), "mkdir");
    }
    let command = c(&command);
    let namespaces = libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS;
    // SAFETY: `clone_args` is a plain C structure for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no memory is shared, and this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    if pid == 0 {
        child(&lower, &scratch, &groups, &command);
    }
    ok(pid as c_int, "clone3");
    let mut status = 0;
    // SAFETY: the kernel writes to `status`, which outlives the call.
    ok(
        unsafe { libc::waitpid(pid as i32, &mut status, 0) },
        "waitpid",
    );
    for group in &groups {
        must(fs::remove_dir(group), "rmdir");
    }
    must(fs::remove_dir_all(&scratch), "rm -r");
    process::exit(libc::WEXITSTATUS(status));
}

/// Makes a group in each hierarchy, with its limit.
fn make_groups() -> Vec<PathBuf> {
    let name = format!("floor-{}", process::id());
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        let group = root.join(&name);
        must(fs::create_dir(&group), "mkdir");
        for (file, value) in V2 {
            must(fs::write(group.join(file), value), file);
        }
        return vec![group];
    }
    V1.iter()
        .map(|(controller, file, value)| {
            let group = root.join(controller).join(&name);
            must(fs::create_dir(&group), "mkdir");
            must(fs::write(group.join(file), value), file);
            group
        })
        .collect()
}

fn child(lower: &OsStr, scratch: &Path, groups: &[PathBuf], command: &CStr) -> ! {
    for group in groups {
        // On v1, moving a single thread by `tasks` costs almost nothing.
        let tasks = ["tasks", "cgroup.procs"].map(|file| group.join(file));
        let file = tasks.iter().find(|file| file.exists());
        must(fs::write(file.unwrap_or(&tasks[1]), "0"), "tasks");
    }
    // SAFETY: calls with numbers and NUL-terminated strings.
    unsafe {
        ok(libc::unshare(libc::CLONE_NEWCGROUP), "unshare");
        ok(libc::sethostname(c"floor".as_ptr(), 5), "sethostname");
        loopback_up();
        mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"");
        let dir = |name| scratch.join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            dir("upper"),
            dir("work")
        );
        let merged = scratch.join("merged");
        let merged = c(merged.as_os_str());
        mount(c"overlay", &merged, c"overlay", 0, &c(OsStr::new(&options)));
        ok(libc::chdir(merged.as_ptr()), "chdir");
        let inert = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount(c"proc", c"proc", c"proc", inert, c"");
        mount(c"sysfs", c"sys", c"sysfs", inert | libc::MS_RDONLY, c"");
        dev();
        ok(
            libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as c_int,
            "pivot_root",
        );
        ok(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), "umount2");
        ok(libc::chdir(c"/".as_ptr()), "chdir");
        drop_capabilities();
        let argv = [command.as_ptr(), null()];
        let path = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = [path.as_ptr(), null()];
        ok(
            libc::execve(command.as_ptr(), argv.as_ptr(), environment.as_ptr()),
            "execve",
        );
    }
    process::exit(127)
}

/// Mounts `/dev` with six nodes, six links and four file systems.
unsafe fn dev() {
    // SAFETY: as in `child`.
    unsafe {
        mount(
            c"tmpfs",
            c"dev",
            c"tmpfs",
            libc::MS_NOSUID,
            c"mode=755,size=64k",
        );
        let before = libc::umask(0);
        for (name, major, minor) in [
            (c"dev/null", 1, 3),
            (c"dev/zero", 1, 5),
            (c"dev/full", 1, 7),
            (c"dev/random", 1, 8),
            (c"dev/urandom", 1, 9),
            (c"dev/tty", 5, 0),
        ] {
            let device = libc::makedev(major, minor);
            ok(
                libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, device),
                "mknod",
            );
        }
        libc::umask(before);
        for (target, name) in [
            (c"/proc/self/fd", c"dev/fd"),
            (c"/proc/self/fd/0", c"dev/stdin"),
            (c"/proc/self/fd/1", c"dev/stdout"),
            (c"/proc/self/fd/2", c"dev/stderr"),
            (c"/proc/kcore", c"dev/core"),
            (c"pts/ptmx", c"dev/ptmx"),
        ] {
            ok(libc::symlink(target.as_ptr(), name.as_ptr()), "symlink");
        }
        for (fs, place, options) in [
            (
                c"devpts",
                c"dev/pts",
                c"newinstance,ptmxmode=0666,mode=0620,gid=5",
            ),
            (c"tmpfs", c"dev/shm", c"mode=1777,size=64m"),
            (c"mqueue", c"dev/mqueue", c""),
        ] {
            ok(libc::mkdir(place.as_ptr(), 0o755), "mkdir");
            mount(fs, place, fs, libc::MS_NOSUID | libc::MS_NOEXEC, options);
        }
    }
}

unsafe fn loopback_up() {
    // SAFETY: `ifreq` is a plain C structure; the kernel reads name and flags.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        ok(socket, "socket");
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        ok(
            libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request),
            "ioctl(SIOCSIFFLAGS)",
        );
        libc::close(socket);
    }
}

unsafe fn drop_capabilities() {
    // SAFETY: prctl(2) with numbers; capset(2) reads the structures given.
    unsafe {
        for capability in 0..=40 {
            if KEPT & (1 << capability) == 0 {
                ok(
                    libc::prctl(libc::PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0),
                    "prctl",
                );
            }
        }
        let header = [0x2008_0522_u32, 0];
        let kept = KEPT as u32;
        let data = [kept, kept, 0, 0, 0, 0];
        ok(
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) as c_int,
            "capset",
        );
        ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
    }
}

unsafe fn mount(source: &CStr, target: &CStr, fs: &CStr, flags: c_ulong, options: &CStr) {
    // SAFETY: NUL-terminated strings.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    ok(done, "mount");
}

fn c(text: &OsStr) -> CString {
    must(CString::new(text.as_bytes()), "a string")
}

fn ok(result: c_int, call: &str) {
    if result < 0 {
        eprintln!("floor: {call}: {}", std::io::Error::last_os_error());
        process::exit(125);
    }
}

fn must<T, E: std::fmt::Display>(result: Result<T, E>, call: &str) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("floor: {call}: {error}");
        process::exit(125)
    })
}

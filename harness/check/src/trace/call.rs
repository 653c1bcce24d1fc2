//! Describes system calls: a call's name, and the files, strings and
//! descriptors among its arguments.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;
use syscalls::Sysno;

/// The name of a call by its number.
pub fn name(number: u64) -> &'static str {
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    known.map_or("unknown", |call| call.name())
}

/// The kinds of a call's arguments, one letter each: `d` the directory at which
/// the path in the next argument begins, `p` a path, `f` a descriptor, `s` a
/// string, `-` anything else.
const ARGUMENTS: [(&str, &str); 76] = [
    ("access", "p"),
    ("bind", "f"),
    ("chdir", "p"),
    ("chmod", "p"),
    ("chown", "p"),
    ("close", "f"),
    ("connect", "f"),
    ("dup", "f"),
    ("dup2", "f"),
    ("dup3", "f"),
    ("execve", "p"),
    ("execveat", "dp"),
    ("faccessat", "dp"),
    ("faccessat2", "dp"),
    ("fchdir", "f"),
    ("fchmod", "f"),
    ("fchmodat", "dp"),
    ("fchown", "f"),
    ("fchownat", "dp"),
    ("fcntl", "f"),
    ("fgetxattr", "fs"),
    ("flistxattr", "f"),
    ("flock", "f"),
    ("fsconfig", "f-ss"),
    ("fsetxattr", "fs"),
    ("fsmount", "f"),
    ("fsopen", "s"),
    ("fstat", "f"),
    ("fsync", "f"),
    ("ftruncate", "f"),
    ("getdents64", "f"),
    ("getsockname", "f"),
    ("getxattr", "ps"),
    ("ioctl", "f"),
    ("lgetxattr", "ps"),
    ("link", "pp"),
    ("linkat", "dpdp"),
    ("listxattr", "p"),
    ("llistxattr", "p"),
    ("lseek", "f"),
    ("lsetxattr", "ps"),
    ("mkdir", "p"),
    ("mkdirat", "dp"),
    ("mknodat", "dp"),
    ("mount", "ppss"),
    ("mount_setattr", "dp"),
    ("move_mount", "dpdp"),
    ("newfstatat", "dp"),
    ("open", "p"),
    ("open_tree", "dp"),
    ("openat", "dp"),
    ("openat2", "dp"),
    ("pivot_root", "pp"),
    ("read", "f"),
    ("readlink", "p"),
    ("readlinkat", "dp"),
    ("recvfrom", "f"),
    ("recvmsg", "f"),
    ("rename", "pp"),
    ("renameat", "dpdp"),
    ("renameat2", "dpdp"),
    ("rmdir", "p"),
    ("sendmsg", "f"),
    ("sendto", "f"),
    ("setns", "f"),
    ("setsockopt", "f"),
    ("setxattr", "ps"),
    ("statfs", "p"),
    ("statx", "dp"),
    ("symlink", "sp"),
    ("symlinkat", "sdp"),
    ("umount2", "p"),
    ("unlink", "p"),
    ("unlinkat", "dp"),
    ("utimensat", "dp"),
    ("write", "f"),
];

/// Longest path in the kernel, in bytes: `PATH_MAX`.
const PATH: usize = 4096;

/// The files, strings and descriptors among a call's arguments, separated by
/// spaces, read from the memory of a tracee that is stopped at its entry.
pub fn object(tracee: Pid, name: &str, arguments: &[u64; 6]) -> String {
    let known = ARGUMENTS.iter().find(|(call, _)| *call == name);
    let letters = known.map_or("", |(_, letters)| letters);
    let mut parts: Vec<String> = Vec::new();
    let mut directory: Option<u64> = None;
    for (letter, &value) in letters.chars().zip(arguments) {
        match letter {
            'd' => directory = Some(value),
            'p' => {
                let path = text(tracee, value).unwrap_or_default();
                let from = directory.take().filter(|_| !path.starts_with('/'));
                let from = from.and_then(|fd| descriptor(tracee, fd));
                parts.push(match (from, path.as_str()) {
                    (Some(from), "") => from,
                    (Some(from), path) => format!("{from}/{path}"),
                    (None, path) => path.to_owned(),
                });
            }
            's' => parts.push(text(tracee, value).unwrap_or_default()),
            'f' => parts.push(descriptor(tracee, value).unwrap_or_default()),
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// The target of a tracee's descriptor: a path, or `socket:[…]` and the like.
fn descriptor(tracee: Pid, fd: u64) -> Option<String> {
    let fd = fd as i32;
    if fd == libc::AT_FDCWD {
        return None;
    }
    let link = fs::read_link(format!("/proc/{tracee}/fd/{fd}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The string at an address of a tracee. It ends at a missing page.
fn text(tracee: Pid, address: u64) -> Option<String> {
    if address == 0 {
        return None;
    }
    let memory = File::open(format!("/proc/{tracee}/mem")).ok()?;
    let mut bytes = vec![0; PATH];
    // Up to the end of a page first: the next page may be missing.
    let page = PATH - (address as usize % PATH);
    let mut read = memory.read_at(&mut bytes[..page], address).ok()?;
    if !bytes[..read].contains(&0) && read == page {
        read += memory
            .read_at(&mut bytes[page..], address + page as u64)
            .unwrap_or(0);
    }
    let end = CStr::from_bytes_until_nul(&bytes[..read.min(PATH)]).ok()?;
    Some(end.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_with_arguments_is_one_of_the_kernels() {
        // Those that only some architectures have are known there.
        let old = [
            "access", "chmod", "chown", "dup2", "link", "mkdir", "open", "readlink",
        ];
        let old = [
            &old[..],
            &["rename", "rmdir", "symlink", "unlink", "renameat"],
        ]
        .concat();
        for (call, _) in ARGUMENTS {
            assert!(
                old.contains(&call) || call.parse::<Sysno>().is_ok(),
                "{call}"
            );
        }
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(name(Sysno::openat as u64), "openat");
        assert_eq!(name(u64::MAX), "unknown");
    }
}

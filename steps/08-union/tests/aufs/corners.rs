//! Corner cases of POSIX and of unions, a test a rule.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};

use rustix::fs::{
    CWD, FallocateFlags, Mode, RenameFlags, XattrFlags, fallocate, getxattr, listxattr,
    renameat_with, setxattr,
};
use rustix::io::Errno;

use crate::mounted::{Mounted, possible};

#[test]
fn a_copy_keeps_mode_owner_times_attributes_and_holes() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.sh("mkdir -p ro1/d/e; chmod 2750 ro1/d; chown 5:6 ro1/d; echo text > ro1/d/e/f; truncate -s 9M ro1/d/e/f; echo end >> ro1/d/e/f");
        u.sh("chown 12:34 ro1/d/e/f; chmod 4711 ro1/d/e/f");
        setxattr(u.path("ro1/d/e/f"), "user.a", b"value", XattrFlags::empty()).unwrap();
        setxattr(u.path("ro1/d"), "user.dir", b"kept", XattrFlags::empty()).unwrap();
        u.sh("touch -d 2001-02-03T04:05:06.123456789 ro1/d/e/f; touch -d 1999-01-01 ro1/d/e ro1/d");
    });
    let before = fs::metadata(union.path("ro1/d/e/f")).unwrap();
    let file = OpenOptions::new()
        .append(true)
        .open(union.mnt("d/e/f"))
        .unwrap();
    drop(file);
    let copy = fs::metadata(union.path("rw/d/e/f")).unwrap();
    let same = |m: &fs::Metadata| {
        (
            m.mode(),
            m.uid(),
            m.gid(),
            m.mtime(),
            m.mtime_nsec(),
            m.size(),
        )
    };
    assert_eq!(same(&copy), same(&before));
    assert!(copy.blocks() * 512 < 1 << 20, "the hole was filled");
    let mut value = [0; 16];
    let length = getxattr(union.path("rw/d/e/f"), "user.a", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"value");
    for dir in ["d", "d/e"] {
        let (copy, original) = (
            fs::metadata(union.path("rw").join(dir)).unwrap(),
            fs::metadata(union.path("ro1").join(dir)).unwrap(),
        );
        assert_eq!(same(&copy), same(&original), "{dir}");
    }
    let length = getxattr(union.path("rw/d"), "user.dir", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn the_inode_number_stays_when_a_file_is_copied_up() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/dir/file", "x"));
    let number = |path: &str| fs::metadata(union.mnt(path)).unwrap().ino();
    let (file, dir) = (number("dir/file"), number("dir"));
    union.sh("echo y >> mnt/dir/file");
    assert!(union.exists("rw/dir/file"));
    assert_eq!((number("dir/file"), number("dir")), (file, dir));
    // The kernel has forgotten everything, and still.
    union.sh("echo 2 > /proc/sys/vm/drop_caches");
    assert_eq!((number("dir/file"), number("dir")), (file, dir));
    let listed = union.sh("ls -i mnt/dir");
    assert!(listed.starts_with(&file.to_string()), "{listed}");
}

#[test]
fn names_of_whiteouts_are_refused_and_hidden() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/f", ""));
    let name = union.mnt(".wh.f");
    let kind = |e: std::io::Error| e.raw_os_error();
    assert_eq!(fs::write(&name, "").map_err(kind), Err(Some(libc::EPERM)));
    assert_eq!(fs::create_dir(&name).map_err(kind), Err(Some(libc::EPERM)));
    assert_eq!(symlink("x", &name).map_err(kind), Err(Some(libc::EPERM)));
    assert_eq!(
        fs::rename(union.mnt("f"), &name).map_err(kind),
        Err(Some(libc::EPERM))
    );
    assert_eq!(
        fs::hard_link(union.mnt("f"), &name).map_err(kind),
        Err(Some(libc::EPERM))
    );
    assert!(union.exists("mnt/f"));
    let long = union.mnt(&"x".repeat(252));
    assert_eq!(
        fs::write(long, "").map_err(kind),
        Err(Some(libc::ENAMETOOLONG))
    );
    let longest = union.mnt(&"x".repeat(251));
    fs::write(longest, "").unwrap();
}

#[test]
fn a_directory_made_over_a_deleted_one_is_empty() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/d/low", "1");
        u.write("ro2/d/mid", "2");
        u.write("rw/d/top", "3");
    });
    assert_eq!(union.names("mnt/d"), ["low", "mid", "top"]);
    union.sh("rm -r mnt/d");
    assert_eq!(union.names("rw"), [".wh.d"]);
    union.sh("mkdir mnt/d");
    assert!(union.names("mnt/d").is_empty());
    assert!(union.exists("rw/d/.wh..wh..opq") && !union.exists("rw/.wh.d"));
    union.sh("rmdir mnt/d; echo file > mnt/d; rm mnt/d");
    assert_eq!(union.names("rw"), [".wh.d"]);
}

#[test]
fn a_file_takes_the_place_of_a_lower_directory_and_back() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/d/f", "low"));
    union.sh("rm -r mnt/d; echo file > mnt/d");
    assert_eq!(union.read("mnt/d"), "file\n");
    union.sh("rm mnt/d; mkdir mnt/d; echo new > mnt/d/g");
    assert_eq!(union.names("mnt/d"), ["g"]);
}

#[test]
fn rmdir_refuses_what_is_full_and_removes_what_looks_empty() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/d/a", "");
        u.write("ro2/d/b", "");
    });
    let full = fs::remove_dir(union.mnt("d")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DirectoryNotEmpty);
    union.sh("rm mnt/d/a mnt/d/b; rmdir mnt/d");
    assert_eq!(union.names("rw"), [".wh.d"]);
    assert!(union.exists("ro1/d/a") && union.exists("ro2/d/b"));
}

#[test]
fn merged_directories_are_not_renamed_and_own_ones_are() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/low/f", "x");
        u.write("ro1/target/hidden", "x");
    });
    let error = fs::rename(union.mnt("low"), union.mnt("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
    union.sh("mv mnt/low mnt/other");
    assert_eq!(union.names("mnt/other"), ["f"]);
    assert!(!union.exists("mnt/low"));
    // Over a directory that looks empty: nothing of that comes to light.
    union.sh("rm mnt/target/hidden; mkdir mnt/own; echo o > mnt/own/o");
    fs::rename(union.mnt("own"), union.mnt("target")).unwrap();
    assert_eq!(union.names("mnt/target"), ["o"]);
    assert!(!union.exists("mnt/own"));
    let full = fs::rename(union.mnt("other"), union.mnt("target")).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOTEMPTY));
}

#[test]
fn a_lower_file_is_renamed_and_its_old_name_gone() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/a", "A");
        u.write("ro2/b", "B");
        u.write("ro1/dir/c", "C");
    });
    union.sh("mv mnt/a mnt/dir/a2; mv mnt/b mnt/dir/c");
    assert_eq!(union.names("mnt"), ["dir"]);
    assert_eq!(union.read("mnt/dir/a2"), "A");
    assert_eq!(union.read("mnt/dir/c"), "B");
    assert_eq!(union.read("ro1/dir/c"), "C");
}

#[test]
fn rename_flags_are_kept() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/a", "A");
        u.write("ro2/b", "B");
    });
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, union.mnt(from), CWD, union.mnt(to), flags)
    };
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(
        rename("a", "none", RenameFlags::EXCHANGE),
        Err(Errno::NOENT)
    );
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (union.read("mnt/a"), union.read("mnt/b")),
        ("B".into(), "A".into())
    );
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(union.names("mnt"), ["b", "c"]);
    union.sh("mkdir mnt/d; echo in > mnt/d/in");
    rename("d", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(union.names("mnt/b"), ["in"]);
    assert_eq!(union.read("mnt/d"), "A");
}

#[test]
fn open_files_outlive_their_names() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/low", "low");
        u.write("rw/own", "own");
    });
    for name in ["low", "own"] {
        let path = union.mnt(name);
        let mut file = File::open(&path).unwrap();
        let number = file.metadata().unwrap().ino();
        fs::remove_file(&path).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, name);
        assert_eq!(file.metadata().unwrap().ino(), number);
        fs::write(&path, "another").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        text.clear();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, name, "the new file must not show through");
    }
    let mut written = OpenOptions::new()
        .read(true)
        .write(true)
        .open(union.mnt("low"))
        .unwrap();
    fs::remove_file(union.mnt("low")).unwrap();
    written.write_all(b"still").unwrap();
    written.set_len(3).unwrap();
    written
        .set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(written.metadata().unwrap().len(), 3);
}

#[test]
fn one_reads_on_while_another_writes() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/log", "first\n"));
    let mut reader = File::open(union.mnt("log")).unwrap();
    let mut writer = OpenOptions::new()
        .append(true)
        .open(union.mnt("log"))
        .unwrap();
    writer.write_all(b"second\n").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    // Past the server the old reader keeps the original, as with overlayfs.
    assert!(text.starts_with("first\n"));
    assert_eq!(union.read("mnt/log"), "first\nsecond\n");
    drop((reader, writer));
    assert_eq!(union.read("mnt/log"), "first\nsecond\n");
    assert_eq!(union.read("ro1/log"), "first\n");
}

#[test]
fn without_passthrough_old_readers_see_the_copy() {
    if !possible() {
        return;
    }
    let mut union = Mounted::prepare(&["rw", "ro"]);
    union.write("ro/log", "first\n");
    union.mount("dirs=rw:ro,nopassthrough");
    let mut reader = File::open(union.mnt("log")).unwrap();
    union.sh("echo second >> mnt/log");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first\nsecond\n");
}

#[test]
fn o_trunc_copies_nothing_and_append_appends() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/f", "old text"));
    let mut file = File::create(union.mnt("f")).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(union.read("mnt/f"), "new");
    let mut one = OpenOptions::new()
        .append(true)
        .open(union.mnt("f"))
        .unwrap();
    let mut two = OpenOptions::new()
        .append(true)
        .open(union.mnt("f"))
        .unwrap();
    one.write_all(b"1").unwrap();
    two.write_all(b"2").unwrap();
    one.write_all(b"3").unwrap();
    assert_eq!(union.read("mnt/f"), "new123");
    let file = OpenOptions::new().write(true).open(union.mnt("f")).unwrap();
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(union.read("mnt/f"), "ne\0\0");
}

#[test]
fn sparse_files_can_be_made_and_searched() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    let file = File::create(union.mnt("f")).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.write_all_at(b"x", 4 << 20).unwrap();
    fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        1 << 20,
    )
    .unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert_eq!(data, 4 << 20);
}

#[test]
fn memory_maps_write_to_the_copy() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/f", "a".repeat(8192)));
    // Python is the one program at hand that maps files.
    let script = "import mmap; f = open('mnt/f', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[4096:4100] = b'MAPS'; m.flush()";
    if union.try_sh("command -v python3").status.success() {
        union.sh(&format!("python3 -c \"{script}\""));
        assert_eq!(&union.read("mnt/f")[4095..4101], "aMAPSa");
        assert!(!union.read("ro1/f").contains("MAPS"));
    }
}

#[test]
fn special_files_and_links_can_be_made_and_copied() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.sh("mkfifo ro1/fifo; ln -s target ro1/link; mknod ro1/null c 1 3");
    });
    union.sh("chown 7:8 mnt/fifo mnt/null; chown -h 7:8 mnt/link; touch -h -d 2001-01-01 mnt/link");
    for name in ["fifo", "null", "link"] {
        let meta = union.path("rw").join(name).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (7, 8), "{name}");
    }
    assert_eq!(
        fs::read_link(union.mnt("link")).unwrap().to_str(),
        Some("target")
    );
    union.sh("echo x > mnt/null; mknod mnt/zero c 1 5; mkfifo mnt/p; (echo through > mnt/p &) ; read line < mnt/p; test $line = through");
    let zero = fs::metadata(union.mnt("zero")).unwrap();
    assert_eq!(zero.rdev(), rustix::fs::makedev(1, 5));
}

#[test]
fn attributes_can_be_set_and_are_listed_by_right() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/f", ""));
    let path = union.mnt("f");
    setxattr(&path, "user.x", b"1", XattrFlags::empty()).unwrap();
    setxattr(&path, "trusted.y", b"2", XattrFlags::empty()).unwrap();
    assert_eq!(
        setxattr(&path, "user.x", b"3", XattrFlags::CREATE),
        Err(Errno::EXIST)
    );
    let mut list = [0; 256];
    let length = listxattr(&path, list.as_mut_slice()).unwrap();
    let list = String::from_utf8_lossy(&list[..length]).into_owned();
    assert!(
        list.contains("user.x") && list.contains("trusted.y"),
        "{list}"
    );
    let own = setxattr(
        union.path("mnt"),
        "user.aufs.branches",
        b"",
        XattrFlags::empty(),
    );
    assert_eq!(own, Err(Errno::PERM));
    assert!(listxattr(union.path("ro1/f"), [0; 64].as_mut_slice()).unwrap() == 0);
    rustix::fs::removexattr(&path, "user.x").unwrap();
}

#[test]
fn what_is_made_belongs_to_the_caller_and_permissions_are_checked() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.sh("chmod 777 rw; chmod 755 .; mkdir ro1/secret; echo s > ro1/secret/f; chmod 700 ro1/secret; mkdir ro1/group; chown 0:99 ro1/group; chmod 2777 ro1/group; echo r > ro1/readonly");
    });
    let user = |line: &str| {
        let line = format!("setpriv --reuid 1234 --regid 1234 --clear-groups sh -c '{line}'");
        union.try_sh(&line)
    };
    assert!(
        user("umask 027; echo x > mnt/mine; mkdir mnt/dir; ln -s x mnt/l; echo y > mnt/group/g")
            .status
            .success()
    );
    let meta = |path: &str| union.mnt(path).symlink_metadata().unwrap();
    assert_eq!(
        (
            meta("mine").uid(),
            meta("mine").gid(),
            meta("mine").mode() & 0o777
        ),
        (1234, 1234, 0o640)
    );
    assert_eq!(
        (meta("dir").uid(), meta("dir").mode() & 0o777),
        (1234, 0o750)
    );
    assert_eq!(meta("l").uid(), 1234);
    assert_eq!((meta("group/g").uid(), meta("group/g").gid()), (1234, 99));
    for refused in [
        "cat mnt/secret/f",
        "echo x >> mnt/readonly",
        "rm mnt/group/../readonly/x",
        "chmod 777 mnt/readonly",
    ] {
        assert!(!user(refused).status.success(), "{refused}");
    }
    assert!(
        !union.exists("rw/readonly"),
        "a refused write copied the file"
    );
}

#[test]
fn set_user_id_goes_when_another_writes() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.sh("chmod 777 rw; echo x > ro1/suid; chown 1234 ro1/suid; chmod 4766 ro1/suid");
    });
    union.sh("setpriv --reuid 4321 --regid 4321 --clear-groups sh -c 'echo y >> mnt/suid'");
    assert_eq!(
        fs::metadata(union.mnt("suid")).unwrap().mode() & 0o7777,
        0o766
    );
    assert_eq!(
        fs::metadata(union.path("ro1/suid")).unwrap().mode() & 0o7777,
        0o4766
    );
}

#[test]
fn a_listing_under_way_neither_repeats_nor_skips() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        for n in 0..3000 {
            u.write(&format!("ro1/f{n:04}"), "");
        }
    });
    let mut seen = std::collections::HashSet::new();
    for (count, entry) in fs::read_dir(union.path("mnt")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name.clone()), "{name} twice");
        if count % 10 == 0 {
            fs::remove_file(union.mnt(&name)).unwrap();
        }
    }
    assert_eq!(seen.len(), 3000);
    assert_eq!(union.names("mnt").len(), 2700);
}

#[test]
fn symbolic_links_in_a_branch_lead_nowhere_else() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/dir/file", "inside");
        u.write("outside/file", "outside");
    });
    assert_eq!(union.read("mnt/dir/file"), "inside");
    let dir = File::open(union.mnt("dir")).unwrap();
    // Somebody puts a link in the place of a directory that is in use.
    union.sh("mv ro1/dir ro1/moved; ln -s ../outside ro1/dir");
    let through = format!("/proc/self/fd/{}/file", dir.as_raw_fd());
    assert!(fs::read_to_string(through).is_err());
    assert_eq!(
        fs::read_link(union.mnt("dir")).unwrap().to_str(),
        Some("../outside")
    );
}

#[test]
fn odd_names_work() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        for name in [
            "new\nline",
            "back\\slash",
            "com,ma",
            "co:lon",
            "sp ace",
            "=rw",
            ".wh",
        ] {
            u.write(&format!("ro1/{name}"), name);
        }
    });
    for name in union.names("mnt") {
        fs::rename(union.mnt(&name), union.mnt(&format!("{name}2"))).unwrap();
        assert_eq!(union.read(&format!("mnt/{name}2")), name);
    }
    union.sh("rm -r mnt/* mnt/.wh2");
    assert!(union.names("mnt").is_empty());
}

#[test]
fn deep_paths_work() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    // Longer than PATH_MAX in all, so step by step.
    union.sh("cd mnt; for i in $(seq 30); do d=$(printf %0200d $i); mkdir $d && cd -P $d || exit 1; done; echo deep > f; cat f; rm f");
    union.sh("rm -r mnt/*");
}

#[test]
fn o_excl_and_o_direct_open_as_they_should() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/f", "x"));
    let error = File::create_new(union.mnt("f")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    fs::remove_file(union.mnt("f")).unwrap();
    File::create_new(union.mnt("f")).unwrap();
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(union.mnt("f"));
    assert!(direct.is_ok() || direct.unwrap_err().raw_os_error() == Some(libc::EINVAL));
}

#[test]
fn hard_links_share_their_file() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/a", "A"));
    fs::hard_link(union.mnt("a"), union.mnt("b")).unwrap();
    fs::write(union.mnt("b"), "changed").unwrap();
    assert_eq!(union.read("mnt/a"), "changed");
    let (a, b) = (
        fs::metadata(union.mnt("a")).unwrap(),
        fs::metadata(union.mnt("b")).unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    fs::remove_file(union.mnt("a")).unwrap();
    assert_eq!(fs::metadata(union.mnt("b")).unwrap().nlink(), 1);
    assert_eq!(union.names("mnt"), ["b"]);
}

#[test]
fn statfs_tells_of_the_writable_branch() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    let (a, b) = (
        rustix::fs::statvfs(union.path("mnt")).unwrap(),
        rustix::fs::statvfs(union.path("rw")).unwrap(),
    );
    assert_eq!(
        (a.f_blocks, a.f_frsize, a.f_namemax),
        (b.f_blocks, b.f_frsize, 251)
    );
}

#[test]
fn modes_are_as_asked() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    let before = rustix::process::umask(Mode::empty());
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o6755)
        .open(union.mnt("f"));
    rustix::process::umask(before);
    made.unwrap();
    assert_eq!(
        fs::metadata(union.mnt("f")).unwrap().mode() & 0o7777,
        0o6755
    );
}

#[test]
fn lower_hard_links_stay_links_of_one_another() {
    if !possible() {
        return;
    }
    let mut union = Mounted::three(|u| {
        u.write("ro1/a", "old");
        u.sh("mkdir ro1/d; ln ro1/a ro1/d/b; ln ro1/a ro1/c");
    });
    let meta = |u: &Mounted, path: &str| fs::metadata(u.mnt(path)).unwrap();
    let inode = meta(&union, "a").ino();
    fs::write(union.mnt("a"), "new").unwrap();
    for name in ["a", "d/b", "c"] {
        assert_eq!(union.read(&format!("mnt/{name}")), "new");
        assert_eq!(
            (meta(&union, name).ino(), meta(&union, name).nlink()),
            (inode, 3),
            "{name}"
        );
    }
    assert_eq!(union.read("ro1/a"), "old");
    fs::rename(union.mnt("d/b"), union.mnt("e")).unwrap();
    fs::remove_file(union.mnt("a")).unwrap();
    fs::write(union.mnt("c"), "newer").unwrap();
    union.umount();
    union.mount("dirs=./rw:./ro2=ro+wh:./ro1");
    assert_eq!(
        (union.read("mnt/e"), meta(&union, "e").nlink()),
        ("newer".into(), 2)
    );
    assert_eq!(meta(&union, "c").ino(), meta(&union, "e").ino());
    union.sh("rm mnt/e mnt/c");
    let left = union.sh("find rw -type f -size +0");
    assert_eq!(left, "", "the copy is gone with its last name");
}

#[test]
fn removing_one_lower_hard_link_is_counted() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        u.write("ro1/a", "x");
        u.sh("ln ro1/a ro1/b");
    });
    fs::remove_file(union.mnt("a")).unwrap();
    assert_eq!(fs::metadata(union.mnt("b")).unwrap().nlink(), 1);
}

/// Should the FUSE library learn it, this test says so.
#[test]
fn a_file_without_a_name_is_refused_as_not_supported() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|_| {});
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(union.mnt(""));
    let errno = opened.unwrap_err().raw_os_error();
    assert_eq!(errno, Some(libc::EOPNOTSUPP));
    assert!(union.names("rw").is_empty(), "{:?}", union.names("rw"));
}

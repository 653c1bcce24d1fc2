//! Entries of archives over few names, so that they meet, and the archives,
//! written without a library: also what none would write.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Entry {
    Directory(String, u32),
    File(String, u32, u8),
    Attribute(String, u8),
    Symlink(String, String),
    Link(String, String),
    Fifo(String),
    Device(String),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        3 => name().prop_map(str::to_owned),
        4 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        2 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => path(),
        2 => path().prop_map(|path| format!("/{path}")),
        2 => path().prop_map(|path| format!("../{path}")),
        1 => Just("..".to_owned()),
        1 => Just("/".to_owned()),
        1 => Just(".".to_owned()),
        1 => path().prop_map(|path| format!("{path}/../.wh.a")),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0o755, 0o700, 0o1777, 0o2755, 0o4711, 0o444, 0o000])
}

pub fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (path(), mode()).prop_map(|(path, mode)| Entry::Directory(path, mode)),
        6 => (path(), mode(), b'A'..b'F').prop_map(|(path, mode, byte)| Entry::File(path, mode, byte)),
        1 => (path(), b'A'..b'F').prop_map(|(path, byte)| Entry::Attribute(path, byte)),
        4 => (path(), target()).prop_map(|(path, target)| Entry::Symlink(path, target)),
        4 => (path(), path()).prop_map(|(path, target)| Entry::Link(path, target)),
        1 => path().prop_map(Entry::Fifo),
        1 => path().prop_map(Entry::Device),
        5 => path().prop_map(Entry::Whiteout),
        2 => prop_oneof![4 => path(), 1 => Just(String::new())].prop_map(Entry::Opaque),
    ]
}

pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        match entry {
            Entry::Directory(path, mode) => header(&mut tar, path, b'5', *mode, "", &[]),
            Entry::File(path, mode, byte) => header(&mut tar, path, b'0', *mode, "", &[*byte; 3]),
            Entry::Attribute(path, byte) => {
                let record = format!("34 SCHILY.xattr.trusted.drydock={}\n", char::from(*byte));
                header(&mut tar, "pax", b'x', 0, "", record.as_bytes());
                header(&mut tar, path, b'0', 0o644, "", b"with");
            }
            Entry::Symlink(path, target) => header(&mut tar, path, b'2', 0o777, target, &[]),
            Entry::Link(path, target) => header(&mut tar, path, b'1', 0, target, &[]),
            Entry::Fifo(path) => header(&mut tar, path, b'6', 0o600, "", &[]),
            Entry::Device(path) => header(&mut tar, path, b'3', 0o600, "", &[]),
            Entry::Whiteout(path) => {
                let path = match path.rsplit_once('/') {
                    Some((directory, name)) => format!("{directory}/.wh.{name}"),
                    None => format!(".wh.{path}"),
                };
                header(&mut tar, &path, b'0', 0, "", &[]);
            }
            Entry::Opaque(path) => {
                header(&mut tar, &format!("{path}/.wh..wh..opq"), b'0', 0, "", &[]);
            }
        }
    }
    tar.extend([0; 1024]);
    tar
}

fn header(tar: &mut Vec<u8>, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, &format!("{:07o}", mode % 7));
    put(116, &format!("{:07o}", mode % 5));
    put(124, &format!("{:011o}", content.len()));
    put(136, &format!("{:011o}", 1000 + mode));
    put(148, "        ");
    put(157, link);
    put(257, "ustar\0");
    put(263, "00");
    // The devices are all /dev/null.
    put(329, "0000001");
    put(337, "0000003");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

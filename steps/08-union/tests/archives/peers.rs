//! The others, and what trees look like.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::fs::FileType;
use union::tree::node::Metadata;
use union::tree::{Tree, file_type};

/// Reads archives called N.tar and makes N.py of each. A name that leads out of
/// the place is refused here: not every version of Python does.
const SCRIPT: &str = r"
import os, signal, sys, tarfile
def late(*_): raise Exception('late')
signal.signal(signal.SIGALRM, late)
def inside(tar):
    for member in tar:
        for name in (member.name, member.linkname if member.islnk() else ''):
            if name.startswith('/') or '..' in name.split('/'): raise Exception('outside')
        yield member
os.umask(0o022)
for n in sys.argv[2:]:
    path = os.path.join(sys.argv[1], n)
    os.mkdir(path + '.py')
    signal.alarm(10)
    try:
        with tarfile.open(path + '.tar', 'r:', errorlevel=2) as tar:
            tar.extraction_filter = staticmethod(lambda member, _: member)
            tar.extractall(path + '.py', members=inside(tar), numeric_owner=True)
        said = 'ok'
    except BaseException as error:
        said = repr(error)
    signal.alarm(0)
    print(ascii(said), flush=True)
";

/// What can be seen of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    metadata: Metadata,
    size: i64,
    content: u64,
    target: Vec<u8>,
    device: u64,
}

/// A tree by its paths, without its root.
pub(crate) type Looks = BTreeMap<PathBuf, Look>;

/// Whether the others are here.
pub(crate) fn have() -> bool {
    let says = |program: &str, word: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(word))
    };
    for (program, word) in [("tar", "GNU tar"), ("python3", "Python 3")] {
        if !says(program, word) {
            eprintln!("unsupported: {word} is not on this machine");
            return false;
        }
    }
    true
}

/// The tree that GNU tar makes, if it has nothing to complain of.
pub(crate) fn gnu(archive: &Path, to: &Path) -> Result<Looks, String> {
    fs::create_dir(to).unwrap();
    let output = Command::new("timeout")
        .args(["20", "tar", "--extract", "--numeric-owner"])
        .args(["--preserve-permissions", "--xattrs", "--xattrs-include=*"])
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(to)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(looks(to)),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The trees that Python makes of `place`/N.tar.
pub(crate) fn pythons(place: &Path, numbers: &[u64]) -> Vec<Result<Looks, String>> {
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", SCRIPT])
        .arg(place)
        .args(numbers.iter().map(u64::to_string))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said.lines().count(),
        numbers.len(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |(said, number): (&str, &u64)| match said {
        "'ok'" => Ok(looks(&place.join(format!("{number}.py")))),
        _ => Err(said.to_owned()),
    };
    said.lines().zip(numbers).map(read).collect()
}

/// What is in a directory.
pub(crate) fn looks(root: &Path) -> Looks {
    let tree = Tree::open(root).unwrap();
    let mut looks = Looks::new();
    tree.walk(Path::new(""), &mut |path, stat| {
        let is = file_type(stat);
        let mut hasher = DefaultHasher::new();
        // Longer ones have holes that claim anything.
        if is == FileType::RegularFile && stat.st_size < 16 << 20 {
            fs::read(root.join(path)).unwrap().hash(&mut hasher);
        }
        let look = Look {
            metadata: Metadata::read(&tree, path, stat)?,
            size: match is {
                FileType::RegularFile => stat.st_size,
                _ => 0,
            },
            content: hasher.finish(),
            target: match is {
                FileType::Symlink => tree.link(path)?.into_encoded_bytes(),
                _ => Vec::new(),
            },
            device: stat.st_rdev,
        };
        looks.insert(path.to_owned(), look);
        Ok(true)
    })
    .unwrap();
    looks
}

/// How two trees differ, if they do. Python knows neither attributes nor
/// nanoseconds, nor the times of links.
pub(crate) fn same(one: &Looks, other: &Looks, is_python: bool) -> Option<String> {
    for (path, look) in one {
        let Some(there) = other.get(path) else {
            return Some(format!("{path:?} is not there"));
        };
        let (mut look, mut there) = (look.clone(), there.clone());
        let type_of = FileType::from_raw_mode(look.metadata.mode);
        let apart = nanoseconds(&look).abs_diff(nanoseconds(&there));
        let is_link = is_python && type_of == FileType::Symlink;
        // Directories on the way have the time at which they were made.
        let both_new = is_new(&look) && is_new(&there);
        if is_link || both_new || is_python && apart < 2000 {
            look.metadata.mtime = there.metadata.mtime;
        }
        if is_python {
            look.metadata.xattrs.clear();
            there.metadata.xattrs.clear();
        }
        if look != there {
            return Some(format!("{path:?} is {look:?} and not {there:?}"));
        }
    }
    let more = other.keys().find(|path| !one.contains_key(*path));
    more.map(|path| format!("{path:?} is missing"))
}

fn nanoseconds(look: &Look) -> i128 {
    let (seconds, nanoseconds) = look.metadata.mtime;
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn is_new(look: &Look) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    (now.unwrap().as_secs() as i64 - look.metadata.mtime.0).abs() < 3600
}

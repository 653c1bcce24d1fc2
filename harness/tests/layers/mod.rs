//! What the checks of step 08 have in common: a store of layers of the check's
//! own, and random operations on files.

pub(crate) mod experiment;
pub(crate) mod stacks;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use check::check::{SEED, open_to_all};
use check::fsops::{self, Node, Op, Operated};
use check::prelude::*;
use check::runner::SEQUENCES;
use check::workspace;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// All drivers.
pub(crate) const DRIVERS: [&str; 5] = ["overlay2", "aufs", "btrfs", "devicemapper", "vfs"];

/// How many trees for random operations an image holds.
const TREES: usize = 60;

/// How many sequences are done at once.
const BATCH: usize = 20;

/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to look for a shorter sequence that fails.
const SHRINKING: Duration = Duration::from_secs(15);

/// How many are changed for a diff that is applied elsewhere.
const CHANGED: usize = 12;

/// A state directory and a driver in it.
pub(crate) struct Store<'a> {
    check: &'a Check,
    pub driver: &'static str,
    pub root: PathBuf,
}

impl<'a> Store<'a> {
    /// An empty store. `unsupported` where the driver says that it is.
    pub(crate) fn new(check: &'a Check, driver: &'static str) -> Result<Self> {
        Self::at(check, driver, check.dir().join(check.word("state")))
    }

    pub(crate) fn at(check: &'a Check, driver: &'static str, root: PathBuf) -> Result<Self> {
        let store = Store {
            check,
            driver,
            root,
        };
        let listed = store.tool(["drivers"]).run()?.success()?.stdout;
        match listed.split_once("unsupported: ") {
            Some((_, reason)) => Err(unsupported(format!("{driver}: {}", reason.trim()))),
            None => Ok(store),
        }
    }

    /// The stores of all drivers that work here.
    pub(crate) fn all(check: &'a Check) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for driver in DRIVERS {
            match Self::new(check, driver) {
                Ok(store) => all.push(store),
                Err(error) if error.is::<check::outcome::Unsupported>() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// A command of the step on this store.
    pub(crate) fn tool<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Step {
        self.check
            .step()
            .args(args)
            .args(["--driver", self.driver, "--root"])
            .args([&self.root])
    }

    /// `union run` on this store; the command follows.
    pub(crate) fn container(&self, args: &[&str]) -> Step {
        self.tool(["union", "run"]).args(args)
    }

    /// Makes the layer `id` of all that is in a directory.
    pub(crate) fn image(&self, id: &str, from: &Path) -> Result<()> {
        self.tool(["layer", "create", id])
            .args([OsStr::new("--from"), from.as_ref()])
            .run()?
            .success()?;
        Ok(())
    }

    /// The changes of a layer, as a tar in a file.
    pub(crate) fn tar(&self, id: &str) -> Result<PathBuf> {
        let path = self.check.dir().join(self.check.word("diff"));
        let file = fs::File::create(&path).context("make a file")?;
        let done = self
            .tool(["layer", "diff", id, "--tar"])
            .command()
            .stdout(file)
            .stderr(Stdio::inherit())
            .status()
            .context("run layer diff")?;
        expect(done.success(), "`layer diff --tar` to succeed", done)?;
        Ok(path)
    }

    /// The layers that there are.
    pub(crate) fn layers(&self) -> Result<Vec<String>> {
        let listed = self.tool(["layer", "ls"]).run()?.success()?.stdout;
        let names = listed.lines().skip(1);
        Ok(names
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect())
    }
}

/// The programs of busybox that the checks call.
const PROGRAMS: [&str; 14] = [
    "cat", "dd", "echo", "grep", "id", "ln", "ls", "mkdir", "mv", "rm", "sh", "sleep", "tr", "true",
];

/// A root file system of busybox and the probe, with few names: every file of
/// an image is copied again and again here.
fn small(check: &Check) -> Result<PathBuf> {
    let root = check.dir().join(check.word("rootfs"));
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).context("make an image")?;
    }
    let bin = root.join("bin");
    let copy = |from: PathBuf, name: &str| {
        fs::copy(&from, bin.join(name)).with_context(|| format!("copy {from:?}"))
    };
    copy(workspace::rootfs("busybox").join("bin/busybox"), "busybox")?;
    copy(workspace::bin().join("probe"), "probe")?;
    for program in PROGRAMS {
        symlink("busybox", bin.join(program)).context("make an image")?;
    }
    open_to_all(check.dir())?;
    Ok(root)
}

/// A root file system with some files in /data.
pub(crate) fn rootfs(check: &Check) -> Result<PathBuf> {
    let rootfs = small(check)?;
    let data = rootfs.join("data");
    for directory in ["dir/sub", "open"] {
        fs::create_dir_all(data.join(directory)).context("fill the image")?;
    }
    for (name, text) in [
        ("keep", "below\n"),
        ("gone", "below\n"),
        ("dir/x", "below\n"),
        ("dir/sub/y", "below\n"),
        ("open/old", "below\n"),
    ] {
        fs::write(data.join(name), text).context("fill the image")?;
    }
    Ok(rootfs)
}

/// A root file system with many equal trees, /0 /1 /2…
fn rootfs_of_trees(check: &Check, trees: usize) -> Result<PathBuf> {
    let rootfs = small(check)?;
    let made = check.dir().join(check.word("trees"));
    let (at, count) = (made.to_string_lossy().into_owned(), trees.to_string());
    let probe = check.other_program("probe");
    probe.args(["trees", &at, &count]).run()?.success()?;
    for n in 0..trees {
        let tree = n.to_string();
        fs::rename(made.join(&tree), rootfs.join(&tree)).context("fill the image")?;
    }
    Ok(rootfs)
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "f", "x", "new"]);
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,12}",
        (1_usize..600).prop_map(|n| "0123456789".repeat(n)),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![
        0o600, 0o644, 0o755, 0o4755, 0o2775, 0o1777, 0o444, 0o700,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(vec!["trusted.drydock", "trusted.other"]);
    prop_oneof![
        2 => (path(), text()).prop_map(|(path, text)| Op::Create { path, text }),
        1 => path().prop_map(|path| Op::CreateNew { path }),
        2 => (path(), 0_u64..9000, text()).prop_map(|(path, at, text)| Op::Write { path, at, text }),
        2 => (path(), text()).prop_map(|(path, text)| Op::Append { path, text }),
        1 => (path(), 0_u64..20_000).prop_map(|(path, length)| Op::Truncate { path, length }),
        1 => (path(), 0_u64..9000, b'A'..=b'Z')
            .prop_map(|(path, at, byte)| Op::Mmap { path, at, byte }),
        1 => (path(), text()).prop_map(|(path, text)| Op::TmpFile { path, text }),
        4 => (path(), path()).prop_map(|(from, to)| Op::Rename { from, to }),
        2 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        1 => (path(), path()).prop_map(|(target, path)| Op::Symlink { target, path }),
        3 => path().prop_map(|path| Op::Unlink { path }),
        1 => path().prop_map(|path| Op::Rmdir { path }),
        2 => path().prop_map(|path| Op::RemoveAll { path }),
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        1 => path().prop_map(|path| Op::Fifo { path }),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        1 => (path(), 0_u32..3, 0_u32..3).prop_map(|(path, uid, gid)| Op::Chown { path, uid, gid }),
        1 => (path(), name(), "[a-z]{1,9}").prop_map(|(path, name, value)| Op::SetXattr {
            path,
            name: name.into(),
            value,
        }),
        1 => (path(), name()).prop_map(|(path, name)| Op::RemoveXattr {
            path,
            name: name.into(),
        }),
        1 => (path(), 1_i64..1_400_000_000).prop_map(|(path, seconds)| Op::Times { path, seconds }),
    ]
}

/// Random operations, the same for the same seed.
fn runner(check: &Check) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&check.seed().to_le_bytes());
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// How many sequences: `DRYDOCK_SEQUENCES`, or as many as one container has
/// trees for.
fn sequences() -> usize {
    std::env::var(SEQUENCES)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(TREES)
}

/// The same operations in containers of a driver and in a plain directory, each
/// sequence on a tree of its own. Both are done by the probe, many sequences at
/// once: a question costs more than what it asks for.
struct Pair<'a> {
    store: &'a Store<'a>,
    /// A container on the image of trees.
    inside: Option<Held>,
    /// The probe on the host.
    plain: Held,
    /// How many containers there have been.
    containers: usize,
    /// The next tree that nothing has touched.
    next: usize,
}

impl<'a> Pair<'a> {
    fn new(check: &Check, store: &'a Store<'a>) -> Result<Self> {
        let mut plain = check.other_program("probe").args(["hold"]).start()?;
        plain.wait_until_held()?;
        Ok(Pair {
            store,
            inside: None,
            plain,
            containers: 0,
            next: 0,
        })
    }

    /// The plain directory beside the container of now.
    fn directory(&self) -> String {
        let directory = format!("plain{}", self.containers);
        let directory = self.store.check.dir().join(directory);
        directory.to_string_lossy().into_owned()
    }

    /// The first difference that one of the sequences makes, and of which.
    fn difference(&mut self, sequences: &[Vec<Op>]) -> Result<Option<(usize, String)>> {
        if self.inside.is_none() || self.next + sequences.len() > TREES {
            self.start()?;
        }
        let first = self.next.to_string();
        self.next += sequences.len();
        let json = serde_json::to_string(sequences)?;
        let directory = self.directory();
        let plain = ["operate-all", &directory, &first, &json];
        let expected: Vec<Operated> = self.plain.ask_within(&plain, PATIENCE)?;
        let Some(inside) = &mut self.inside else {
            return Err(failed("a container", "none"));
        };
        let found = ["operate-all", "/", &first, &json];
        let found: Vec<Operated> = inside.ask_within(&found, PATIENCE)?;
        let pairs = expected.iter().zip(&found).enumerate();
        Ok(pairs
            .filter_map(|(n, (expected, found))| {
                compare(&sequences[n], expected, found).map(|difference| (n, difference))
            })
            .next())
    }

    fn start(&mut self) -> Result<()> {
        if let Some(held) = self.inside.take() {
            held.end()?.success()?;
            fs::remove_dir_all(self.directory()).context("remove the plain directory")?;
        }
        self.containers += 1;
        self.next = 0;
        let name = format!("random{}", self.containers);
        let step = self.store.container(&["--layer", "trees", "--name", &name]);
        self.inside = Some(step.hold()?);
        let count = TREES.to_string();
        let directory = self.directory();
        let made = ["trees", &directory, &count];
        let _: usize = self.plain.ask_within(&made, PATIENCE)?;
        Ok(())
    }

    /// The shortest sequence found that still makes a difference, and which.
    fn shrink(
        &mut self,
        mut failing: impl ValueTree<Value = Vec<Op>>,
    ) -> Result<(Vec<Op>, String)> {
        let mut least = None;
        let end = Instant::now() + SHRINKING;
        while least.is_none() || Instant::now() < end {
            let ops = failing.current();
            let simpler = match self.difference(std::slice::from_ref(&ops))? {
                Some((_, difference)) => {
                    least = Some((ops, difference));
                    failing.simplify()
                }
                // It does not fail each time: as it is, then.
                None if least.is_none() => break,
                None => failing.complicate(),
            };
            if !simpler {
                break;
            }
        }
        let once = || (failing.current(), "one that comes and goes".into());
        Ok(least.unwrap_or_else(once))
    }

    fn end(&mut self) -> Result<()> {
        match self.inside.take() {
            Some(held) => held.end()?.success().map(drop),
            None => Ok(()),
        }
    }
}

/// Does random operations to a plain directory and to a container of the
/// driver, and compares what the kernel said and what is there. A difference is
/// made as small as possible before it is shown.
pub(crate) fn random_operations_agree(check: &Check, driver: &'static str) -> Result<()> {
    let store = Store::new(check, driver)?;
    let rootfs = rootfs_of_trees(check, TREES)?;
    store.image("trees", &rootfs)?;
    let before = fs::read(store.tar("trees")?).context("read the image's archive")?;
    let mut pair = Pair::new(check, &store)?;
    let mut runner = runner(check);
    let strategy = prop::collection::vec(op(), 1..25);
    let mut left = sequences();
    while left > 0 {
        let batch = left.min(BATCH);
        left -= batch;
        let drawn: Vec<_> = (0..batch)
            .map(|_| strategy.new_tree(&mut runner))
            .collect::<std::result::Result<_, _>>()
            .map_err(|reason| failed("a sequence", reason))?;
        let ops: Vec<Vec<Op>> = drawn.iter().map(ValueTree::current).collect();
        if let Some((n, _)) = pair.difference(&ops)?
            && let Some(failing) = drawn.into_iter().nth(n)
        {
            let (ops, difference) = pair.shrink(failing)?;
            return Err(failed(
                format!("{driver} to do as a plain directory does"),
                format!(
                    "a difference: {difference}; after {ops:?} (seed {}, {SEED})",
                    check.seed()
                ),
            ));
        }
    }
    pair.end()?;
    let after = fs::read(store.tar("trees")?).context("read the image's archive")?;
    expect(
        before == after,
        "the image to be unchanged",
        "it changed: a container has written to a layer below its own",
    )
}

fn compare(ops: &[Op], expected: &Operated, found: &Operated) -> Option<String> {
    for (n, op) in ops.iter().enumerate() {
        if expected.said[n] != found.said[n] {
            return Some(format!(
                "{op:?} gave {}, and should give {}",
                found.said[n], expected.said[n]
            ));
        }
    }
    fsops::difference(&expected.tree, &found.tree)
}

/// What a container did to the trees of its image, and the archive of it.
pub(crate) struct Changed {
    pub trees: Vec<BTreeMap<String, Node>>,
    pub tar: PathBuf,
}

/// Has a container of the driver do random operations, and takes its diff. The
/// image is made in every store given.
pub(crate) fn changed(check: &Check, store: &Store<'_>) -> Result<Changed> {
    let mut held = store
        .container(&["--layer", "trees", "--name", "one", "--keep"])
        .hold()?;
    let mut runner = runner(check);
    let strategy = prop::collection::vec(op(), 5..40);
    let moved = vec![
        Op::Rename {
            from: "a/b".into(),
            to: "b/moved".into(),
        },
        Op::Chmod {
            path: "b/x".into(),
            mode: 0o600,
        },
        Op::SetXattr {
            path: "b/x".into(),
            name: "trusted.drydock".into(),
            value: "above".into(),
        },
        // An opaque directory.
        Op::RemoveAll { path: "c".into() },
        Op::Mkdir {
            path: "c".into(),
            mode: 0o755,
        },
    ];
    let mut sequences: Vec<Vec<Op>> = vec![moved];
    while sequences.len() < CHANGED {
        let drawn = strategy
            .new_tree(&mut runner)
            .map_err(|reason| failed("a sequence", reason))?;
        sequences.push(drawn.current());
    }
    let trees = operate(&mut held, &sequences)?;
    held.end()?.success()?;
    Ok(Changed {
        trees,
        tar: store.tar("one")?,
    })
}

/// Operates on the trees of a container, the first and so on.
pub(crate) fn operate(
    held: &mut Held,
    sequences: &[Vec<Op>],
) -> Result<Vec<BTreeMap<String, Node>>> {
    let json = serde_json::to_string(sequences)?;
    let done: Vec<Operated> = held.ask_within(&["operate-all", "/", "0", &json], PATIENCE)?;
    Ok(done.into_iter().map(|done| done.tree).collect())
}

/// Makes the image of trees in a store.
pub(crate) fn image_of_trees(check: &Check, stores: &[Store<'_>]) -> Result<()> {
    let rootfs = rootfs_of_trees(check, CHANGED)?;
    stores
        .iter()
        .try_for_each(|store| store.image("trees", &rootfs))
}

/// Applies changes in a store and compares what a container then sees.
pub(crate) fn applied(store: &Store<'_>, from: &str, changed: &Changed) -> Result<()> {
    let id = format!("from-{from}");
    store
        .tool(["layer", "create", &id, "--parent", "trees"])
        .args([OsStr::new("--tar"), changed.tar.as_ref()])
        .run()?
        .success()?;
    let mut held = store.container(&["--layer", &id]).hold()?;
    let found = operate(&mut held, &vec![Vec::new(); changed.trees.len()])?;
    for (n, (expected, found)) in changed.trees.iter().zip(&found).enumerate() {
        if let Some(difference) = fsops::difference(expected, found) {
            return Err(failed(
                format!(
                    "the diff of {from} to give the same tree with {}",
                    store.driver
                ),
                format!("in tree {n}: {difference}"),
            ));
        }
    }
    held.end()?.success()?;
    Ok(())
}

/// The container's first process: the launcher's child that is not in the
/// host's mount namespace, as the server of an AUFS is.
pub(crate) fn first_process(held: &Held) -> Result<i32> {
    let ours = host::namespaces("self")?["mnt"];
    for child in host::children(held.launcher())? {
        let theirs = host::namespaces(&child.pid.to_string())?;
        if theirs.get("mnt").is_some_and(|mnt| *mnt != ours) {
            return Ok(child.pid);
        }
    }
    Err(failed("a child in a mount namespace of its own", "none"))
}

/// The size of a file of `bin/` and of the image, for file systems to fill.
pub(crate) fn bytes_of(directory: &Path) -> Result<u64> {
    let done = std::process::Command::new("du")
        .args(["-s", "-k"])
        .arg(directory)
        .output()
        .context("run du")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let kib: u64 = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("du: {text:?}, in {:?}", workspace::bin()))?;
    Ok(kib * 1024)
}

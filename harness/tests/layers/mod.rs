//! What the checks of step 08 have in common: a store of layers of the check's
//! own, and random operations on files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::fsops::{self, Node, Op, Operated};
use harness::prelude::*;
use harness::workspace;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// All drivers.
pub const DRIVERS: [&str; 5] = ["overlay2", "aufs", "btrfs", "devicemapper", "vfs"];

/// How many trees for random operations an image holds.
const TREES: usize = 40;

/// How many are changed for a diff that is applied elsewhere.
const CHANGED: usize = 12;

/// How long random operations may take in the short mode.
const TIME: Duration = Duration::from_secs(30);

/// A state directory and a driver in it.
pub struct Store<'a> {
    check: &'a Check,
    pub driver: &'static str,
    pub root: PathBuf,
}

impl<'a> Store<'a> {
    /// An empty store. `unsupported` where the driver says that it is.
    pub fn new(check: &'a Check, driver: &'static str) -> Result<Self> {
        Self::at(check, driver, check.dir().join(check.word("state")))
    }

    pub fn at(check: &'a Check, driver: &'static str, root: PathBuf) -> Result<Self> {
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
    pub fn all(check: &'a Check) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for driver in DRIVERS {
            match Self::new(check, driver) {
                Ok(store) => all.push(store),
                Err(error) if error.is::<harness::outcome::Unsupported>() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// A command of the step on this store.
    pub fn tool<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Step {
        self.check
            .step()
            .args(args)
            .args(["--driver", self.driver, "--root"])
            .args([&self.root])
    }

    /// `union run` on this store; the command follows.
    pub fn container(&self, args: &[&str]) -> Step {
        self.tool(["union", "run"]).args(args)
    }

    /// Makes the layer `id` of all that is in a directory.
    pub fn image(&self, id: &str, from: &Path) -> Result<()> {
        self.tool(["layer", "create", id])
            .args([OsStr::new("--from"), from.as_ref()])
            .run()?
            .success()?;
        Ok(())
    }

    /// The changes of a layer, as a tar in a file.
    pub fn tar(&self, id: &str) -> Result<PathBuf> {
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
    pub fn layers(&self) -> Result<Vec<String>> {
        let listed = self.tool(["layer", "ls"]).run()?.success()?.stdout;
        let names = listed.lines().skip(1);
        Ok(names
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect())
    }
}

/// A root file system with some files in /data.
pub fn rootfs(check: &Check) -> Result<PathBuf> {
    let rootfs = check.rootfs()?;
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
    let rootfs = check.rootfs()?;
    for n in 0..trees {
        let tree = rootfs.join(n.to_string());
        fs::create_dir(&tree).context("fill the image")?;
        fsops::fill(&tree).context("fill the image")?;
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
        (1_usize..20_000).prop_map(|n| "0123456789".repeat(n / 10)),
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
        1 => (path(), 0_u64..9000, b'A'..b'Z')
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
fn runner(check: &Check, cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&check.seed().to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// How many sequences: `DRYDOCK_SEQUENCES`, or `short`.
fn sequences(short: u32) -> u32 {
    std::env::var("DRYDOCK_SEQUENCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(short)
}

/// Containers of an image of trees: a fresh tree for every sequence, a fresh
/// container when they are used up.
struct Trees<'a> {
    store: &'a Store<'a>,
    held: Option<Held>,
    next: usize,
    containers: usize,
}

impl Trees<'_> {
    fn operate(&mut self, ops: &str) -> Result<Operated> {
        if self.held.is_none() || self.next == TREES {
            self.end()?;
            self.containers += 1;
            let name = format!("random{}", self.containers);
            let step = self.store.container(&["--layer", "trees", "--name", &name]);
            self.held = Some(step.hold()?);
            self.next = 0;
        }
        let tree = format!("/{}", self.next);
        self.next += 1;
        match &mut self.held {
            Some(held) => held.ask(&["operate", &tree, ops]),
            None => Err(failed("a container", "none")),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.held.take() {
            Some(held) => held.end()?.success().map(drop),
            None => Ok(()),
        }
    }
}

/// Does random operations to a plain directory and to a container of the
/// driver, and compares what the kernel said and what is there. A difference is
/// made as small as possible before it is shown.
pub fn random_operations_agree(check: &Check, driver: &'static str) -> Result<()> {
    let store = Store::new(check, driver)?;
    let rootfs = rootfs_of_trees(check, TREES)?;
    store.image("trees", &rootfs)?;
    let before = fs::read(store.tar("trees")?).context("read the image's archive")?;
    let trees = std::cell::RefCell::new(Trees {
        store: &store,
        held: None,
        next: 0,
        containers: 0,
    });
    let plain = check.dir().join("plain");
    let started = Instant::now();
    let strategy = prop::collection::vec(op(), 1..25);
    let result = runner(check, sequences(60)).run(&strategy, |ops| {
        // Under emulation fewer have to do, unless a number was asked for.
        if started.elapsed() > TIME && std::env::var_os("DRYDOCK_SEQUENCES").is_none() {
            return Ok(());
        }
        let error = |error: anyhow::Error| TestCaseError::fail(format!("{error:#}"));
        let expected = on_plain(&plain, &ops).map_err(error)?;
        let json = serde_json::to_string(&ops).map_err(|e| error(e.into()))?;
        let found = trees.borrow_mut().operate(&json).map_err(error)?;
        match compare(&ops, &expected, &found) {
            None => Ok(()),
            Some(difference) => Err(TestCaseError::fail(difference)),
        }
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, ops)) => {
            return Err(failed(
                format!("{driver} to do as a plain directory does"),
                format!(
                    "a difference: {reason}; after {ops:?} (seed {}, DRYDOCK_SEED)",
                    check.seed()
                ),
            ));
        }
        Err(TestError::Abort(reason)) => return Err(failed("sequences to try", reason)),
    }
    trees.borrow_mut().end()?;
    let after = fs::read(store.tar("trees")?).context("read the image's archive")?;
    expect(
        before == after,
        "the image to be what it was",
        "another: a container has written to a layer below its own",
    )
}

fn on_plain(plain: &Path, ops: &[Op]) -> Result<Operated> {
    if plain.exists() {
        fs::remove_dir_all(plain).context("empty the plain directory")?;
    }
    fs::create_dir(plain).context("make the plain directory")?;
    fsops::fill(plain).context("fill the plain directory")?;
    Ok(Operated {
        said: fsops::run(plain, ops),
        tree: fsops::tree(plain)?,
    })
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
pub struct Changed {
    pub trees: Vec<BTreeMap<String, Node>>,
    pub tar: PathBuf,
}

/// Has a container of the driver do random operations, and takes its diff. The
/// image is made in every store given.
pub fn changed(check: &Check, store: &Store<'_>) -> Result<Changed> {
    let mut held = store
        .container(&["--layer", "trees", "--name", "one", "--keep"])
        .hold()?;
    let mut runner = runner(check, 1);
    let strategy = prop::collection::vec(op(), 5..40);
    let moved = serde_json::to_string(&[
        Op::Rename {
            from: "a/b".into(),
            to: "b/moved".into(),
        },
        Op::Chmod {
            path: "b/x".into(),
            mode: 0o600,
        },
    ])?;
    let mut trees = Vec::new();
    for n in 0..CHANGED {
        let ops = strategy
            .new_tree(&mut runner)
            .map_err(|reason| failed("a sequence", reason))?
            .current();
        let json = match n {
            0 => moved.clone(),
            _ => serde_json::to_string(&ops)?,
        };
        let done: Operated = held.ask(&["operate", &format!("/{n}"), &json])?;
        trees.push(done.tree);
    }
    held.end()?.success()?;
    Ok(Changed {
        trees,
        tar: store.tar("one")?,
    })
}

/// Makes the image of trees in a store.
pub fn image_of_trees(check: &Check, stores: &[Store<'_>]) -> Result<()> {
    let rootfs = rootfs_of_trees(check, CHANGED)?;
    stores
        .iter()
        .try_for_each(|store| store.image("trees", &rootfs))
}

/// Applies changes in a store and compares what a container then sees.
pub fn applied(store: &Store<'_>, from: &str, changed: &Changed) -> Result<()> {
    let id = format!("from-{from}");
    store
        .tool(["layer", "create", &id, "--parent", "trees"])
        .args([OsStr::new("--tar"), &changed.tar.as_ref()])
        .run()?
        .success()?;
    let mut held = store.container(&["--layer", &id]).hold()?;
    for (n, expected) in changed.trees.iter().enumerate() {
        let found: Operated = held.ask(&["operate", &format!("/{n}")])?;
        if let Some(difference) = fsops::difference(expected, &found.tree) {
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
pub fn first_process(held: &Held) -> Result<i32> {
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
pub fn bytes_of(directory: &Path) -> Result<u64> {
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

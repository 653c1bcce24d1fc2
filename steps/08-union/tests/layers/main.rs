//! Random stacks of layers, imported by every driver that works here: all of
//! them must refuse the same layers and show the same tree. As root, because
//! most of them mount; without root this fails. `DRYDOCK_STACKS` says how many.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod archive;
mod tree;

use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rustix::mount::{MountPropagationFlags, mount_change};
use union::detect;
use union::driver::{Access, StorageDriver};
use union::tree::Tree;
use union::{Kind, LayerId};

use archive::{Entry, tar};
use tree::describe;

/// How many stacks are drawn unless `DRYDOCK_STACKS` says so.
const STACKS: u32 = 150;

/// A driver, and what must be the same of it as of the others.
struct Outcome {
    driver: Kind,
    refused: Vec<usize>,
    why: Vec<String>,
    tree: String,
    /// The layers as the driver writes them.
    diffs: Vec<Vec<u8>>,
}

fn main() {
    // What is mounted is seen by nobody else, and goes with this process.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).unwrap();

    let root = tempfile::tempdir().unwrap();
    let mut drivers = Vec::new();
    for kind in Kind::ALL {
        match detect::unsupported(kind, root.path()).unwrap() {
            None => drivers.push(detect::open(kind, root.path()).unwrap()),
            Some(why) => println!("{kind} is not compared: {why}"),
        }
    }
    let given = std::env::var("DRYDOCK_STACKS").ok();
    let cases = given.map_or(STACKS, |text| text.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    });
    let stacks = prop::collection::vec(prop::collection::vec(archive::entry(), 1..12), 1..5);
    match runner.run(&stacks, |stack| compare(&drivers, &stack)) {
        Ok(()) => println!("{cases} stacks of layers are one tree each"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

fn compare(drivers: &[Box<dyn StorageDriver>], stack: &[Vec<Entry>]) -> Result<(), TestCaseError> {
    let mut outcomes = Vec::new();
    for driver in drivers {
        outcomes.push(outcome(&**driver, stack));
    }
    // The last is vfs: a whole tree, on which each layer is applied.
    let (yardstick, others) = outcomes.split_last().unwrap();
    for other in others {
        prop_assert_eq!(
            &other.refused,
            &yardstick.refused,
            "the layers that {} and {} refuse: {:?}, {:?}",
            other.driver,
            yardstick.driver,
            other.why,
            yardstick.why
        );
        prop_assert_eq!(
            &other.tree,
            &yardstick.tree,
            "\nthe trees of {}:\n{}and of {}:\n{}",
            other.driver,
            other.tree,
            yardstick.driver,
            yardstick.tree
        );
    }
    // What one driver writes the next one reads.
    for (n, from) in outcomes.iter().enumerate() {
        let to = &drivers[(n + 1) % drivers.len()];
        let again = again(&**to, &from.diffs);
        let again = again.unwrap_or_else(|error| format!("{error:#}"));
        prop_assert_eq!(
            &again,
            &yardstick.tree,
            "\nthe diffs of {} give with {}:\n{}and not:\n{}",
            from.driver,
            to.kind(),
            again,
            yardstick.tree
        );
    }
    Ok(())
}

/// Imports the layers, each on the last one that was taken.
fn outcome(driver: &dyn StorageDriver, stack: &[Vec<Entry>]) -> Outcome {
    let mut outcome = Outcome {
        driver: driver.kind(),
        refused: Vec::new(),
        why: Vec::new(),
        tree: String::new(),
        diffs: Vec::new(),
    };
    let mut there: Vec<LayerId> = Vec::new();
    for (n, entries) in stack.iter().enumerate() {
        let id: LayerId = format!("layer{n}").parse().unwrap();
        match driver.import(&id, there.last(), &mut &tar(entries)[..]) {
            Ok(()) => there.push(id),
            Err(error) => {
                outcome.refused.push(n);
                outcome.why.push(format!("{error:#}"));
            }
        }
    }
    for id in &there {
        let mut diff = Vec::new();
        driver.diff(id, &mut diff).unwrap();
        outcome.diffs.push(diff);
    }
    outcome.tree = tree_of(driver, &there);
    outcome
}

/// The tree that the layers make, which are removed.
fn tree_of(driver: &dyn StorageDriver, there: &[LayerId]) -> String {
    let mut text = String::new();
    if let Some(top) = there.last() {
        let mut view = driver.view(top, Access::ReadOnly).unwrap();
        let tree = Tree::at(view.detached().unwrap()).unwrap();
        text = describe(&tree, Path::new("")).unwrap();
    }
    for id in there.iter().rev() {
        driver.remove(id).unwrap();
    }
    text
}

/// The tree that comes of what another driver has written.
fn again(driver: &dyn StorageDriver, diffs: &[Vec<u8>]) -> anyhow::Result<String> {
    let mut there: Vec<LayerId> = Vec::new();
    for (n, diff) in diffs.iter().enumerate() {
        let id: LayerId = format!("again{n}").parse()?;
        driver.import(&id, there.last(), &mut &diff[..])?;
        there.push(id);
    }
    Ok(tree_of(driver, &there))
}

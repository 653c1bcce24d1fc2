//! A disk that is full.

use std::fs;
use std::process::Stdio;

use check::prelude::*;
use serde_json::json;

use crate::server::{How, Request, digest};
use crate::site::{Site, archive, small_root};

/// Bytes that no program packs, the same in every run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_full_disk_is_left_as_it_was() {
    check(|c| {
        let disk = Disk::in_memory(c, "24m")?;
        pulls(c, &disk)
    });
}

fn pulls(c: &Check, disk: &Disk) -> Result<()> {
    let mut site = Site::new(c)?;
    site.root = disk.path().join("root");
    let config = || json!({"Cmd": ["cat", "/etc/word"]});
    // An image that has room, so that the directories are there.
    let first = site.image("app", "1")?;
    let name = site.server.name("app:1");
    site.said(&["pull", "-q", &name])?;
    let before = (disk.free()?, site.left_in("images/blobs/sha256"));
    let refused = |status: i32, stderr: &str, what: &str| -> Result<()> {
        expect_eq(&format!("the status of a pull of {what}"), status, 1)?;
        let said = stderr.to_lowercase();
        let words = ["no space left", "are free", "room for"];
        expect(
            words.iter().any(|words| said.contains(words)),
            format!("{what} to be refused for want of space"),
            stderr.trim(),
        )
    };
    let refuses = |tag: &str, what: &str| -> Result<()> {
        let name = site.server.name(&format!("app:{tag}"));
        let ran = site.call(&["pull", "-q", &name]).run()?;
        refused(ran.status, &ran.stderr, what)
    };
    let as_before = |what: &str| -> Result<()> {
        let now = (disk.free()?, site.left_in("images/blobs/sha256"));
        expect(
            now.1 == before.1,
            format!("no further blob after {what}"),
            format!("{} instead of {}", now.1.len(), before.1.len()),
        )?;
        let partial = site.left_in("images/blobs/partial");
        expect(
            partial.is_empty(),
            format!("nothing half after {what}"),
            format!("{partial:?}"),
        )?;
        // A directory or two may have got a page.
        expect(
            now.0 + (64 << 10) >= before.0,
            format!("the disk to be as free after {what} as it was"),
            format!("{} KiB less", (before.0 - now.0.min(before.0)) >> 10),
        )?;
        site.expect_runs(&name, &first.word)
    };

    // The manifest says that there is no room: nobody begins.
    let large = archive(&[("large", &noise(30 << 20))])?;
    let built = site.image_of("app", "2", &[small_root()?, large], config(), "")?;
    let ends = digest(&built.layers[1]);
    site.server.asked();
    let what = "layers that do not fit";
    refuses("2", what)?;
    let asked = site.server.count(|one: &Request| one.path.ends_with(&ends));
    expect_eq("how often a layer without room is asked for", asked, 0)?;
    as_before(what)?;

    // There was room at first, and somebody else has taken it.
    let large = archive(&[("large", &noise(4 << 20))])?;
    let built = site.image_of("app", "3", &[large], config(), "")?;
    let (ends, half) = (digest(&built.layers[0]), built.layers[0].len() / 2);
    site.server
        .rule(move |request, answer| match request.path.ends_with(&ends) {
            true => answer.sent(How::Held(half)),
            false => answer,
        });
    let partial = site
        .root
        .join("images/blobs/partial")
        .join(&digest(&built.layers[0])[7..]);
    let other = disk.path().join("other");
    let what = "a layer for which there is no room any more";
    let name_3 = site.server.name("app:3");
    let mut pull = site.call(&["pull", "-q", &name_3]).command();
    pull.stdin(Stdio::null()).stdout(Stdio::null());
    let pull = pull.stderr(Stdio::piped()).spawn();
    let pull = pull.context("start the program")?;
    let arrived = wait_for(|| {
        let length = fs::metadata(&partial).ok()?.len();
        (length >= half as u64).then_some(())
    });
    let taken = disk.free().and_then(|bytes| {
        let bytes = bytes.saturating_sub(256 << 10) as usize;
        fs::write(&other, vec![1; bytes]).context("fill the disk")
    });
    site.server.go_on();
    let ended = pull.wait_with_output().context("wait")?;
    taken?;
    expect(arrived.is_some(), "half a layer to arrive", "it does not")?;
    let status = ended.status.code().unwrap_or(-1);
    refused(status, &String::from_utf8_lossy(&ended.stderr), what)?;
    fs::remove_file(&other).context("unlink")?;
    site.server.honest();
    as_before(what)?;

    // What comes is small, and becomes large when it is unpacked.
    let zeroes = archive(&[("zeroes", &vec![0; 40 << 20])])?;
    site.image_of("app", "4", &[small_root()?, zeroes], config(), "")?;
    let what = "a layer that has no room unpacked";
    refuses("4", what)?;
    as_before(what)?;

    // With room, the same one comes.
    site.said(&["pull", "-q", &name_3]).map(drop)
}

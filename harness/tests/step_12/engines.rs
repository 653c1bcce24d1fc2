//! Several engines on one host: each with a state root of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use check::prelude::*;
use check::rtnl;

use crate::Life;

/// A command of an engine with another root than `life`'s.
fn at(life: &Life<'_>, root: &Path, words: &[&str]) -> Step {
    let step = life.c.step().env("DRYDOCK_STATE", life.c.dir().join("net"));
    step.args(["--root".as_ref(), root.as_os_str()]).args(words)
}

fn said(life: &Life<'_>, root: &Path, words: &[&str]) -> Result<String> {
    let ran = at(life, root, words).run()?.success()?;
    Ok(ran.stdout.trim_end().to_owned())
}

fn subnet(life: &Life<'_>, root: &Path, name: &str) -> Result<String> {
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    said(life, root, &["network", "inspect", "-f", format, name])
}

#[test]
fn two_engines_choose_different_subnets() {
    check(|c| {
        let lan = Lan::enter(c)?;
        // Somebody else's bridge, as Docker has it, and a device that is down.
        let up = [Ipv4Addr::new(172, 20, 0, 1), Ipv4Addr::new(172, 21, 0, 1)];
        for (device, ip) in ["br-0123456789ab", "down0"].into_iter().zip(up) {
            rtnl::add_bridge(device)?;
            rtnl::add_address(device, ip, 16)?;
        }
        rtnl::set_up("br-0123456789ab")?;
        let before = lan.snapshot()?;
        let life = Life::new(c)?;
        let other = c.dir().join("other");
        fs::create_dir(&other).context("mkdir")?;
        let roots: [PathBuf; 2] = [life.root.clone(), other];
        let [one, two] = &roots;
        // Nothing of either exists but its description.
        said(&life, one, &["network", "create", "a"])?;
        said(&life, two, &["network", "create", "b"])?;
        let chosen = [subnet(&life, one, "a")?, subnet(&life, two, "b")?];
        expect_eq(
            "the subnets of two engines",
            chosen.join(" "),
            "172.18.0.0/16 172.19.0.0/16".to_owned(),
        )?;
        for (root, name) in [(one, "a"), (two, "b")] {
            let run = ["run", "-d", "--name", name, "--network", name];
            let ran = at(
                &life,
                root,
                &[&run[..], &[&life.image, "sleep", "1000"]].concat(),
            );
            ran.run()?.success()?;
        }
        let ran = at(
            &life,
            two,
            &["network", "create", "--subnet", "172.18.5.0/24", "x"],
        )
        .run()?;
        ran.expect_error(1, &["Pool overlaps"])?;

        said(&life, one, &["network", "create", "c"])?;
        expect_eq(
            "the subnet beside the networks of others",
            &*subnet(&life, one, "c")?,
            "172.22.0.0/16",
        )?;

        // All at the same time.
        let mut calls = Vec::new();
        for n in 0..8 {
            let words = ["network", "create", &format!("n{n}")];
            let mut command = at(&life, &roots[n % 2], &words).command();
            command.stdin(Stdio::null()).stdout(Stdio::null());
            calls.push(command.spawn().context("start the program")?);
        }
        for call in &mut calls {
            let status = check::check::wait_or_kill(call)?;
            expect_eq("the status of network create", status, Some(0))?;
        }
        let mut all = BTreeSet::new();
        for n in 0..8 {
            all.insert(subnet(&life, &roots[n % 2], &format!("n{n}"))?);
        }
        expect_eq("how many subnets eight networks have", all.len(), 8)?;

        // What is removed is free; so is what an engine had that was deleted.
        said(&life, one, &["rm", "-f", "a"])?;
        said(&life, two, &["rm", "-f", "b"])?;
        said(&life, one, &["network", "rm", "a"])?;
        said(&life, two, &["network", "create", "again"])?;
        expect_eq(
            "the subnet of a network that was removed",
            &*subnet(&life, two, "again")?,
            "172.18.0.0/16",
        )?;
        fs::remove_dir_all(two.join("networks")).context("rm -r")?;
        said(&life, one, &["network", "create", "d"])?;
        expect_eq(
            "the subnet of an engine that was deleted",
            &*subnet(&life, one, "d")?,
            "172.18.0.0/16",
        )?;
        said(&life, one, &["network", "prune", "-f"])?;
        let net = c.dir().join("net");
        expect(!net.exists(), "nothing to be left of the subnets", "a file")?;
        lan.expect_as_before(&before, "after all networks")
    });
}

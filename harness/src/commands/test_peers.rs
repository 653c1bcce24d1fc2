//! `harness test-peers`: the engines that call our runtime, in a virtual machine
//! that has them on a disk.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use check::report::{progress, seconds};
use check::{build, workspace};
use vm::{Accel, CgroupLayout, Kernel, Vm};

/// Directory of our files inside the machine.
const INSIDE: &str = "/drydock";

/// The steps whose programs the tests call.
const STEPS: [&str; 4] = ["11", "12", "13", "14"];

/// Arguments of `harness test-peers`.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel: `distribution`, a version such as 6.12, `host`, or a file
    #[arg(long, default_value_t)]
    kernel: Kernel,

    /// Layout of the cgroup file systems
    #[arg(long, value_enum, default_value_t)]
    cgroup: CgroupLayout,

    /// How QEMU runs the guest's code
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,

    /// Run only the tests whose name contains this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,

    /// Time limit of all tests, in seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    time_limit: u64,
}

/// Runs the tests of `harness/tests/peers.rs`. The exit status is theirs.
pub fn test_peers(args: Args) -> Result<ExitCode> {
    progress("building");
    build::programs(&STEPS.map(str::to_owned))?;
    let tests = ["test", "--no-run", "--workspace", "--test", "peers"];
    let tests = build::cargo(&workspace::root(), &tests)?
        .into_iter()
        .find(|program| {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("peers-")
        })
        .context("cargo has built no test program `peers`")?;
    workspace::need_rootfs("busybox")?;
    let disk = workspace::need_disk("peers")?;
    let inside = |path: &str| Path::new(INSIDE).join(path);
    let mut files = vec![
        (tests, inside("peers")),
        (workspace::rootfs("busybox"), inside("rootfs/busybox")),
    ];
    // Where the test program looks for them: in the repository that it was built in.
    let cases = workspace::checks().join("peers/build");
    files.push((cases.clone(), cases));
    for step in STEPS {
        let name = workspace::program(step);
        files.push((workspace::bin().join(&name), inside("bin").join(&name)));
    }
    let words = ["peers", "--test-threads=1"].map(str::to_owned);
    let vm = Vm {
        kernel: args.kernel,
        cgroup: args.cgroup,
        accel: args.accel,
        // The engines' images and containers are in memory.
        memory_mib: 3072,
        command: words.into_iter().chain(args.filter).collect(),
        env: environment(),
        files,
        disk: Some(disk),
        time_limit: Duration::from_secs(args.time_limit),
        ..Vm::default()
    };
    progress(&format!("running on {}", vm.machine_description()?));
    let result = vm.run(&mut |line| println!("{line}"))?;
    println!(
        "  took: boot {}, tests {} · {}",
        seconds(result.timings.boot),
        seconds(result.timings.command),
        result.description
    );
    Ok(match result.status {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn environment() -> Vec<(String, String)> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let at = |name: &str| -> String { PathBuf::from(INSIDE).join(name).display().to_string() };
    // Which Dockerfiles are built.
    let case = std::env::var("DRYDOCK_CASE").unwrap_or_default();
    [
        ("DRYDOCK_CASE", case),
        ("DRYDOCK_BIN", at("bin")),
        ("DRYDOCK_ROOTFS", at("rootfs")),
        ("PATH", format!("{INSIDE}:{path}")),
        ("RUST_BACKTRACE", "0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

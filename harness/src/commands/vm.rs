//! `harness vm`: runs a shell, or a command, in the virtual machine.

use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use check::report::{kernel_release, progress, seconds};
use check::{build, workspace};
use course::exercise::skeleton;
use course::exercise::work::Work;
use vm::{Accel, CgroupLayout, Kernel, Vm};

/// Arguments of `harness vm`.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel: `distribution`, a version such as 6.12, `host`, or a file
    #[arg(long, default_value_t)]
    kernel: Kernel,

    /// How cgroups are mounted
    #[arg(long, value_enum, default_value_t)]
    cgroup: CgroupLayout,

    /// How QEMU runs the guest's code
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,

    /// Memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    memory: u32,

    /// Number of processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,

    /// Time limit of the command, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    time_limit: u64,

    /// Run from the image of a disk that `./just rootfs NAME` makes: peers
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,

    /// File or directory to copy into the machine, and its absolute path inside
    #[arg(long = "file", value_name = "FILE:INSIDE")]
    files: Vec<String>,

    /// Build your step NN, and put it in the place of ours; may be repeated
    #[arg(long, value_name = "NN")]
    mine: Vec<String>,

    /// Report durations at the end
    #[arg(short, long)]
    verbose: bool,

    /// The command and its arguments; a login shell by default
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command in the VM, at this terminal if there is one. `bin/` is in
/// its PATH.
pub fn vm(args: Args) -> Result<ExitCode> {
    let mine = mine(&args.mine)?;
    build_steps()?;
    let mut vm = Vm {
        kernel: args.kernel,
        cgroup: args.cgroup,
        accel: args.accel,
        memory_mib: args.memory,
        cpus: args.cpus,
        time_limit: Duration::from_secs(args.time_limit),
        files: files(&args.files, &mine)?,
        disk: args.disk.as_deref().map(workspace::need_disk).transpose()?,
        ..Vm::default()
    };
    let status = if stdin().is_terminal() && stdout().is_terminal() {
        // A reader of the book expects it; everything else works without it.
        if let Err(error) = workspace::need_rootfs("busybox") {
            eprintln!("{error:#}");
        }
        vm.files = files(&args.files, &mine)?;
        vm.command = or_login_shell(args.command);
        vm.shell()?
    } else {
        if args.command.is_empty() {
            bail!("a shell in the VM needs a terminal: name a command");
        }
        vm.command = args.command;
        vm.resume = true;
        let result = vm.run(&mut |line| println!("{line}"))?;
        if args.verbose {
            eprintln!(
                "{} on {}: packing {}, {} {}, command {}",
                result.description,
                kernel_release(),
                seconds(result.timings.packing),
                match result.timings.resumed {
                    true => "resume",
                    false => "boot",
                },
                seconds(result.timings.boot),
                seconds(result.timings.command)
            );
        }
        result.status
    };
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(255)))
}

fn or_login_shell(command: Vec<String>) -> Vec<String> {
    if command.is_empty() {
        return vec!["sh".to_owned(), "-l".to_owned()];
    }
    command
}

/// Builds the steps if one is missing in `bin/`: the book's commands call them.
/// In a handout always, because they are the learner's. The machine starts
/// without one that does not compile.
fn build_steps() -> Result<()> {
    let steps = skeleton::steps()?.into_iter().map(|(number, _)| number);
    let steps: Vec<String> = steps.collect();
    let is_there = |step: &String| workspace::bin().join(workspace::program(step)).exists();
    let all_there = steps.iter().all(is_there);
    if all_there && !workspace::is_handed_out() {
        return Ok(());
    }
    progress(match all_there {
        true => "building the steps",
        false => "building the steps, which takes some minutes the first time",
    });
    if let Err(error) = build::programs(&steps) {
        eprintln!("{error:#}: going on with what is in bin/");
    }
    Ok(())
}

/// Builds the learner's steps of these numbers. Returns their programs, each
/// with its path inside.
fn mine(numbers: &[String]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let work = Work::here();
    let mut programs = Vec::new();
    for number in numbers {
        let number = format!("{number:0>2}");
        work.started(&number)?;
        let on_mine = work
            .progress()?
            .steps
            .get(&number)
            .is_some_and(|step| step.on_mine);
        work.lay_out(&number, on_mine)?;
        progress("building");
        let inside = Path::new(book::session::PROGRAMS).join(workspace::program(&number));
        programs.push((work.build(&number)?, inside));
    }
    Ok(programs)
}

/// The files for the book's transcripts, the learner's own programs in the
/// place of ours, and the files that `--file` names.
fn files(named: &[String], mine: &[(PathBuf, PathBuf)]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut files = book::session::files();
    // What is unpacked later replaces what was there.
    files.extend_from_slice(mine);
    for pair in named {
        let (from, inside) = pair
            .rsplit_once(':')
            .with_context(|| format!("--file {pair}: not of the form FILE:INSIDE"))?;
        files.push((PathBuf::from(from), PathBuf::from(inside)));
    }
    Ok(files)
}

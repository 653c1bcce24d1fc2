//! `harness`: the command line program behind `just`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use course::handout;
use harness::commands::{
    bench, book, build, changed, check, claims, doctor, grade, grade_all, gradescope, hint, inject,
    kernel, kernels, progress, restore, run, solution, start, test_exercises, test_hostile,
    test_step, test_wrong, vm, watch, why,
};

/// Checks, virtual machine and housekeeping of the course
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a step on a real kernel
    TestStep(test_step::Args),
    /// Prove that every check can fail, with the wrong solutions
    TestWrong(test_wrong::Args),
    /// A repository for students, without solutions
    Handout(handout::Args),
    /// Which wrong solutions and checks prove a source file
    Why(why::Args),
    /// Marks for a student's crate, in the virtual machine
    Grade(grade::Args),
    /// Marks for a folder of submissions
    GradeAll(grade_all::Args),
    /// An autograder for Gradescope, in a zip
    Gradescope(gradescope::Args),
    /// Prove that no skeleton gains a point
    TestExercises(test_exercises::Args),
    /// Prove that hostile submissions gain nothing
    TestHostile(test_hostile::Args),
    /// Begin a step: its skeleton, in work/
    Start(start::Args),
    /// Check your step
    Check(check::Args),
    /// Check your step whenever you save a file of it
    Watch(watch::Args),
    /// Say what to look at next in your step, and more each time
    Hint(hint::Args),
    /// The difference of your step to ours
    Solution(solution::Args),
    /// What you have achieved
    Progress,
    /// A shell, or a command, in the virtual machine
    Vm(vm::Args),
    /// Build the book, run its transcripts, look at its pages
    #[command(subcommand)]
    Book(book::Args),
    /// Measure starts, density, speed and images, beside others
    Bench(bench::Args),
    /// Container against virtual machine, measured here
    Claims(claims::Args),
    /// Build every step, static, into bin/
    Build,
    /// Say what this machine can and cannot do, and how to mend it
    Doctor(doctor::Args),
    /// Remove what an interrupted run left on this host
    Restore(restore::Args),
    /// Fail every call of a launch, one at a time; kill it at each
    Inject(inject::Args),
    /// Check steps on every kernel that the distribution has
    Kernels(kernels::Args),
    /// Make sure that a kernel is in the cache
    Kernel(kernel::Args),
    /// What is worth running after a change, for tools/test
    #[command(hide = true)]
    Changed(changed::Args),
    /// Run the checks of a plan; used inside the virtual machine
    #[command(hide = true)]
    Run(run::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::TestStep(args) => test_step::test_step(args),
        Command::TestWrong(args) => test_wrong::test_wrong(args),
        Command::Why(args) => why::why(args),
        Command::Handout(args) => handout::handout(args),
        Command::Grade(args) => grade::grade(args),
        Command::GradeAll(args) => grade_all::grade_all(args),
        Command::Gradescope(args) => gradescope::gradescope(args),
        Command::TestExercises(args) => test_exercises::test_exercises(args),
        Command::TestHostile(args) => test_hostile::test_hostile(args),
        Command::Start(args) => start::start(args),
        Command::Check(args) => check::check(args),
        Command::Watch(args) => watch::watch(args),
        Command::Hint(args) => hint::hint(args),
        Command::Solution(args) => solution::solution(args),
        Command::Progress => progress::progress(),
        Command::Vm(args) => vm::vm(args),
        Command::Kernel(args) => kernel::kernel(args),
        Command::Kernels(args) => kernels::kernels(args),
        Command::Book(args) => book::book(args),
        Command::Bench(args) => bench::bench(args),
        Command::Claims(args) => claims::claims(args),
        Command::Build => build::build(),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Inject(args) => inject::inject(args),
        Command::Restore(args) => restore::restore(args),
        Command::Changed(args) => changed::changed(args),
        Command::Run(args) => run::run(args),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("harness: {error:#}");
            ExitCode::from(125)
        }
    }
}

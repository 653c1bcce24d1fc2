//! `harness`: the command line program behind `just`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use course::handout;
use harness::commands::{
    bench, book, build, changed, check, claims, doctor, grade, grade_all, gradescope, hint, inject,
    kernel, kernels, mutants, progress, restore, run, solution, start, test_exercises,
    test_hostile, test_peers, test_step, test_wrong, tour, vm, watch, why,
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
    /// Change our steps at random places, and list what no check notices
    Mutants(mutants::Args),
    /// Make a repository for students, without solutions
    Handout(handout::Args),
    /// List the wrong solutions and checks that prove a source file
    Why(why::Args),
    /// Grade a student's crate, in the virtual machine
    Grade(grade::Args),
    /// Grade a folder of submissions
    GradeAll(grade_all::Args),
    /// Pack an autograder for Gradescope into a zip
    Gradescope(gradescope::Args),
    /// Prove that no skeleton gains a point
    TestExercises(test_exercises::Args),
    /// Prove that hostile submissions gain nothing
    TestHostile(test_hostile::Args),
    /// Run the engines that call our runtime, in the virtual machine
    TestPeers(test_peers::Args),
    /// Start a step: create its skeleton in work/
    Start(start::Args),
    /// Check your step
    Check(check::Args),
    /// Check your step whenever you save a file
    Watch(watch::Args),
    /// Give a hint for your step; each call says more
    Hint(hint::Args),
    /// Show the difference between your step and our solution
    Solution(solution::Args),
    /// Twelve short experiments, each with a question before it
    Tour(tour::Args),
    /// Run the experiments of a plan; used by `tour`
    #[command(hide = true)]
    TourRun(tour::RunArgs),
    /// Show your progress
    Progress,
    /// Run a shell, or a command, in the virtual machine
    Vm(vm::Args),
    /// Build the book, run its transcripts, look at its pages
    #[command(subcommand)]
    Book(book::Args),
    /// Measure starts, density, speed and images, beside other engines
    Bench(bench::Args),
    /// Measure a container against a virtual machine
    Claims(claims::Args),
    /// Build static programs of all steps into bin/
    Build,
    /// Report what this machine supports, and how to install what is missing
    Doctor(doctor::Args),
    /// Remove the remains of an interrupted run from this host
    Restore(restore::Args),
    /// Make every system call of a launch fail, one at a time; kill it at each
    Inject(inject::Args),
    /// Check steps on every kernel of the distribution
    Kernels(kernels::Args),
    /// Fetch a kernel into the cache
    Kernel(kernel::Args),
    /// List the tests that a change can affect, for tools/test
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
        Command::Tour(args) => tour::tour(args),
        Command::TourRun(args) => tour::run(args),
        Command::Mutants(args) => mutants::mutants(args),
        Command::Why(args) => why::why(args),
        Command::Handout(args) => handout::handout(args),
        Command::Grade(args) => grade::grade(args),
        Command::GradeAll(args) => grade_all::grade_all(args),
        Command::Gradescope(args) => gradescope::gradescope(args),
        Command::TestExercises(args) => test_exercises::test_exercises(args),
        Command::TestHostile(args) => test_hostile::test_hostile(args),
        Command::TestPeers(args) => test_peers::test_peers(args),
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

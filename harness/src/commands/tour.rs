//! `harness tour`: the first hour. Asks a question, runs the experiment on this
//! machine, and explains what it showed.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write, stdin, stdout};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

use book::shell::{self, Kind, Line, Output, Session};
use check::own_host::OwnHost;
use check::report::{colour, kernel_release, progress};
use check::wrap::wrap;
use check::{build, registry, workspace};
use course::exercise::skeleton;
use course::exercise::work::Work;
use course::tour::{self, Experiment, State};
use vm::Vm;

/// Arguments of `harness tour`.
#[derive(clap::Args)]
pub struct Args {
    /// Begin with the N-th experiment
    #[arg(long, value_name = "N")]
    from: Option<usize>,

    /// Begin anew: forget what was seen
    #[arg(long, conflicts_with = "from")]
    again: bool,

    /// List the experiments, and which of them were seen
    #[arg(long)]
    list: bool,

    /// Print no colours
    #[arg(long)]
    plain: bool,

    /// Use the virtual machine as root too
    #[arg(long)]
    vm: bool,

    /// Run all experiments without asking, and compare their output with what
    /// it must show
    #[arg(long)]
    test: bool,

    /// Write the book's page of the experiments, without their output
    #[arg(long, hide = true)]
    page: bool,
}

/// Arguments of `harness tour-run`.
#[derive(Parser)]
pub struct RunArgs {
    /// Sessions as JSON
    plan: PathBuf,

    /// Run them in mounts and namespaces of their own, with the programs of
    /// this directory…
    #[arg(long, requires = "rootfs")]
    programs: Option<PathBuf>,

    /// … and this root file system
    #[arg(long)]
    rootfs: Option<PathBuf>,
}

/// Width of the text in columns.
const WIDTH: usize = 78;

/// The directory in which every experiment begins.
const PLACE: &str = "/srv/tour";

/// The root file system of the experiments, as in the virtual machine.
const ROOTFS: &str = "/srv/busybox";

/// Links to busybox, whose commands print what they print in the virtual
/// machine.
const TOOLS: &str = "/srv/tools";

/// The directory of the programs, as in the virtual machine.
const PROGRAMS: &str = "/usr/local/bin";

/// The usual PATH with these links in it. A container looks in the other places.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/srv/tools:/usr/sbin:/usr/bin:/sbin:/bin";

/// The time limit of the virtual machine. Each command has its own limit.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Where the experiments run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Vm,
}

/// The outputs of the commands of one experiment, in order.
type Outputs = Vec<String>;

/// Asks, runs and explains the experiments, and remembers which were seen.
pub fn tour(args: Args) -> Result<ExitCode> {
    let mut experiments = tour::experiments()?;
    if args.page {
        let page = workspace::root().join("book/src/tour.md");
        fs::write(&page, tour::page(&experiments))
            .with_context(|| format!("write {}", page.display()))?;
        println!("{}: now ./just book-test tour --accept", page.display());
        return Ok(ExitCode::SUCCESS);
    }
    // A handout may end earlier, and a step shows something once it is solved.
    let numbers = registry::numbers(&workspace::checks())?;
    experiments.retain(|experiment| numbers.contains(&experiment.step));
    let unsolved = unsolved(&numbers)?;
    let all = experiments.len();
    experiments.retain(|experiment| !unsolved.contains(&experiment.step));
    let waiting = all - experiments.len();
    let steps: Vec<String> = numbers
        .into_iter()
        .filter(|number| !unsolved.contains(number))
        .collect();
    let file = Work::here().tour();
    let mut state = match args.again {
        true => State::default(),
        false => State::read(&file)?,
    };
    if args.list {
        list(&experiments, &state);
        return Ok(ExitCode::SUCCESS);
    }
    if experiments.is_empty() {
        println!(
            "Every experiment runs a step that you have yet to solve: ./just start {}",
            unsolved[0]
        );
        return Ok(ExitCode::SUCCESS);
    }
    let first = first(&args, &experiments, &state)?;
    progress("building");
    build::programs(&steps)?;
    workspace::need_rootfs("busybox")?;
    let place = place(args.vm)?;
    if args.test {
        return test(place, &experiments);
    }
    let Some(first) = first else {
        println!("You have seen all of it. Once more: ./just tour --again");
        tell_of_others(waiting, &unsolved);
        return Ok(ExitCode::SUCCESS);
    };
    let mut teller = Teller {
        colour: colour() && !args.plain,
    };
    teller.welcome(place, experiments.len() - first)?;
    for (number, experiment) in experiments.iter().enumerate().skip(first) {
        teller.ask(number + 1, experiments.len(), experiment)?;
        let Some(guess) = teller.guess()? else {
            println!();
            println!("Go on here with: ./just tour --from {}", number + 1);
            return Ok(ExitCode::SUCCESS);
        };
        progress("running");
        let outputs = run_all(place, std::slice::from_ref(experiment))?;
        let outputs = outputs.into_iter().next().unwrap_or_default();
        teller.show(experiment, &outputs)?;
        teller.explain(experiment, guess, &outputs)?;
        let right = guess == Guess::Made(experiment.answer);
        state.seen.insert(experiment.name.clone(), right);
        state.write(&file)?;
        build::give_to_owner(&file)?;
    }
    let (seen, right) = state.score(&experiments);
    println!();
    let begin = match workspace::is_handed_out() {
        true => unsolved.first().map(String::as_str),
        false => Some("00"),
    };
    let begin = begin.map_or(String::new(), |step| {
        format!(" The chapters begin with ./just start {step}.")
    });
    println!("{seen} experiments, {right} guessed.{begin}");
    tell_of_others(waiting, &unsolved);
    Ok(ExitCode::SUCCESS)
}

/// The steps of a handout in which an exercise is not begun: they do not do yet
/// what an experiment shows. Here the experiments run our own steps.
fn unsolved(numbers: &[String]) -> Result<Vec<String>> {
    let mut unsolved = Vec::new();
    if !workspace::is_handed_out() {
        return Ok(unsolved);
    }
    for number in numbers {
        if skeleton::has_exercises(number)
            && !skeleton::open(&Work::here().started(number)?, number)?.is_empty()
        {
            unsolved.push(number.clone());
        }
    }
    Ok(unsolved)
}

fn tell_of_others(waiting: usize, unsolved: &[String]) {
    if waiting > 0 {
        println!(
            "{waiting} more run steps that you have yet to solve: {}.",
            unsolved.join(", ")
        );
    }
}

/// The place of the first experiment to ask, from 0; `None` if all were seen.
fn first(args: &Args, experiments: &[Experiment], state: &State) -> Result<Option<usize>> {
    match args.from {
        None => Ok(state.next(experiments)),
        Some(number) if (1..=experiments.len()).contains(&number) => Ok(Some(number - 1)),
        Some(number) => bail!(
            "--from {number}: the experiments are 1 to {}: ./just tour --list",
            experiments.len()
        ),
    }
}

fn list(experiments: &[Experiment], state: &State) {
    for (place, experiment) in experiments.iter().enumerate() {
        let mark = match state.seen.get(&experiment.name) {
            Some(true) => "guessed",
            Some(false) => "seen",
            None => "",
        };
        println!(
            "{:>3}  step {}  {:36}  {mark}",
            place + 1,
            experiment.step,
            experiment.title
        );
    }
}

/// Runs all experiments and prints which of them show what they must.
fn test(place: Place, experiments: &[Experiment]) -> Result<ExitCode> {
    let outputs = run_all(place, experiments)?;
    let mut failed = 0;
    for (experiment, outputs) in experiments.iter().zip(&outputs) {
        match experiment.judge(outputs) {
            Ok(()) => println!("  ✓ {}: {}", experiment.name, experiment.title),
            Err(error) => {
                failed += 1;
                println!(
                    "  ✗ {}: {}\n      {error:#}",
                    experiment.name, experiment.title
                );
            }
        }
    }
    println!("{} passed, {failed} failed", experiments.len() - failed);
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// This host, if the caller is root and the engine works on it; otherwise the
/// virtual machine.
fn place(in_vm: bool) -> Result<Place> {
    if in_vm || !geteuid().is_root() {
        return Ok(Place::Vm);
    }
    let tried = Command::new(workspace::bin().join("drydock"))
        .args(["run", "--rm", "--network", "none", "--pull", "never"])
        .args(["-m", "64m", "--cpus", "0.5"])
        .arg(workspace::rootfs("busybox"))
        .arg("true")
        .output();
    match tried {
        Ok(ran) if ran.status.success() => Ok(Place::Here),
        Ok(ran) => {
            eprint!("Not on this host: {}", String::from_utf8_lossy(&ran.stderr));
            Ok(Place::Vm)
        }
        // A handout has no engine.
        Err(_) => Ok(Place::Vm),
    }
}

/// Runs experiments and returns the outputs of each.
fn run_all(place: Place, experiments: &[Experiment]) -> Result<Vec<Outputs>> {
    let sessions: Vec<Session> = experiments.iter().map(session).collect();
    let plan = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let json = serde_json::to_vec(&sessions).context("write the experiments as JSON")?;
    fs::write(plan.path(), json).context("write the experiments")?;
    let mut outputs: Vec<Outputs> = vec![Vec::new(); experiments.len()];
    let mut take = |line: &str| match serde_json::from_str::<Output>(line) {
        Ok(output) => {
            let place = experiments.iter().position(|e| e.name == output.session);
            outputs[place.unwrap_or_default()].push(output.text);
        }
        Err(_) => eprintln!("{line}"),
    };
    match place {
        Place::Here => run_here(plan.path(), &mut take)?,
        Place::Vm => run_in_vm(plan.path(), &mut take)?,
    }
    Ok(outputs)
}

fn session(experiment: &Experiment) -> Session {
    let line = |run: &tour::Run| Line {
        text: run.command.clone(),
        kind: Kind::Plain,
    };
    Session {
        name: experiment.name.clone(),
        lines: experiment.runs.iter().map(line).collect(),
    }
}

/// Runs a plan in a process of its own: it moves into namespaces, whose mounts
/// end with it.
fn run_here(plan: &Path, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    let mut child = Command::new(std::env::current_exe().context("find this program")?)
        .arg("tour-run")
        .arg(plan)
        .arg("--programs")
        .arg(workspace::bin())
        .arg("--rootfs")
        .arg(workspace::rootfs("busybox"))
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run harness tour-run")?;
    let output = child.stdout.take().context("the output of tour-run")?;
    for line in BufReader::new(output).lines() {
        on_line(&line.context("read an output")?);
    }
    let status = child.wait().context("wait for harness tour-run")?;
    match status.success() {
        true => Ok(()),
        false => bail!("harness tour-run ended with {status}"),
    }
}

fn run_in_vm(plan: &Path, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    let inside = "/run/tour.json";
    let mut files = book::session::files();
    files.push((plan.to_owned(), PathBuf::from(inside)));
    let vm = Vm {
        files,
        command: ["harness", "tour-run", inside].map(str::to_owned).into(),
        time_limit: TIME_LIMIT,
        resume: true,
        ..Vm::default()
    };
    let result = vm.run(on_line)?;
    match result.status {
        0 => Ok(()),
        status => bail!("the run in the virtual machine ended with status {status}"),
    }
}

/// Runs sessions and prints their outputs, one line of JSON each.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    let text = fs::read(&args.plan).with_context(|| format!("read {}", args.plan.display()))?;
    let sessions: Vec<Session> =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", args.plan.display()))?;
    let _own = match (&args.programs, &args.rootfs) {
        (Some(programs), Some(rootfs)) => Some(own_host(programs, rootfs)?),
        _ => None,
    };
    fs::create_dir_all(PLACE).with_context(|| format!("mkdir {PLACE}"))?;
    std::env::set_current_dir(PLACE).with_context(|| format!("chdir {PLACE}"))?;
    for session in &sessions {
        let ran = shell::run(session, &mut |output| {
            let line = serde_json::to_string(&output).context("write an output as JSON")?;
            println!("{line}");
            Ok(())
        });
        if let Err(error) = ran {
            println!("{error:#}"); // the other sessions go on
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the places of the virtual machine, in a mount namespace of its own:
/// the programs, the root file system, its commands.
fn own_host(programs: &Path, rootfs: &Path) -> Result<OwnHost> {
    let own = OwnHost::enter()?;
    let none = None::<&str>;
    mount(
        Some("tmpfs"),
        "/srv",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mount(/srv, tmpfs)")?;
    mount(Some(programs), PROGRAMS, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("mount({PROGRAMS}, MS_BIND)"))?;
    let copied = Command::new("/bin/cp")
        .arg("-a")
        .args([rootfs, Path::new(ROOTFS)])
        .status();
    if !copied.context("run cp")?.success() {
        bail!("cp -a {} {ROOTFS} failed", rootfs.display());
    }
    fs::create_dir(TOOLS).with_context(|| format!("mkdir {TOOLS}"))?;
    let busybox = Path::new(ROOTFS).join("bin/busybox");
    for dir in ["bin", "sbin", "usr/bin", "usr/sbin"] {
        let dir = Path::new(ROOTFS).join(dir);
        if !dir.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("list {}", dir.display()))?;
            let link = Path::new(TOOLS).join(entry.file_name());
            // busybox goes by the name that it is called by.
            if entry.file_name() != "busybox" && !link.exists() {
                symlink(&busybox, &link).with_context(|| format!("symlink {}", link.display()))?;
            }
        }
    }
    Ok(own)
}

/// A reader's answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guess {
    /// The number of a choice.
    Made(usize),
    /// None: just run it.
    None,
}

/// Parses what was typed at a question; `Err` if it is no answer, and
/// `Ok(None)` if it ends the tour.
fn answer(typed: &str) -> std::result::Result<Option<Guess>, ()> {
    match typed.trim() {
        "" => Ok(Some(Guess::None)),
        "q" | "Q" => Ok(None),
        number => match number.parse() {
            Ok(number) if (1..=tour::CHOICES).contains(&number) => Ok(Some(Guess::Made(number))),
            _ => Err(()),
        },
    }
}

/// Prints the tour, and reads what is typed.
struct Teller {
    colour: bool,
}

impl Teller {
    fn paint(&self, ansi: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{ansi}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn say(&self, text: &str) {
        for line in wrap(text, WIDTH) {
            println!("{line}");
        }
    }

    fn welcome(&self, place: Place, left: usize) -> Result<()> {
        let machine = match place {
            Place::Here => format!("on this host, {}", kernel_release()),
            Place::Vm => format!(
                "in the virtual machine, {}",
                Vm::default().machine_description()?
            ),
        };
        let experiments = match left {
            1 => "1 short experiment, which runs".to_owned(),
            _ => format!("{left} short experiments, which run"),
        };
        self.say(&format!(
            "A first hour: {experiments} {machine}. Type the number of \
             your guess, or only Enter to see the answer. q ends, and ./just tour goes on there."
        ));
        Ok(())
    }

    fn ask(&self, number: usize, of: usize, experiment: &Experiment) -> Result<()> {
        let head = format!(
            "{number} of {of} · step {} · {}",
            experiment.step, experiment.title
        );
        println!("\n{}\n", self.paint("1", &head));
        self.say(&experiment.question);
        println!();
        for (place, choice) in experiment.choices.iter().enumerate() {
            println!("  {}  {choice}", place + 1);
        }
        Ok(())
    }

    /// Reads a guess; `None` ends the tour, as the end of the input does.
    fn guess(&mut self) -> Result<Option<Guess>> {
        loop {
            print!("\nYour guess: ");
            stdout().flush().context("write to standard output")?;
            let mut typed = String::new();
            let read = stdin()
                .lock()
                .read_line(&mut typed)
                .context("read a guess")?;
            if read == 0 {
                return Ok(None);
            }
            if !stdin().is_terminal() {
                println!("{}", typed.trim());
            }
            match answer(&typed) {
                Ok(guess) => return Ok(guess),
                Err(()) => print!("1, 2, 3, Enter or q."),
            }
        }
    }

    fn show(&self, experiment: &Experiment, outputs: &Outputs) -> Result<()> {
        println!();
        for (run, output) in experiment.runs.iter().zip(outputs) {
            println!("{}", self.paint("1", &format!("$ {}", run.command)));
            print!("{output}");
        }
        Ok(())
    }

    fn explain(&self, experiment: &Experiment, guess: Guess, outputs: &Outputs) -> Result<()> {
        println!();
        let choice = &experiment.choices[experiment.answer - 1];
        let answer = format!("{}: {choice}.", experiment.answer);
        let answer = match guess {
            Guess::Made(number) if number == experiment.answer => {
                self.paint("32", &format!("Yes, {answer}"))
            }
            Guess::Made(_) | Guess::None => self.paint("33", &answer),
        };
        println!("{answer}");
        self.say(&experiment.why);
        if let Err(error) = experiment.judge(outputs) {
            self.say(&format!(
                "This machine does not show it ({error:#}).{}",
                match workspace::is_handed_out() {
                    true => " Your step may not do it yet.",
                    false => " With --vm it does, or ./just doctor says why.",
                }
            ));
        }
        let (page, section) = experiment.continues();
        println!("Continues in book/src/{page}, at #{section} (./just book).");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_guess_or_the_end() {
        assert_eq!(answer("2\n"), Ok(Some(Guess::Made(2))));
        assert_eq!(answer("\n"), Ok(Some(Guess::None)));
        assert_eq!(answer(" q \n"), Ok(None));
        for typed in ["0", "4", "yes", "-1"] {
            assert_eq!(answer(typed), Err(()), "{typed}");
        }
    }
}

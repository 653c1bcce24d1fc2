//! What of grading needs no machine: who has handed in, the table, results that
//! outlast a run, and what is in the zip for Gradescope.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use check::outcome::{Outcome, Record};
use check::registry::Step;
use check::{sys, workspace};
use course::exercise;
use course::exercise::skeleton::Solutions;
use course::grade::autograder;
use course::grade::class::{Folder, Kept, Results, Row, csv, fingerprint};
use course::grade::jail::Jail;
use course::grade::marks::Marks;
use course::grade::place::Place;
use course::grade::submission::Submission;
use course::hostile::{self, Bait};
use nix::errno::Errno;

fn step() -> Result<Step> {
    Step::read(&workspace::checks(), "01")
}

fn records(step: &Step, outcome: Outcome) -> Vec<Record> {
    let record = |check: &str| Record {
        step: step.step.clone(),
        check: check.to_owned(),
        variant: None,
        outcome,
        message: "seen \u{1b}[2J".to_owned(),
        host: Vec::new(),
        said: Vec::new(),
        seed: 1,
        millis: 5,
    };
    let names = step.checks.iter().map(|check| check.name.as_str());
    names.map(record).collect()
}

#[test]
fn a_student_is_a_directory_or_a_zip() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("bob"))?;
    fs::create_dir(dir.path().join("Ann Lee v1.2"))?;
    fs::create_dir(dir.path().join(".git"))?;
    for file in ["zoe.zip", "Yan.ZIP", "notes.txt", ".zip"] {
        File::create(dir.path().join(file))?;
    }
    let folder = Folder::read(dir.path())?;
    let names: Vec<&str> = folder.entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["Ann Lee v1.2", "Yan", "bob", "zoe"]);
    assert_eq!(folder.others, ["notes.txt"]);
    Ok(())
}

#[test]
fn who_is_there_twice_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("ada"))?;
    File::create(dir.path().join("ada.zip"))?;
    let said = Folder::read(dir.path()).err().context("no error")?;
    let said = said.to_string();
    ensure!(said.starts_with("ada is there twice: "), "{said}");
    ensure!(said.contains("ada.zip"), "{said}");
    Ok(())
}

#[test]
fn a_folder_without_submissions_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    ensure!(Folder::read(dir.path()).is_err());
    ensure!(Folder::read(&dir.path().join("missing")).is_err());
    Ok(())
}

#[test]
fn the_table_can_be_read_back() -> Result<()> {
    let step = step()?;
    let full = Marks::of(&step, &records(&step, Outcome::Pass), None);
    let none = Marks::of(
        &step,
        &[],
        Some("it does not compile:\nerror: \"a\", b".into()),
    );
    let mut some = records(&step, Outcome::Pass);
    some[0].outcome = Outcome::Fail;
    some[1].outcome = Outcome::Unsupported;
    let some = Marks::of(&step, &some, None);
    let text = csv(
        &step,
        &[
            Row {
                name: "Lee, \"Ann\"",
                marks: Ok(&full),
            },
            Row {
                name: "=cmd|' /C calc'!A0",
                marks: Ok(&none),
            },
            Row {
                name: "bob",
                marks: Ok(&some),
            },
            Row {
                name: "eve",
                marks: Err("the VM's boot took more than 90 s"),
            },
        ],
    )?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers()?.clone();
    assert_eq!(head.len(), 4 + step.checks.len());
    assert_eq!(&head[4], step.checks[0].name);
    let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(&rows[0][0], "Lee, \"Ann\"");
    assert_eq!(&rows[0][1], "100");
    // No spreadsheet takes it for a formula.
    assert_eq!(&rows[1][0], "'=cmd|' /C calc'!A0");
    assert_eq!(&rows[1][3], "it does not compile: error: \"a\", b");
    assert_eq!(&rows[2][4], "0");
    assert_eq!(&rows[2][5], "");
    assert_eq!(&rows[2][6], step.checks[2].points.to_string());
    assert_eq!(rows[2][2].parse::<u32>()?, 100 - step.checks[1].points);
    assert_eq!((&rows[3][1], &rows[3][4]), ("", ""));
    Ok(())
}

#[test]
fn marks_are_kept_until_the_sources_change() -> Result<()> {
    let (step, dir) = (step()?, tempfile::tempdir()?);
    let results = Results::at(&dir.path().join("marks"))?;
    let mut submission = Submission::default();
    submission.files.insert("lib.rs".into(), "//! one\n".into());
    let tests = dir.path().join("step_01");
    fs::write(&tests, "one")?;
    let before = fingerprint(&step, &tests, &submission)?;
    let mut kept = Kept {
        name: "Ann Lee v1.2".into(),
        fingerprint: before.clone(),
        finished: false,
        marks: Marks::so_far(&step, &records(&step, Outcome::Pass)[..2]),
    };
    results.keep(&kept)?;
    ensure!(
        results.kept(&kept.name, &before).is_none(),
        "it was broken off"
    );
    kept.finished = true;
    kept.marks = Marks::of(&step, &records(&step, Outcome::Pass), None);
    results.keep(&kept)?;
    let again = results.kept(&kept.name, &before).context("not kept")?;
    assert_eq!(again.marks.points(), 100);
    ensure!(dir.path().join("marks/Ann Lee v1.2.txt").is_file());
    submission.files.insert("lib.rs".into(), "//! two\n".into());
    let after = fingerprint(&step, &tests, &submission)?;
    ensure!(results.kept(&kept.name, &after).is_none(), "other sources");
    let mut other = step.clone();
    other.checks[0].points += 1;
    ensure!(
        fingerprint(&other, &tests, &submission)? != after,
        "other points"
    );
    fs::write(&tests, "another")?;
    ensure!(
        fingerprint(&step, &tests, &submission)? != after,
        "other checks"
    );
    Ok(())
}

#[test]
fn a_line_tells_what_went_wrong() -> Result<()> {
    let step = step()?;
    let words = |marks: Marks| marks.summary();
    let of = |trouble: &str| words(Marks::of(&step, &[], Some(trouble.to_owned())));
    assert_eq!(
        words(Marks::of(&step, &records(&step, Outcome::Pass), None)),
        ""
    );
    assert_eq!(
        of("it does not compile:\nwarning: x\nlib.rs:1:2: error[E1]: y\nerror: could not"),
        "it does not compile: lib.rs:1:2: error[E1]: y"
    );
    assert_eq!(
        of("the compiler took more than 600 s"),
        "the compiler took more than 600 s"
    );
    let mut failed = records(&step, Outcome::Blocked);
    failed[2].outcome = Outcome::Fail;
    let said = words(Marks::of(&step, &failed, None));
    ensure!(said.contains(&step.checks[2].title), "{said}");
    let errors = words(Marks::of(&step, &records(&step, Outcome::Error), None));
    ensure!(errors.contains("could not be judged"), "{errors}");
    Ok(())
}

#[test]
fn what_a_program_prints_cannot_draw_on_the_terminal() -> Result<()> {
    let step = step()?;
    let marks = Marks::of(
        &step,
        &records(&step, Outcome::Fail),
        Some("\u{1b}]0;x".into()),
    );
    ensure!(
        !marks
            .format(Default::default(), "\u{1b}c")?
            .contains('\u{1b}')
    );
    Ok(())
}

#[test]
fn marks_for_people_begin_with_what_they_are_looked_at_for() -> Result<()> {
    let step = step()?;
    let first = |marks: Marks| -> Result<String> {
        let text = marks.format(Default::default(), "ada")?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    let full = Marks::of(&step, &records(&step, Outcome::Pass), None);
    assert_eq!(first(full)?, "Step 01 · ada · 100/100");
    let none = Marks::of(&step, &[], Some("it does not compile:\nerror: x".into()));
    assert_eq!(
        first(none)?,
        "Step 01 · ada · 0/100 · it does not compile: error: x"
    );
    Ok(())
}

#[test]
fn the_autograder_holds_what_grading_needs_and_no_solution() -> Result<()> {
    let dir = tempfile::tempdir()?;
    autograder::lay_out("05", Duration::from_secs(540), dir.path())?;
    for (script, mode) in [
        ("setup.sh", 0o755),
        ("run_autograder", 0o755),
        ("environment", 0o644),
    ] {
        let file = dir.path().join(script);
        let about = fs::metadata(&file).with_context(|| format!("stat {script}"))?;
        assert_eq!(about.permissions().mode() & 0o111, mode & 0o111, "{script}");
        let text = fs::read_to_string(&file)?;
        for left in ["STEP", "LIMIT", "RUST}", "OTHER_ROOTFS"] {
            ensure!(!text.contains(left), "{script} has {left} in it");
        }
        let checked = Command::new("bash").arg("-n").arg(&file).status()?;
        ensure!(checked.success(), "{script} is not a shell script");
    }
    let run = fs::read_to_string(dir.path().join("run_autograder"))?;
    ensure!(
        run.starts_with("#!"),
        "run_autograder needs its interpreter"
    );
    ensure!(
        run.contains("grade 05") && run.contains("--limit 540"),
        "{run}"
    );
    let ours = dir.path().join("drydock");
    for file in [
        "tools/harness",
        "vm/setup.sh",
        "vm/init",
        ".cargo/config.toml",
        "Cargo.lock",
    ] {
        ensure!(ours.join(file).is_file(), "{file} is missing");
    }
    for file in ["book", "harness/wrong", "steps/06-net", "README.md"] {
        ensure!(!ours.join(file).exists(), "{file} is there");
    }
    let places = exercise::skeleton::places(&exercise::skeleton::step_dir("05")?)?;
    ensure!(!places.is_empty());
    for place in places {
        let theirs = fs::read_to_string(ours.join("steps/05-user").join(&place.file))?;
        ensure!(
            !theirs.contains(place.solution.trim()),
            "{}",
            place.exercise
        );
    }
    Ok(())
}

#[test]
fn a_zip_is_a_submission_wherever_its_crate_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("zoe.zip");
    let mut zip = zip::ZipWriter::new(File::create(&file)?);
    let options = zip::write::SimpleFileOptions::default();
    for (name, text) in [
        ("hand in/01-uts/src/lib.rs", "//! mine\n"),
        ("hand in/01-uts/build.rs", "fn main() {}\n"),
        ("../../outside/src/lib.rs", "//! not mine\n"),
    ] {
        zip.start_file(name, options)?;
        zip.write_all(text.as_bytes())?;
    }
    zip.finish()?;
    let submission = Submission::read(&file, "01")?;
    let files: Vec<&Path> = submission.files.keys().map(AsRef::as_ref).collect();
    assert_eq!(files, [Path::new("lib.rs")]);
    Ok(())
}

/// What `harness grade` says where these calls are refused.
fn grade_without(calls: &[libc::c_long]) -> Result<(Option<i32>, String)> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command
        .args(["grade", "01", "--submission"])
        .arg(dir.path());
    sys::confine::forbid_child(&mut command, calls, Errno::EPERM);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said))
}

#[test]
fn nothing_is_compiled_where_the_compiler_could_read_all() -> Result<()> {
    let neither = [libc::SYS_landlock_create_ruleset, libc::SYS_unshare];
    let (status, said) = grade_without(&neither)?;
    assert_eq!(status, Some(125), "{said}");
    for words in [
        "no submission is compiled",
        "\n  Landlock: ",
        "\n  namespaces: ",
        "user.max_user_namespaces",
    ] {
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[test]
fn walls_hold_with_landlock_and_with_namespaces() -> Result<()> {
    Jail::Landlock.holds()?;
    Jail::Namespaces.holds()
}

/// The hostile submissions that want to read a file while they are compiled.
const READERS: [&str; 8] = [
    "included-by-a-macro",
    "library-of-a-file",
    "linker-embeds-our-solution",
    "linker-prints-a-file",
    "linker-reads-a-source",
    "linker-reads-another-student",
    "linker-script-in-a-module",
    "path-by-a-macro",
];

/// The submissions after which a file of others is in the program, where nothing
/// holds them.
const WORK_ELSEWHERE: [&str; 2] = ["linker-reads-another-student", "linker-script-in-a-module"];

#[test]
fn no_file_of_others_is_read_behind_either_wall() -> Result<()> {
    let step = step()?;
    let kit = Place::prepare("01")?;
    let dir = tempfile::tempdir()?;
    let place = Place::at(&dir.path().join("a place, of its own"))?;
    let limit = Duration::from_secs(300);
    let hostile = hostile::all()?;
    let readers = hostile
        .iter()
        .filter(|h| READERS.contains(&h.name.as_str()));
    let readers: Vec<_> = readers.collect();
    assert_eq!(readers.len(), READERS.len());
    for jail in [Jail::Landlock, Jail::Namespaces] {
        for reader in &readers {
            let dir = dir.path().join(format!("{jail:?}"));
            let bait = Bait::put(&dir.join("bait"), "01", place.build_dir())?;
            let submission = Submission::read(&reader.lay_out(&dir, &bait)?, "01")?;
            let ended = place.build(&kit, jail, &submission, limit)?;
            let said = match (ended.status.success(), ended.output) {
                (false, output) => output,
                (true, _) => {
                    let read = place.read_own_only(&kit, &submission);
                    format!("{:#}", read.err().context("nothing was found")?)
                }
            };
            let marks = Marks::of(&step, &[], Some(said.clone()));
            bait.judge(&marks)?;
            ensure!(
                said.contains(&reader.says),
                "{jail:?} {}: {said}",
                reader.name
            );
            if !WORK_ELSEWHERE.contains(&reader.name.as_str()) {
                continue;
            }
            // Without walls it gets what it is after, or this would prove nothing.
            for mut command in kit.commands(&place.build_dir().join("out")) {
                command.current_dir(place.build_dir()).output()?;
            }
            ensure!(bait.judge(&marks).is_err(), "{} is harmless", reader.name);
        }
        let honest = dir.path().join("01-uts");
        exercise::skeleton::copy("01", &honest, Solutions::Stay)?;
        let submission = Submission::read(&honest, "01")?;
        let ended = place.build(&kit, jail, &submission, limit)?;
        ensure!(ended.status.success(), "{jail:?}: {}", ended.output);
        place.read_own_only(&kit, &submission)?;
        let program = Command::new(place.program(&kit, "01")?)
            .arg("--version")
            .output()?;
        ensure!(program.status.success());
    }
    Ok(())
}

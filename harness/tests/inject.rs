//! Programs are stopped, killed and failed at their calls: ptrace(2). A shell
//! stands for a launcher, so neither root nor a container is needed.

use std::path::Path;

use check::step::Step;
use check::trace::window::Point;
use nix::errno::Errno;

/// A shell that makes a file and then reads it in a child of its own.
fn shell(dir: &Path) -> Step {
    let script = "set -e; echo word >note; (read line <note; echo $line; :); echo end";
    Step::new("/bin/sh".into()).args(["-c", &format!("cd {} && {script}", dir.display())])
}

#[test]
fn it_is_stopped_before_and_after_a_call_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let stopped = shell(dir.path())
        .stop(Point::before("openat").about("note"))
        .unwrap();
    assert!(!note.exists());
    let stopped = stopped
        .until(Point::after("openat").about("note").by("launcher.1"))
        .unwrap();
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "word\n");
    let ran = stopped.go_on().unwrap();
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "word\nend\n"));
}

#[test]
fn a_call_fails_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = shell(dir.path())
        .stop(Point::before("openat").about("note"))
        .unwrap();
    let ran = stopped.fail(Errno::ENOSPC).unwrap();
    assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
    assert!(!dir.path().join("note").exists());
}

#[test]
fn it_is_killed_at_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = shell(dir.path())
        .stop(Point::after("openat").about("note"))
        .unwrap();
    assert_eq!(stopped.kill().unwrap().status, 128 + 9);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("note")).unwrap(),
        ""
    );
}

#[test]
fn a_point_that_is_not_reached_says_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = shell(dir.path()).stop(Point::before("mount").about("/nowhere"));
    let error = stopped.err().unwrap().to_string();
    assert!(
        error.contains("mount of \"/nowhere\" by launcher"),
        "{error}"
    );
    assert!(error.contains("status 0"), "{error}");
}

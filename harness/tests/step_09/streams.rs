//! The command's streams, and a terminal of its own.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use check::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::{Engine, Screen, ended};

#[test]
fn a_terminal_of_the_containers_own() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut screen = Screen::start(&engine.run(&["-t"]).args([engine.image(), "sh"]))?;
        screen.press("tty; stty size; echo $((20+3))x\n")?;
        screen.until("/dev/pts/0")?;
        screen.until("33 101")?;
        screen.until("23x")?;
        expect(
            !screen.is_cooked()?,
            "the caller's terminal to be raw meanwhile",
            "it still turning keys into signals: Ctrl-C would reach the launcher",
        )?;
        screen.resize(44, 55)?;
        screen.press("sleep 0.3; stty size; exit 7\n")?;
        screen.until("44 55")?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "the caller's terminal to be as before in the end",
            "it still raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status", status, Some(7))
    });
}

#[test]
fn keys_are_for_the_job_inside() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut screen = Screen::start(&engine.run(&["-t"]).args([engine.image(), "sh"]))?;
        screen.press("echo $((20+3))x; sleep 1000\n")?;
        screen.until("23x")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        screen.press("\x03")?;
        screen.press("echo status $?x\n")?;
        screen.until("status 130x")?;
        screen.press("echo $((30+3))x; sleep 1000\n")?;
        screen.until("33x")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        screen.press("\x1a")?;
        screen.until("Stopped")?;
        screen.press("kill -9 %1; exit 0\n")?;
        screen.press("exit 5\n")?;
        let (status, _) = screen.end()?;
        expect(
            matches!(status, Some(0 | 5)),
            "the shell to go on after Ctrl-C and Ctrl-Z",
            format!("status {status:?}"),
        )
    });
}

#[test]
fn the_terminal_comes_back_whatever_happens() {
    check(|c| {
        let engine = Engine::new(c)?;
        let screen = Screen::start(&engine.run(&["-t"]).args([engine.image(), "no-such"]))?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "a terminal as before after a failure",
            "it raw",
        )?;
        let (status, text) = screen.end()?;
        expect_eq("the status", status, Some(127))?;
        expect(
            text.contains("no-such") && text.ends_with("\r\n"),
            "one line that names the command",
            format!("{text:?}"),
        )?;

        let name = c.word("one");
        let mut screen = Screen::start(
            &engine
                .run(&["-t", "--name", &name])
                .args([engine.image(), "sh"]),
        )?;
        screen.press("echo $((20+3))x\n")?;
        screen.until("23x")?;
        engine.tool(["rm", "-f", &name]).run()?.success()?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "a terminal as before after SIGKILL",
            "it raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status", status, Some(137))
    });
}

#[test]
fn the_callers_terminal_is_out_of_reach() {
    check(|c| {
        let engine = Engine::new(c)?;
        // Without -t. On a terminal of the caller's, which does not concern
        // the container's.
        let script = "tty; for n in 0 1 2; do test -t $n && echo leak$((n+40)); done; \
                      echo x > /dev/tty && echo leak$((40+3)); echo done$((20+3))";
        let screen = Screen::start(&engine.run(&[]).args([engine.image(), "sh", "-c", script]))?;
        let (status, text) = screen.end()?;
        expect_eq("the status", status, Some(0))?;
        expect(
            text.contains("done23"),
            "the output on the terminal",
            format!("{text:?}"),
        )?;
        expect(
            !text.contains("leak4"),
            "no stream, and no /dev/tty, that is the caller's terminal",
            format!("{text:?}: TIOCSTI would put words into the caller's shell"),
        )?;
        a_file_to_read_is_only_read(c, &engine)?;
        a_socket_can_be_opened(&engine)
    });
}

/// The container has a stream by a pipe: root inside could open a file anew by
/// its descriptor.
fn a_file_to_read_is_only_read(c: &Check, engine: &Engine<'_>) -> Result<()> {
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = c.dir().join(c.word(name));
        fs::write(&path, text).context("write a file")?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("chmod")?;
        Ok(path)
    };
    let (input, log) = (file("input", "to be read\n")?, file("log", "earlier\n")?);
    let script = "cat; for n in 0 1; do chmod 666 /proc/self/fd/$n; done; \
                  echo written > /proc/self/fd/0; : > /proc/self/fd/1; echo later";
    let appended = File::options().append(true).open(&log).context("open")?;
    let run = engine.run(&[]).args([engine.image(), "sh", "-c", script]);
    let status = run
        .command()
        .stdin(File::open(&input).context("open")?)
        .stdout(appended)
        .stderr(Stdio::null())
        .status()
        .context("run")?;
    expect_eq("the status of the container", status.code(), Some(0))?;
    for (path, text) in [
        (&input, "to be read\n"),
        (&log, "earlier\nto be read\nlater\n"),
    ] {
        let mode = fs::metadata(path).context("stat")?.mode() & 0o777;
        expect(
            mode == 0o600 && fs::read_to_string(path).context("read")? == text,
            "the container to read its input and to write its output, and nothing else",
            format!("a file of the caller's with mode {mode:o}, opened anew by /proc/self/fd"),
        )?;
    }
    Ok(())
}

/// As a service's output to the journal is one.
fn a_socket_can_be_opened(engine: &Engine<'_>) -> Result<()> {
    let (mut here, there) = UnixStream::pair().context("socketpair")?;
    let script = "echo out > /dev/stdout";
    let run = engine.run(&[]).args([engine.image(), "sh", "-c", script]);
    let mut command = run.command();
    command.stdin(Stdio::null()).stdout(OwnedFd::from(there));
    let status = command.status().context("run")?;
    // Closes the other end.
    drop(command);
    let mut text = String::new();
    here.read_to_string(&mut text).context("read")?;
    expect(
        status.success() && text == "out\n",
        "a command to open /dev/stdout where it is a socket of the caller's",
        format!("{status}, {text:?}"),
    )
}

#[test]
fn input_is_streamed_or_there_is_none() {
    check(|c| {
        let engine = Engine::new(c)?;
        let text = format!("{}\n", c.word("text").repeat(10_000));
        let ran = engine
            .run(&[])
            .args([engine.image(), "cat"])
            .stdin(text.clone())
            .run()?
            .success()?;
        expect(ran.stdout == text, "all of the input", "something else")?;
        let quiet = engine
            .tool(["run", "--rm", "--network", "none", engine.image(), "cat"])
            .stdin(text)
            .run()?
            .success()?;
        expect(
            quiet.stdout.is_empty(),
            "nothing to be read without -i",
            "the caller's input: the command has its standard input from the launcher's",
        )?;
        // A terminal that is hung up, or an input that ends, ends no container.
        let ran = engine
            .run(&[])
            .args([engine.image(), "sh", "-c", "cat; sleep 0.2; echo on"])
            .run()?
            .success()?;
        expect_eq(
            "what comes after the end of the input",
            ran.stdout.trim(),
            "on",
        )?;
        engine
            .run(&["-t"])
            .args([engine.image(), "true"])
            .run()?
            .expect_error(125, &["terminal"])?;
        Ok(())
    });
}

#[test]
fn signals_reach_the_command() {
    check(|c| {
        let engine = Engine::new(c)?;
        let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.1; done";
        for init in [&[][..], &["--init"]] {
            let step = engine.run(init).args([engine.image(), "sh", "-c", script]);
            let mut child = step
                .command()
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("start")?;
            let mut line = String::new();
            let stdout = child.stdout.take().context("no standard output")?;
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
                .context("read")?;
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).context("kill")?;
            let Some(status) = ended(&mut child)? else {
                child.kill().context("kill")?;
                child.wait().context("wait")?;
                return Err(failed("an end after SIGTERM", "it still running"));
            };
            expect_eq("the status that the handler gives", status.code(), Some(33))?;
        }
        Ok(())
    });
}

#[test]
fn another_user_opens_dev_stdout() {
    check(|c| {
        let engine = Engine::new(c)?;
        let script = "echo out > /dev/stdout && echo err > /dev/stderr";
        for options in [
            &["-u", "1000"][..],
            &["--uid-map", "0:0:2000", "-u", "1000"],
        ] {
            let step = || {
                engine
                    .run(options)
                    .args([engine.image(), "sh", "-c", script])
            };
            let ran = step().run()?;
            // Root's layers in a user namespace: not on every kernel.
            if options.len() > 2 && ran.status == 125 && ran.stderr.contains("before 6.8") {
                continue;
            }
            expect(
                ran.status == 0 && ran.stdout == "out\n" && ran.stderr == "err\n",
                "another user to open /dev/stdout and /dev/stderr, where they are pipes",
                format!("{ran:?}: the pipes belong to the caller, and have mode 600"),
            )?;
            let path = c.dir().join(c.word("log"));
            let file = std::fs::File::create(&path).context("make a file")?;
            let copy = file.try_clone().context("dup")?;
            let before = file.metadata().context("fstat")?;
            let status = step()
                .command()
                .stdin(Stdio::null())
                .stdout(file)
                .stderr(copy)
                .status()
                .context("run")?;
            let text = std::fs::read_to_string(&path).context("read")?;
            expect(
                status.success() && text == "out\nerr\n",
                "another user to open them where they are a file, and the order to be kept",
                format!("{status}, {text:?}"),
            )?;
            let after = std::fs::metadata(&path).context("stat")?;
            expect_eq(
                "owner and mode of the host's file",
                (after.uid(), after.mode()),
                (before.uid(), before.mode()),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_stop_signal_may_be_real_time() {
    check(|c| {
        let engine = Engine::new(c)?;
        let script = "trap 'exit 9' 37; echo ready; while :; do sleep 0.05; done";
        for (options, signal) in [
            (&[][..], "SIGRTMIN+3"),
            (&["--init"], "37"),
            (&[], "rtmax-27"),
        ] {
            let name = c.word("name");
            let options = [&["--name", &name, "--stop-signal", signal], options].concat();
            let step = engine
                .run(&options)
                .args([engine.image(), "sh", "-c", script]);
            let mut child = step
                .command()
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("start")?;
            let mut line = String::new();
            let stdout = child.stdout.take().context("no standard output")?;
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
                .context("read")?;
            let stopped = engine.tool(["stop", &name]).run();
            let status = child.wait().context("wait")?.code();
            expect_eq(
                &format!("the status after stop, with --stop-signal {signal}"),
                status,
                Some(9),
            )?;
            stopped?.success()?;
        }
        engine
            .run(&["--stop-signal", "RTMIN+31"])
            .args([engine.image(), "true"])
            .run()?
            .expect_error(125, &["--stop-signal", "not a signal"])?;
        Ok(())
    });
}

/// The end of a pipe that nobody reads.
fn unread() -> anyhow::Result<std::fs::File> {
    let (reader, writer) = std::io::pipe().context("pipe")?;
    drop(reader);
    let writer: std::os::fd::OwnedFd = writer.into();
    Ok(writer.into())
}

#[test]
fn nobody_need_read_what_it_says() {
    check(|c| {
        let engine = Engine::new(c)?;
        // With --verbose each part of the launch and of the cleaning-up is a line.
        let step = engine
            .tool(["--verbose"])
            .args(["run", "--rm", "--network", "none"])
            .args([engine.image(), "sh", "-c", "exit 9"]);
        for (what, stderr) in [
            ("a pipe that nobody reads", unread()?),
            ("a full disk", full()?),
        ] {
            let status = step
                .command()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr)
                .status()
                .context("run")?;
            expect_eq(
                &format!("the status of a command, with {what} as standard error"),
                status.code(),
                Some(9),
            )?;
        }
        let kept = c.word("kept");
        engine
            .tool(["run", "--name", &kept, "--network", "none"])
            .args([engine.image(), "true"])
            .run()?
            .success()?;
        for (what, stdout, wanted) in [
            ("nobody reads", unread()?, (Some(141), "")),
            ("there is no room", full()?, (Some(125), "an error")),
        ] {
            let output = engine
                .tool(["ps", "-a"])
                .command()
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .and_then(std::process::Child::wait_with_output)
                .context("run")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let silent = said.is_empty() == wanted.1.is_empty();
            expect(
                output.status.code() == wanted.0 && silent && !said.contains("panicked"),
                format!("ps -a to end with status {:?} if {what}", wanted.0),
                format!("{:?}, {said:?}", output.status.code()),
            )?;
        }
        engine.tool(["rm", &kept]).run()?.success()?;
        let left = engine.tool(["ps", "-aq"]).run()?.success()?.stdout;
        expect_eq("what is left of them", left.trim(), "")
    });
}

fn full() -> anyhow::Result<std::fs::File> {
    std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .context("open /dev/full")
}

//! What a configuration may ask for besides the ordinary.

use std::fs;

use check::prelude::*;
use serde_json::json;

use crate::screen::Screen;
use crate::{LOOP, Runtime};

#[test]
fn a_terminal_without_a_console_socket_is_the_callers() {
    check(|c| {
        let runtime = Runtime::new(c)?;
        let bundle = runtime.bundle.display().to_string();
        let terminal = |script: &str| {
            runtime.configure(script, |config| {
                config["process"]["terminal"] = json!(true);
                // The window's own size counts.
                config["process"]["consoleSize"] = json!({"height": 5, "width": 6});
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    mounts.push(json!({"destination": "/dev/pts", "type": "devpts",
                        "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
                }
            })
        };
        terminal("tty; stty size; echo ready; read x; stty size; echo again; read x; exit 7")?;
        // Nobody would relay for a runtime that ends.
        for words in [
            ["create", "--bundle", &bundle, "one"].as_slice(),
            &["run", "--detach", "--bundle", &bundle, "one"],
        ] {
            runtime
                .call(words)
                .run()?
                .expect_error(1, &["console", "socket"])?;
            runtime.expect_nothing_left()?;
        }
        let mut screen = Screen::start(&runtime.call(&["run", "--bundle", &bundle, "one"]))?;
        screen.until("/dev/pts/0")?;
        screen.until("33 101")?;
        screen.until("ready")?;
        expect(
            !screen.is_cooked()?,
            "the caller's terminal to be raw meanwhile",
            "it still turning keys into signals",
        )?;
        screen.resize(44, 55)?;
        let pid = runtime.state("one")?["pid"].as_i64().unwrap_or(0);
        let resized = wait_for(|| {
            let terminal = fs::File::open(format!("/proc/{pid}/root/dev/pts/0")).ok()?;
            let size = rustix::termios::tcgetwinsize(&terminal).ok()?;
            (size.ws_row == 44).then_some(())
        });
        expect(
            resized.is_some(),
            "the container's terminal to follow the window's size",
            "it keeps the size from the start",
        )?;
        screen.press("x\n")?;
        screen.until("44 55")?;
        screen.until("again")?;
        // A further process has a terminal of its own.
        let mut second =
            Screen::start(&runtime.call(&["exec", "--tty", "one", "/bin/sh", "-c", "tty; read x; exit 9"]))?;
        second.until("/dev/pts/1")?;
        second.press("x\n")?;
        let (status, _) = second.end()?;
        expect_eq("the status of exec", status, Some(9))?;
        screen.press("x\n")?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "the caller's terminal to be as before in the end",
            "it still raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status of run", status, Some(7))?;
        runtime.expect_nothing_left()?;
        // Whatever the way out.
        terminal("echo ready; exec sleep 1000")?;
        let mut screen = Screen::start(&runtime.call(&["run", "--bundle", &bundle, "one"]))?;
        screen.until("ready")?;
        runtime
            .call(&["kill", "one", "KILL"])
            .run()?
            .success()?;
        let cooked = wait_for(|| screen.is_cooked().ok().filter(|cooked| *cooked));
        expect(
            cooked.is_some(),
            "the caller's terminal to be as before after SIGKILL",
            "it still raw",
        )?;
        let (status, _) = screen.end()?;
        expect_eq("the status of run", status, Some(137))?;
        let screen = Screen::start(&runtime.call(&["exec", "--tty", "one", "true"]))?;
        let (status, _) = screen.end()?;
        expect_eq("the status of exec in no container", status, Some(255))?;
        runtime.expect_nothing_left()?;
        let _ = LOOP;
        Ok(())
    });
}

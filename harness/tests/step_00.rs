//! Checks of step 00: launching a process.

use harness::prelude::*;
use serial_test::serial;

#[test]
#[serial]
fn the_commands_status_is_passed_on() {
    check(|c| {
        for status in [0, 1 + c.number(123) as u8, 255] {
            let text = status.to_string();
            c.step()
                .args(["probe", "exit", &text])
                .run()?
                .expect_status(i32::from(status))?;
        }
        Ok(())
    });
}

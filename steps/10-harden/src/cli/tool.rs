//! `step-10 seccomp`: profiles and the programs made of them.

use std::ffi::OsString;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use kit::sys;
use nix::sys::signal::Signal;
use process::Exit;

use crate::capabilities::{CapabilityArg, names, wanted};
use crate::isolation::read;
use crate::seccomp::compile::compile;
use crate::seccomp::disassemble::disassemble;
use crate::seccomp::explain::{argument, explain, summary};
use crate::seccomp::profile::{KernelVersion, Profile};
use crate::seccomp::record;
use crate::seccomp::resolve::Situation;

/// What `step-10` can do besides launching.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Look at profiles, and at the filters made of them
    #[command(subcommand)]
    Seccomp(SeccompTool),
}

/// The commands of `step-10 seccomp`.
#[derive(Subcommand, Clone, Debug)]
pub enum SeccompTool {
    /// Compile a profile: write the program to a file, or only say its size
    Compile {
        /// Of which profile.
        #[command(flatten)]
        which: Which,
        /// Write the program here, eight bytes an instruction, as the kernel
        /// takes it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the program, an instruction a line
    Show {
        /// Of which profile.
        #[command(flatten)]
        which: Which,
    },
    /// Say what happens to a system call, and why
    Explain {
        /// Of which profile.
        #[command(flatten)]
        which: Which,
        /// The call
        call: String,
        /// Its arguments: numbers, or names such as CLONE_NEWUSER, joined by |
        #[arg(allow_negative_numbers = true)]
        arguments: Vec<String>,
    },
    /// Run a command and print a profile of the calls that it has made
    Record {
        /// Write the profile to a file, not to standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The command, and its arguments
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

/// Which profile, and for which container.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The profile [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// A capability that the container has besides the usual ones, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<CapabilityArg>,
    /// A capability that it does not have, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<CapabilityArg>,
    /// Another kernel than this one: 4.4
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<KernelVersion>,
}

impl Which {
    fn profile(&self) -> Result<Profile> {
        let Some(file) = &self.profile else {
            return Profile::built_in();
        };
        read(file)
            .and_then(|text| text.parse())
            .with_context(|| format!("the profile {}", file.display()))
    }

    fn situation(&self) -> Result<Situation> {
        let capabilities = wanted(&self.cap_add, &self.cap_drop, user::caps::of_kernel()?);
        let here = Situation::here(capabilities)?;
        Ok(Situation {
            kernel: self.kernel.unwrap_or(here.kernel),
            ..here
        })
    }
}

/// Runs a command.
pub fn run(tool: Tool) -> Result<Exit> {
    let Tool::Seccomp(tool) = tool;
    // SIGPIPE ends this program quietly when a reader such as `head` closes the
    // pipe.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let text = match tool {
        SeccompTool::Compile { which, output } => compiled(&which, output)?,
        SeccompTool::Show { which } => {
            disassemble(&compile(&which.profile()?.resolve(&which.situation()?)?)?)?
        }
        SeccompTool::Explain {
            which,
            call,
            arguments,
        } => {
            ensure!(arguments.len() <= 6, "a call has at most six arguments");
            let arguments: Vec<u64> = arguments
                .iter()
                .map(|text| argument(text))
                .collect::<Result<_>>()?;
            explain(&which.profile()?, &which.situation()?, &call, &arguments)?
        }
        SeccompTool::Record { output, command } => return recorded(output, &command),
    };
    print(&text)?;
    Ok(Exit::Code(0))
}

fn print(text: &str) -> Result<()> {
    stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

fn compiled(which: &Which, output: Option<PathBuf>) -> Result<String> {
    let (profile, situation) = (which.profile()?, which.situation()?);
    let start = Instant::now();
    let filter = profile.resolve(&situation)?;
    let program = compile(&filter)?;
    let took = start.elapsed();
    let mut text = summary(&filter);
    for note in &filter.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!(
        "for a container with {}\n",
        names(situation.capabilities)
    ));
    text.push_str(&format!("{} instructions, of 4096\n", program.len()));
    kit::say!("compiled in {took:?}");
    if let Some(output) = output {
        let mut bytes = Vec::new();
        for one in &program {
            bytes.extend(one.code.to_le_bytes());
            bytes.extend([one.jt, one.jf]);
            bytes.extend(one.k.to_le_bytes());
        }
        std::fs::write(&output, bytes).with_context(|| format!("write {}", output.display()))?;
    }
    Ok(text)
}

fn recorded(output: Option<PathBuf>, command: &[OsString]) -> Result<Exit> {
    let recording = record::record(command)?;
    let text = serde_json::to_string_pretty(&recording.profile).context("write the profile")?;
    match output {
        Some(file) => {
            std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        None => print(&format!("{text}\n"))?,
    }
    Ok(recording.exit)
}

//! `login` and `logout`.

use std::io::{BufRead, IsTerminal, Read, Write, stdin, stdout};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use process::Exit;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::credentials::{self, Login};
use crate::http::client::Client;
use crate::reference::Reference;
use crate::settings::Registries;

/// The commands about who we are.
#[derive(Subcommand)]
pub enum Tool {
    /// Log in to a registry
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
}

/// The options of `login`.
#[derive(Args)]
pub struct LoginArgs {
    /// Username
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password: others see it while this runs
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP, or TLS without certificates, with this registry.
    /// Repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Registry [default: the configured one]
    #[arg(value_name = "HOST[:PORT]")]
    server: Option<String>,
}

/// The options of `logout`.
#[derive(Args)]
pub struct LogoutArgs {
    /// Registry [default: the configured one]
    #[arg(value_name = "HOST[:PORT]")]
    server: Option<String>,
}

/// The longest name or password, in bytes.
const LONGEST: u64 = 64 << 10;

/// Runs one of the commands.
pub fn run(tool: Tool) -> Result<Exit> {
    match tool {
        Tool::Login(args) => login(args),
        Tool::Logout(args) => logout(args),
    }?;
    Ok(Exit::Code(0))
}

fn login(args: LoginArgs) -> Result<()> {
    let registries = Registries::read()?;
    let host = host(&registries, args.server)?;
    if args.password.is_some() {
        kit::errln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let user = match args.username {
        Some(user) => user,
        None => ask("Username: ", Echo::On)?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => password,
        (None, true) => {
            let mut password = String::new();
            stdin()
                .take(LONGEST)
                .read_to_string(&mut password)
                .context("read the password from standard input")?;
            password.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => ask("Password: ", Echo::Off)?,
    };
    ensure!(
        !user.is_empty() && !password.is_empty(),
        "a name and a password are needed"
    );
    ensure!(!user.contains(':'), "a name has no colon");
    let insecure = registries.about(&host).insecure || args.insecure_registry.contains(&host);
    let login = Login::Password {
        user: user.clone(),
        password: password.clone(),
    };
    let client = Client::connect(&host, insecure, Some(login), registries.patience())?;
    client
        .check_login()
        .with_context(|| format!("login attempt to {host} failed"))?;
    if let Some(file) = credentials::keep(&host, &user, &password)? {
        kit::errln!(
            "WARNING! Your password will be stored unencrypted in {}.\nConfigure a credential \
             helper to remove this warning.\n",
            file.display()
        );
    }
    kit::outln!("Login Succeeded")?;
    Ok(())
}

fn logout(args: LogoutArgs) -> Result<()> {
    let host = host(&Registries::read()?, args.server)?;
    match credentials::forget(&host)? {
        true => kit::outln!("Removing login credentials for {host}")?,
        false => kit::outln!("Not logged in to {host}")?,
    }
    Ok(())
}

/// The registry that is meant. Some people write a URL.
fn host(registries: &Registries, server: Option<String>) -> Result<String> {
    let server = match server.or_else(|| registries.default.clone()) {
        Some(server) => server,
        None => bail!(
            "no registry is named, and none is configured: write its HOST[:PORT], or set \
             DRYDOCK_REGISTRY, or default in {}",
            Registries::paths_in_words()
        ),
    };
    let host = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default().to_owned();
    let reference: Result<Reference> = format!("{host}/x").parse();
    let is_host = reference.is_ok_and(|reference| reference.host.as_deref() == Some(&*host));
    ensure!(is_host, "{server:?} is not the HOST[:PORT] of a registry");
    Ok(host)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// Asks on the terminal.
fn ask(question: &str, echo: Echo) -> Result<String> {
    ensure!(
        stdin().is_terminal(),
        "cannot perform an interactive login from a non TTY device: use --password-stdin"
    );
    let mut out = stdout().lock();
    write!(out, "{question}")
        .and_then(|()| out.flush())
        .context("write")?;
    let silent = match echo {
        Echo::Off => Some(Silent::enter()?),
        Echo::On => None,
    };
    let mut answer = String::new();
    let read = stdin().lock().take(LONGEST).read_line(&mut answer);
    drop(silent);
    if echo == Echo::Off {
        writeln!(out).context("write")?;
    }
    read.context("read the answer")?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal shows nothing that is typed, as long as this lives.
struct Silent(Termios);

impl Silent {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("tcgetattr")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).context("tcsetattr")?;
        Ok(Silent(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(stdin(), OptionalActions::Flush, &self.0) {
            kit::warn!("the terminal stays silent: tcsetattr: {errno}; type stty echo");
        }
    }
}

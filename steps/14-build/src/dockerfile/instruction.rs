//! What instructions say. All texts are as they stand in the Dockerfile, with
//! quotes and variables, unless a field says otherwise: what a variable means is
//! known only when the instruction's turn comes.

use std::collections::BTreeMap;
use std::ops::Range;

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# escape=`: a backslash or a backtick.
    pub escape: char,
    /// What nothing is built of.
    pub remarks: Remarks,
    /// The `ARG`s before the first `FROM`.
    pub args: Vec<Instruction>,
    /// The stages, in the order of the file; at least one.
    pub stages: Vec<Stage>,
}

/// What a Dockerfile says to its readers only, and to the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// `# check=`.
    pub check: Option<String>,
    /// The last lines of instructions that are continued on an empty line.
    pub empty: Vec<usize>,
    /// The comment on the line before an instruction, by the instruction's first
    /// line.
    pub comments: BTreeMap<usize, String>,
}

/// A stage: from one `FROM` to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line of the `FROM`.
    pub lines: Range<usize>,
    /// `FROM …` on one line.
    pub text: String,
    /// An image, an earlier stage, or `scratch`.
    pub from: String,
    /// `--platform`.
    pub platform: Option<String>,
    /// `AS NAME`, in small letters.
    pub name: Option<String>,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its lines in the file, from 1, the last one excluded. An `ONBUILD` of a
    /// base image has none.
    pub lines: Range<usize>,
    /// The instruction on one line: `RUN make  all`.
    pub text: String,
    /// What it says.
    pub what: What,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `ADD`.
    Add(Copy),
    /// `ARG NAME[=DEFAULT]…`.
    Arg(Vec<(String, Option<String>)>),
    /// `CMD`.
    Cmd(Words),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(Words),
    /// `ENV NAME=VALUE…`. Names may have variables in them, too.
    Env(Vec<(String, String)>),
    /// `EXPOSE PORT[/PROTOCOL]…`.
    Expose(Vec<String>),
    /// `HEALTHCHECK`; `None` for `HEALTHCHECK NONE`.
    Healthcheck(Option<Health>),
    /// `LABEL NAME=VALUE…`.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the text of an instruction that is valid by itself.
    Onbuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`. Not expanded.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    Stopsignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// A list in JSON. Not expanded.
    Exec(Vec<String>),
    /// A line for the shell. Not expanded: the shell does that.
    Shell(String),
}

/// `HEALTHCHECK [OPTIONS] CMD …`. Not expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The command.
    pub command: Words,
    /// `--interval`, `--timeout`, `--start-period`, `--start-interval`, in
    /// nanoseconds; 0 for what is not given.
    pub times: [u64; 4],
    /// `--retries`; 0 if not given.
    pub retries: u32,
}

/// `RUN [OPTIONS] …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command. With heredocs and nothing else on the line, the first
    /// heredoc's text.
    pub command: Words,
    /// The heredocs that the command line names, with their ends, as the shell
    /// is to read them; empty for a script of its own.
    pub heredocs: Vec<Heredoc>,
    /// The name of the heredoc that the command is, if its text begins with
    /// `#!`: it is a program of its own then, not a line for the shell.
    pub script: Option<String>,
    /// `--mount=…`, each as it is written behind the `=`.
    pub mounts: Vec<String>,
    /// `--network=default|none|host`.
    pub network: Option<String>,
    /// `--security=sandbox|insecure`.
    pub security: Option<String>,
}

impl Run {
    /// The command with its heredocs as the shell reads it, unless it is a list.
    pub fn shell(&self) -> Option<String> {
        let Words::Shell(line) = &self.command else {
            return None;
        };
        let mut text = line.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        Some(text)
    }
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// Files of the context, addresses (for `ADD`), or files that stand in the
    /// Dockerfile.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: String,
    /// `--from`: a stage by name or number, or an image.
    pub from: Option<String>,
    /// `--chown USER[:GROUP]`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, repeatable.
    pub exclude: Vec<String>,
    /// `ADD --checksum`.
    pub checksum: Option<String>,
    /// `ADD --unpack=true|false`.
    pub unpack: Option<bool>,
    /// `ADD --keep-git-dir`.
    pub keep_git_dir: bool,
}

/// A source of `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path with wildcards, or an address.
    Path(String),
    /// A file that stands in the Dockerfile.
    Here(Heredoc),
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// Its lines. Of `<<-` without the tabs at their beginning.
    pub content: String,
    /// Whether variables are expanded in it: not if the word was quoted.
    pub expand: bool,
}

//! The console blocks of a page.
//!
//! A block is fenced and its language is `console`. A line that begins with a
//! prompt is a command, `> ` continues it, and the lines that follow are its
//! output:
//!
//! ```text
//! $ step-01 --hostname box sh
//! box# hostname
//! box
//! box# exit
//! $ hostname
//! drydock-vm
//! ```
//!
//! A prompt is an optional name and `$` or `#`. If the prompt after a command
//! is new, the command has started a shell; if it is an outer one, the command
//! has left a shell. A page is one session: each block continues where the last
//! one ended.
//!
//! After `console` may stand, separated by commas: `cgroup=v1` (run on that
//! layout, in a session of its own) and `norun=why-not`.

use anyhow::{Result, bail};

use vm::CgroupLayout;

/// A fenced block of console lines.
#[derive(Clone, Debug)]
pub struct Block {
    /// The line number of its fence, from 1.
    pub line: usize,
    /// The reason why it is not run; `None` if it is run.
    pub norun: Option<String>,
    /// The layout of cgroups on which it runs.
    pub cgroup: CgroupLayout,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// A command, and the output that the book shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The prompt: `$`, `box#`.
    pub prompt: String,
    /// The text that is typed; several lines if `> ` continues it.
    pub text: String,
    /// The first line of its output in the file (counted from 0)…
    pub from: usize,
    /// … and the end, exclusive.
    pub to: usize,
    /// The output, with a newline after each line.
    pub expected: String,
}

/// Parses the console blocks of a page.
pub fn blocks(text: &str) -> Result<Vec<Block>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(info) = lines[at].trim_start().strip_prefix("```") else {
            at += 1;
            continue;
        };
        let Some(length) = lines[at + 1..].iter().position(|line| line.trim() == "```") else {
            bail!("line {}: this block has no end", at + 1);
        };
        let (from, to) = (at + 1, at + 1 + length);
        if info == "console" || info.starts_with("console,") {
            blocks.push(block(&lines, info, from, to)?);
        }
        at = to + 1;
    }
    Ok(blocks)
}

fn block(lines: &[&str], info: &str, from: usize, to: usize) -> Result<Block> {
    let mut block = Block {
        line: from,
        norun: None,
        cgroup: CgroupLayout::V2,
        commands: commands(lines, from, to)?,
    };
    for word in info.split(',').skip(1) {
        match word.split_once('=') {
            Some(("norun", why)) if !why.is_empty() => block.norun = Some(why.replace('-', " ")),
            Some(("cgroup", "v1")) => block.cgroup = CgroupLayout::V1,
            Some(("cgroup", "hybrid")) => block.cgroup = CgroupLayout::Hybrid,
            _ => bail!("line {from}: unknown word {word:?} after console"),
        }
    }
    Ok(block)
}

fn commands(lines: &[&str], from: usize, to: usize) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    for (number, line) in lines.iter().enumerate().take(to).skip(from) {
        if let Some((prompt, text)) = prompt(line) {
            commands.push(Command {
                prompt: prompt.to_owned(),
                text: text.to_owned(),
                from: number + 1,
                to: number + 1,
                expected: String::new(),
            });
            continue;
        }
        let Some(command) = commands.last_mut() else {
            bail!("line {}: output before the first command", number + 1);
        };
        match line.strip_prefix("> ") {
            Some(more) if command.expected.is_empty() => {
                command.text += "\n";
                command.text += more;
                command.from = number + 1;
            }
            _ => {
                command.expected += line;
                command.expected += "\n";
            }
        }
        command.to = number + 1;
    }
    Ok(commands)
}

/// Splits a line into prompt and command. A prompt is a name of lowercase
/// letters, digits and hyphens, or none, then `$` or `#`; a space follows.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (prompt, text) = line.split_once(' ')?;
    let name = prompt.strip_suffix(['$', '#'])?;
    let named = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (named && !text.is_empty()).then_some((prompt, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
Text.

```console
$ sh
box# echo a
a
box# exit
$ cat <<END
> b
> END
b
```

```console,cgroup=v1,norun=needs-a-disk
$ c
```
";

    #[test]
    fn commands_are_told_from_output() {
        let blocks = blocks(PAGE).unwrap();
        assert_eq!(blocks.len(), 2);
        let prompts: Vec<_> = blocks[0].commands.iter().map(|c| &c.prompt[..]).collect();
        assert_eq!(prompts, ["$", "box#", "box#", "$"]);
        assert_eq!(blocks[0].commands[1].expected, "a\n");
        let cat = &blocks[0].commands[3];
        assert_eq!(
            (&cat.text[..], &cat.expected[..]),
            ("cat <<END\nb\nEND", "b\n")
        );
        assert_eq!(PAGE.lines().collect::<Vec<_>>()[cat.from..cat.to], ["b"]);
        assert_eq!(blocks[1].norun.as_deref(), Some("needs a disk"));
        assert_eq!(blocks[1].cgroup, CgroupLayout::V1);
    }

    #[test]
    fn what_is_no_transcript_is_refused() {
        for text in [
            "```console\n$ a\n",
            "```console,x=y\n$ a\n```\n",
            "```console\na\n```\n",
        ] {
            assert!(blocks(text).is_err(), "{text}");
        }
    }
}

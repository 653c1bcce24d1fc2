//! Dockerfiles, what they mean, and `.dockerignore`.

use std::fs;
use std::ops::Deref;
use std::time::Instant;

use check::prelude::*;
use serde_json::{Value, json};

use super::yard::Yard;

/// Builds of Dockerfiles.
struct Desk<'a>(Yard<'a>);

impl<'a> Deref for Desk<'a> {
    type Target = Yard<'a>;

    fn deref(&self) -> &Yard<'a> {
        &self.0
    }
}

impl<'a> Desk<'a> {
    fn new(c: &'a Check) -> Result<Self> {
        Yard::new(c, |_| Ok(())).map(Desk)
    }

    /// Builds a Dockerfile as the image `made`.
    fn build(&self, dockerfile: impl AsRef<[u8]>) -> Result<Ran> {
        self.build_as("made", dockerfile)
    }

    fn build_as(&self, name: &str, dockerfile: impl AsRef<[u8]>) -> Result<Ran> {
        fs::write(self.context.join("Dockerfile"), dockerfile).context("write")?;
        let context = self.context.display().to_string();
        let words = ["build", "-q", "--network", "none", "-t", name, &context];
        self.call(&words).run()
    }

    /// Builds a Dockerfile, and reads its configuration.
    fn config(&self, dockerfile: impl AsRef<[u8]>) -> Result<Value> {
        self.build(dockerfile)?.success()?;
        let ran = self.call(&["image", "inspect", "made"]).run()?.success()?;
        let images: Value = ran.json()?;
        Ok(images[0]["Config"].clone())
    }

    /// What a command in the image `made` prints.
    fn inside(&self, words: &[&str]) -> Result<String> {
        let run = ["run", "--rm", "--network", "none", "made"];
        let ran = self.call(&[&run, words].concat()).run()?.success()?;
        Ok(ran.stdout)
    }

    /// Expects that a Dockerfile is refused, with these words, and that there is
    /// no image of it.
    fn refused(&self, dockerfile: &str, words: &[&str]) -> Result<()> {
        let shown: String = dockerfile.chars().take(200).collect();
        let ran = self.build_as("refused", dockerfile)?;
        for words in words {
            expect(
                ran.status == 1 && ran.stderr.contains(words),
                format!("a build of {shown:?} to exit with 1 and say {words:?}"),
                format!("{}: {}", ran.status, cut(&ran.stderr)),
            )?;
        }
        let left = self.call(&["images", "-q", "refused"]).run()?.success()?;
        expect(
            left.stdout.trim().is_empty(),
            format!("no image after {shown:?}"),
            left.stdout,
        )
    }
}

/// The values of the environment whose names have one letter and a number.
fn values(config: &Value) -> Vec<&str> {
    let variables = config["Env"].as_array().into_iter().flatten();
    let pairs = variables.filter_map(|pair| pair.as_str()?.split_once('='));
    let ours = pairs.filter(|(name, _)| name.starts_with('v'));
    ours.map(|(_, value)| value).collect()
}

#[test]
fn a_dockerfile_is_read_as_docker_reads_it() {
    check(|c| {
        let desk = Desk::new(c)?;
        let word = c.word("word");
        // One instruction on many lines: comments and empty lines in it do not
        // end it, the blanks at the beginning of a line belong to it.
        let config = desk.config(format!(
            "# about it\n\nFROM box\nCMD echo \\\n  # no\n\n# word\n  {word} \\\\\nLABEL a=\"x \\\n  \
             y\" \\\n      b=C:\\\\\nENV old  a  b=\"c\"\nSHELL [\"/bin/sh\",\\\n \"-c\"]\n"
        ))?;
        let said = format!("echo   {word} \\\\");
        expect_eq(
            "Cmd of lines that a comment and an empty line interrupt",
            &config["Cmd"],
            &json!(["/bin/sh", "-c", said]),
        )?;
        expect_eq(
            "Labels of a continued line",
            &config["Labels"],
            &json!({"a": "x   y", "b": "C:\\"}),
        )?;
        let old = config["Env"].as_array().into_iter().flatten();
        let old: Vec<&str> = old.filter_map(Value::as_str).collect();
        expect(
            old.contains(&"old=a  b=c"),
            "ENV NAME VALUE to have the rest of the line as its value",
            format!("{old:?}"),
        )?;
        // A mark of the byte order, line ends of Windows, another escape
        // character, which a line's own backslashes are not.
        let config = desk.config(format!(
            "\u{feff}# syntax=docker/dockerfile:1\r\n# escape=`\r\nFROM box\r\nRUN mkdir `\r\n  \
             /{word}\r\nWORKDIR /{word}\r\nENV v1=a\\b v2=a`\"b\r\n"
        ))?;
        expect_eq(
            "WORKDIR of a file with line ends of Windows",
            &config["WorkingDir"],
            &json!(format!("/{word}")),
        )?;
        expect_eq(
            "the variables of a file with escape=`",
            values(&config),
            vec!["a\\b", "a\"b"],
        )?;
        // After another comment it is none.
        let config = desk.config("# about it\n# escape=`\nFROM box\nENV v1=a\\ b v2=a`b\n")?;
        expect_eq(
            "the variables of a file whose directive comes too late",
            values(&config),
            vec!["a b", "a`b"],
        )?;
        // What is no list in JSON is a line for the shell.
        for (written, expected) in [
            (
                format!("[\"echo\", \"{word}\"]"),
                json!(["echo", word.as_str()]),
            ),
            (
                format!("['echo', '{word}']"),
                json!(["/bin/sh", "-c", format!("['echo', '{word}']")]),
            ),
            (
                "[\"a\"] && b".to_owned(),
                json!(["/bin/sh", "-c", "[\"a\"] && b"]),
            ),
            (
                "[ -e /x ]".to_owned(),
                json!(["/bin/sh", "-c", "[ -e /x ]"]),
            ),
        ] {
            let config = desk.config(format!("FROM box\nCMD {written}\n"))?;
            expect_eq(&format!("Cmd of CMD {written}"), &config["Cmd"], &expected)?;
        }
        let config = desk.config(
            "from box as one\nhealthcheck --interval=1m30s --retries=3 \\\n CMD test -e /x\n\
             onbuild run true\nFROM one\nEXPOSE 80 53/udp\n",
        );
        // The trigger is an instruction of this build, too.
        let config = config?;
        expect_eq(
            "Healthcheck",
            &config["Healthcheck"],
            &json!({
                "Test": ["CMD-SHELL", "test -e /x"],
                "Interval": 90_000_000_000_u64,
                "Retries": 3,
            }),
        )?;
        expect_eq(
            "ExposedPorts",
            &config["ExposedPorts"],
            &json!({"53/udp": {}, "80/tcp": {}}),
        )
    });
}

#[test]
fn heredocs_are_files_and_scripts() {
    check(|c| {
        let desk = Desk::new(c)?;
        let word = c.word("word");
        desk.build(format!(
            r##"FROM box
ENV x={word}
RUN <<EOF
# A comment of the script.
set -e
echo "one $x" > /script
RUN=1; echo \
  "$RUN" >> /script
EOF
RUN cat <<first <<-"second" > /shell && cat 3<<third <&3 >> /shell
1 $x
first
		2 $x
	second
3
third
COPY <<plain <<"quoted" <<-tabs /files/
x=$x ${{y:-z}} "q" \$x
plain
x=$x ${{y:-z}} "q" \$x
quoted
		x
	tabs
ADD <<EOF /added
added
EOF
RUN <<awk
#!/bin/cat
{word}
awk
RUN echo '<<none' $((1 << 2)) > /none
"##
        ))?
        .success()?;
        for (file, expected) in [
            ("/script", format!("one {word}\n1\n")),
            ("/shell", format!("2 {0}\n3\n", "$x")),
            ("/files/plain", format!("x={word} z \"q\" $x\n")),
            ("/files/quoted", "x=$x ${y:-z} \"q\" \\$x\n".to_owned()),
            ("/files/tabs", "x\n".to_owned()),
            ("/added", "added\n".to_owned()),
            ("/none", "<<none 4\n".to_owned()),
        ] {
            let text = desk.inside(&["cat", file])?;
            expect_eq(&format!("the text of {file}"), text, expected)?;
        }
        for (dockerfile, words) in [
            ("FROM box\nRUN <<EOF\ntrue\n EOF\n", "unterminated heredoc"),
            ("FROM box\nCOPY <<a <<b /x/\nb\na\n", "unterminated heredoc"),
            (
                "FROM box\nCOPY x <<EOF\nEOF\n",
                "cannot accept a heredoc as a destination",
            ),
        ] {
            desk.refused(dockerfile, &[words])?;
        }
        Ok(())
    });
}

#[test]
fn variables_are_those_of_a_shell() {
    check(|c| {
        let desk = Desk::new(c)?;
        let word = c.word("word");
        let config = desk.config(format!(
            "FROM box\nENV full={word} empty= path=a.b/a.b.tar.gz dollar='$full' two='x y'\n{}",
            r#"ENV v01=$full v02=${full}s v03=$fulls v04=\$full v05='$full' v06="$full" v07=$dollar
ENV v11=${empty:-d} v12=${empty-d} v13=${unset:-d} v14=${unset-d} v15=${full:-d}
ENV v21=${empty:+d} v22=${empty+d} v23=${unset:+d} v24=${full:+d} v25=${unset:-${empty:-$full}}
ENV v31=${path#*.} v32=${path##*.} v33=${path%.*} v34=${path%%.*} v35=${path#x}
ENV v41=${path/a/X} v42=${path//a/X} v43=${path//\//:} v44=${path//?/.}
ENV v51=a\ b v52="a b" v53='a "b"' v54="a \"b\"" v55=$two v56="${two} z"
ENV full=new v61=$full
"#
        ))?;
        let expected = [
            &word,
            &format!("{word}s"),
            "",
            "$full",
            "$full",
            &word,
            "$full", // v0
            "d",
            "",
            "d",
            "d",
            &word, // v1
            "",
            "d",
            "",
            "d",
            &word, // v2
            "b/a.b.tar.gz",
            "gz",
            "a.b/a.b.tar",
            "a",
            "a.b/a.b.tar.gz", // v3
            "X.b/a.b.tar.gz",
            "X.b/X.b.tXr.gz",
            "a.b:a.b.tar.gz",
            "..............", // v4
            "a b",
            "a b",
            "a \"b\"",
            "a \"b\"",
            "x y",
            "x y z", // v5
            &word,   // v6: an instruction does not see itself
        ];
        expect_eq("the values", values(&config), expected.to_vec())?;
        // Also where no shell ever looks.
        let config = desk.config(
            "ARG base=box\nFROM $base\nARG base\nARG n=1 m=${n}2\nWORKDIR /$m\nUSER $n:$m\nEXPOSE $m/udp\n\
             LABEL l$n=\"$m\"\nVOLUME /v$n\nSTOPSIGNAL SIG${sig:-USR1}\nCMD [\"echo\", \"$n\"]\n"
        )?;
        for (field, expected) in [
            ("WorkingDir", json!("/12")),
            ("User", json!("1:12")),
            ("ExposedPorts", json!({"12/udp": {}})),
            ("Labels", json!({"l1": "12"})),
            ("Volumes", json!({"/v1": {}})),
            ("StopSignal", json!("SIGUSR1")),
            ("Cmd", json!(["echo", "$n"])),
        ] {
            expect_eq(field, &config[field], &expected)?;
        }
        for (line, words) in [
            ("ENV x=\"${unset:?no $v}\"", "unset: no 1"),
            ("ENV x=${unset?}", "unset: is not allowed to be unset"),
            ("ENV x=${a", "missing '}'"),
            ("ENV x=${a:b}", "unsupported modifier (:b) in substitution"),
            ("ENV x=${}", "bad substitution"),
            ("WORKDIR \"/a", "looking for matching double-quote"),
        ] {
            let dockerfile = format!("FROM box\nENV v=1\n{line}\n");
            desk.refused(&dockerfile, &[words, &format!("3 | >>> {line}")])?;
        }
        Ok(())
    });
}

#[test]
fn dockerignore_has_dockers_rules() {
    check(|c| {
        let desk = Desk::new(c)?;
        let tree = [
            "a.md",
            "b.txt",
            "README.md",
            "#x",
            "docs/a.md",
            "docs/b.txt",
            "docs/deep/a.md",
            "docs/deep/b.txt",
            "src/main.c",
            "src/a/main.c",
            "src/a/b/main.o",
            "tmp/a",
            "xtmp/a",
        ];
        for path in tree {
            let path = desk.context.join(path);
            fs::create_dir_all(path.parent().context("no parent")?).context("mkdir")?;
            fs::write(path, c.word("text")).context("write")?;
        }
        for (rules, kept) in [
            ("", &tree[..]),
            // From the root of the context, not anywhere as git.
            (
                "*.md\n",
                &[
                    "b.txt",
                    "#x",
                    "docs/a.md",
                    "docs/b.txt",
                    "docs/deep/a.md",
                    "docs/deep/b.txt",
                    "src/main.c",
                    "src/a/main.c",
                    "src/a/b/main.o",
                    "tmp/a",
                    "xtmp/a",
                ],
            ),
            (
                "**/*.md\nsrc\ntmp\nxtmp",
                &["b.txt", "#x", "docs/b.txt", "docs/deep/b.txt"],
            ),
            (
                "**/tmp/\nsrc/**\n*.*",
                &[
                    "#x",
                    "docs/a.md",
                    "docs/b.txt",
                    "docs/deep/a.md",
                    "docs/deep/b.txt",
                    "xtmp/a",
                ],
            ),
            // A directory takes what is in it along; the last rule decides.
            ("*\n!docs/*.md\n!src\nsrc/a", &["docs/a.md", "src/main.c"]),
            (
                "*\n!docs\ndocs/**/*.md\n!**/deep/a.md",
                &["docs/b.txt", "docs/deep/a.md", "docs/deep/b.txt"],
            ),
            (
                "!README.md\n*.md\ndocs\nsrc\n?tmp",
                &["b.txt", "#x", "tmp/a"],
            ),
            (
                "  /docs/../src/  \r\n# docs\n./tmp\n/xtmp/\ndocs/*/",
                &["a.md", "b.txt", "README.md", "#x"],
            ),
            ("[a-c].*\n[^#]*/**\n\\#x", &["README.md"]),
        ] {
            fs::write(
                desk.context.join(".dockerignore"),
                format!("{rules}\nDockerfile\n.dockerignore\n"),
            )
            .context("write")?;
            desk.build("FROM box\nCOPY . /y/\n")?.success()?;
            let text = desk.inside(&["sh", "-c", "cd /y && find . -type f | sort"])?;
            let found: Vec<&str> = text
                .lines()
                .map(|line| line.trim_start_matches("./"))
                .collect();
            let mut expected = kept.to_vec();
            expected.sort_unstable();
            expect_eq(&format!("the context without {rules:?}"), found, expected)?;
        }
        // What is left out is not there for COPY by its name either.
        fs::write(desk.context.join(".dockerignore"), "docs\n").context("write")?;
        desk.refused(
            "FROM box\nCOPY docs/a.md /y/\n",
            &["docs/a.md", "2 | >>> COPY"],
        )?;
        for (rules, words) in [
            ("a[", "syntax error in pattern"),
            ("!", "illegal exclusion pattern"),
        ] {
            fs::write(desk.context.join(".dockerignore"), rules).context("write")?;
            desk.refused("FROM box\nCOPY . /y/\n", &[words])?;
        }
        Ok(())
    });
}

#[test]
fn what_is_wrong_is_shown_by_line() {
    check(|c| {
        let desk = Desk::new(c)?;
        let word = c.word("word");
        for (line, words) in [
            (
                "RNU true",
                "dockerfile parse error on line 3: unknown instruction: RNU (did you mean RUN?)",
            ),
            (
                "COPY --chmd=1 a b",
                "unknown flag: chmd (did you mean chmod?)",
            ),
            (
                "COPY --link=x a b",
                "expecting boolean value for flag link, not: x",
            ),
            (
                "COPY --chown=1 --chown=2 a b",
                "duplicate flag specified: chown",
            ),
            (
                "COPY a",
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
            ("RUN", "RUN requires at least one argument"),
            ("WORKDIR", "WORKDIR requires exactly one argument"),
            ("ENV x", "ENV must have two arguments"),
            (
                "ENV x=1 y",
                "Syntax error - can't find = in \"y\". Must be of the form: name=value",
            ),
            ("CMD [1]", "arrays must be comprised of strings only"),
            (
                "SHELL /bin/sh",
                "SHELL requires the arguments to be in JSON form",
            ),
            ("STOPSIGNAL --now 9", "unknown flag: now"),
            (
                "ONBUILD ONBUILD RUN x",
                "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            ),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("ONBUILD RNU x", "unknown instruction: RNU"),
            (
                "HEALTHCHECK --interval=1us CMD x",
                "Interval \"interval\" cannot be less than 1ms",
            ),
            (
                "HEALTHCHECK TEST x",
                "Unknown type \"TEST\" in HEALTHCHECK (try CMD)",
            ),
            (
                "RUN --mount=type=nfs,target=/x true",
                "unsupported mount type \"nfs\"",
            ),
            (
                "RUN --network=bridge true",
                "invalid network mode \"bridge\"",
            ),
            ("FROM box AS 1st", "invalid name for build stage: \"1st\""),
            (
                "FROM box one",
                "FROM requires either one or three arguments",
            ),
        ] {
            desk.refused(
                &format!("FROM box\nENV a={word}\n{line}\nRUN true\n"),
                &[
                    "Dockerfile:3",
                    words,
                    &format!("   2 |     ENV a={word}"),
                    &format!("   3 | >>> {line}"),
                    "   4 |     RUN true",
                ],
            )?;
        }
        // Each of an instruction's lines is marked, and nothing is run before.
        desk.refused(
            &format!("FROM box\nRUN touch /{word}\nRNU a \\\n  b\n"),
            &["   3 | >>> RNU a \\", "   4 | >>>   b"],
        )?;
        for (dockerfile, words) in [
            ("", "file with no instructions"),
            ("ARG x\n", "no stages to build"),
            ("RUN true\n", "no build stage in current context"),
            ("# escape=x\nFROM box\n", "invalid escape token 'x'"),
            (
                "# syntax=example/other:1\nFROM box\n",
                "syntax=example/other:1 is not supported",
            ),
        ] {
            desk.refused(dockerfile, &[words])?;
        }
        Ok(())
    });
}

#[test]
fn a_hostile_dockerfile_ends_soon() {
    check(|c| {
        let desk = Desk::new(c)?;
        let doubled: String = (0..40).map(|_| "ENV x=$x$x\n").collect();
        let stars = "*a".repeat(2000);
        let nested = "${x:-".repeat(5000);
        let start = Instant::now();
        for (dockerfile, words) in [
            (
                format!("FROM box\nENV x=aa\n{doubled}"),
                "the result has more than",
            ),
            (
                format!("FROM box\nENV x=a\nENV y=${{x%%{stars}}}\n"),
                "a pattern has more than",
            ),
            (format!("FROM box\nENV y={nested}\n"), "nested too deeply"),
            (
                format!("FROM box\nRUN {}\n", "a".repeat(1 << 20)),
                "dockerfile line greater than max allowed size",
            ),
            (
                format!("FROM box\nRUN {}", "a \\\n".repeat(2 << 20)),
                "has more than 4194304 bytes",
            ),
            (
                format!("FROM box\nRUN <<EOF\n{}", "a\n".repeat(1 << 20)),
                "unterminated heredoc",
            ),
            (
                format!("FROM box\nCOPY {} /x/\n", "<<a ".repeat(10_000)),
                "unterminated heredoc",
            ),
        ] {
            desk.refused(&dockerfile, &[words])?;
        }
        for dockerfile in [
            "FROM box\nCOPY <<../../x /y/\nx\n../../x\n",
            "FROM box\nRUN <<..\n#!/bin/sh\n..\n",
        ] {
            desk.refused(dockerfile, &["has no name of a file"])?;
        }
        // What is shown of a file does not command the terminal.
        let ran = desk.build("FROM box\nFOO \x1b[2J\x07\n")?;
        expect(
            !ran.stderr.contains(['\x1b', '\x07']),
            "no control characters of the Dockerfile in the error",
            format!("{:?}", ran.stderr),
        )?;
        // Patterns that make others try for ever.
        fs::write(
            desk.context.join(".dockerignore"),
            format!("{}b\n", "*a**/".repeat(700)),
        )
        .context("write")?;
        fs::write(desk.context.join("a".repeat(200)), "").context("write")?;
        desk.build("FROM box\nCOPY . /y/\n")?.success()?;
        let took = start.elapsed();
        expect(
            took.as_secs() < 60,
            "all of these to be refused within a minute",
            format!("{took:?}"),
        )
    });
}

/// What `build --check` finds, as the summary of a build has it: rule, words, line.
fn found(ran: &Ran) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = ran.stdout.lines();
    while let Some(line) = lines.next() {
        let Some(rule) = line.strip_prefix("WARNING: ") else {
            continue;
        };
        let (rule, page) = rule.split_once(" - ").unwrap_or((rule, ""));
        let words = lines.next().unwrap_or_default();
        let place = lines.next().unwrap_or_default();
        let (_, line) = place.split_once(':').unwrap_or_default();
        let is_page = page.starts_with("https://docs.docker.com/go/dockerfile/rule/");
        let page = if is_page { "" } else { page };
        found.push(format!("{rule}: {words} (line {line}){page}"));
    }
    found
}

/// A Dockerfile and what is found in it.
const ADVICE: [(&str, &[&str]); 13] = [
    ("FROM box AS one\nCOPY . /x\nCMD [\"sh\"]\n", &[]),
    (
        "FROM box as One\nfrom box AS two\n",
        &[
            "StageNameCasing: Stage name 'One' should be lowercase (line 1)",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "ConsistentInstructionCasing: Command 'from' should match the case of the command \
             majority (uppercase) (line 2)",
            "FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 2)",
        ],
    ),
    (
        "FROM box AS scratch\nFROM box AS a\nFROM box AS a\n",
        &[
            "ReservedStageName: Stage name should not use the same name as reserved stage \
             \"scratch\" (line 1)",
            "DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 3)",
        ],
    ),
    (
        "FROM box\nRUN true && \\\n\n  true\nMAINTAINER me\nENV a b\n",
        &[
            "NoEmptyContinuation: Empty continuation line (line 4)",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label \
             (line 5)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key \
             value\" format (line 6)",
        ],
    ),
    (
        "FROM box AS a\nCMD a\nCMD [\"b\"]\nFROM a\nSHELL [\"sh\", \"-c\"]\nENTRYPOINT c\n",
        &[
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior \
             related to OS signals (line 2)",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the \
             same stage because only the last one will be used (line 2)",
        ],
    ),
    (
        "ARG TAG\nARG KNOWN=box\nFROM $KNOWN:$TAG\nFROM $KNOWM\n",
        &[
            "InvalidDefaultArgInFrom: Default value for ARG $KNOWN:$TAG results in empty or invalid \
             base image name (line 3)",
            "InvalidDefaultArgInFrom: Default value for ARG $KNOWM results in empty or invalid base \
             image name (line 4)",
            "UndefinedArgInFrom: FROM argument 'KNOWM' is not declared (did you mean KNOWN?) (line \
             4)",
        ],
    ),
    (
        "FROM box AS a\nARG set\nCOPY $set $nothing /x\nENV PATH=$PAT:/y b=${c:-d}\nRUN echo \
         $e\nFROM a\nLABEL a=$b c=$set\n",
        &[
            "UndefinedVar: Usage of undefined variable '$nothing' (line 3)",
            "UndefinedVar: Usage of undefined variable '$PAT' (did you mean $PATH?) (line 4)",
            "UndefinedVar: Usage of undefined variable '$c' (line 4)",
        ],
    ),
    (
        "FROM none\nCOPY $what /x\nWORKDIR a\nWORKDIR b\nFROM box\nWORKDIR /a\nWORKDIR b\n",
        &[
            "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base \
             image changes (line 3)",
        ],
    ),
    (
        "FROM box\nARG API_TOKEN\nENV PUBLIC_KEY=1 monkey=1 Secret=1\n",
        &[
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \
             \"API_TOKEN\") (line 2)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \
             \"Secret\") (line 3)",
        ],
    ),
    (
        "FROM --platform=$TARGETPLATFORM box\nFROM --platform=linux/s390x box\nFROM \
         --platform=linux/s390x box AS for-s390x\n",
        &[
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is \
             redundant as this is the default behavior (line 1)",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \
             \"linux/s390x\" (line 2)",
        ],
    ),
    (
        "FROM box\nCOPY out/a ./in /x/\nADD http://127.0.0.1:1/out/b /x/\nCOPY --from=0 out/a /x\n",
        &[
            "CopyIgnoredFile: Attempting to Copy file \"out/a\" that is excluded by .dockerignore \
             (line 2)",
        ],
    ),
    (
        "FROM box\nEXPOSE 80/TCP 127.0.0.1:8080:81 82\n",
        &[
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase \
             (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port \
             mapping, found '127.0.0.1:8080:81' (line 2)",
        ],
    ),
    (
        "# check=experimental=all;skip=StageNameCasing\n# of something\nFROM box AS A\n# b is \
         good\nARG b\n# c\n\nARG d\n",
        &[
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# a \
             <description>` (line 3)",
        ],
    ),
];

#[test]
fn a_check_finds_what_is_not_meant() {
    check(|c| {
        let desk = Desk::new(c)?;
        desk.file(".dockerignore", "out\n")?;
        let context = desk.context.display().to_string();
        let checked = |dockerfile: &str, options: &[&str]| {
            desk.file("Dockerfile", dockerfile)?;
            let words = [&["build", "--check"], options, &[&*context]].concat();
            desk.call(&words).run()
        };
        for (dockerfile, expected) in ADVICE {
            let ran = checked(dockerfile, &[])?;
            expect_eq(
                &format!("what is found in {dockerfile:?}"),
                found(&ran),
                expected.iter().map(ToString::to_string).collect(),
            )?;
            let count = match expected.len() {
                0 => "Check complete, no warnings found.\n".into(),
                1 => "Check complete, 1 warning has been found!\n".into(),
                count => format!("Check complete, {count} warnings have been found!\n"),
            };
            expect(ran.stdout.starts_with(&count), count, &ran.stdout)?;
            ran.expect_status(i32::from(!expected.is_empty()))?;
        }
        // A build says the same in the end, in short.
        let advice = "FROM box\nCMD true\n";
        desk.file("Dockerfile", advice)?;
        let build = |options: &[&str]| {
            let words = [
                &["build", "--network", "none", "-t", "made"],
                options,
                &[&*context],
            ];
            desk.call(&words.concat()).run()
        };
        let ran = build(&[])?.success()?;
        let end = "\n 1 warning found (use drydock build --check to expand):\n - \
                   JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended \
                   behavior related to OS signals (line 2)\n";
        expect(
            ran.stderr.ends_with(end),
            "the warning at the end",
            &ran.stderr,
        )?;
        let ran = build(&["-q"])?.success()?;
        expect(
            !ran.stderr.contains("warning"),
            "nothing with -q",
            &ran.stderr,
        )?;
        // It may be an error, or none at all.
        desk.call(&["rmi", "made"]).run()?.success()?;
        let error = "lint violation found for rules: JSONArgsRecommended";
        checked(&format!("# check=error=true\n{advice}"), &[])?.expect_error(1, &[error])?;
        let ran = build(&[])?.expect_status(1)?;
        expect(ran.stderr.contains(error), error, &ran.stderr)?;
        let ran = desk.call(&["image", "inspect", "made"]).run()?;
        expect(ran.status != 0, "nothing to be built", "there is an image")?;
        for skipped in ["all", "JSONArgsRecommended,UndefinedVar"] {
            let dockerfile = format!("# check=skip={skipped};error=true\n{advice}");
            checked(&dockerfile, &[])?.success()?;
        }
        let argument = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
        checked(advice, &argument)?.success()?;
        checked(&format!("# check=skp=all\n{advice}"), &[])?
            .expect_error(1, &["invalid check option \"skp\""])?;
        Ok(())
    });
}

/// A text whose lines may have a million letters, with the beginnings of its lines.
fn cut(text: &str) -> String {
    let lines = text.lines().map(|line| line.chars().take(300).collect());
    lines.collect::<Vec<String>>().join("\n")
}

use super::instruction::{Copy, Health, Run, Source, Words};
use super::{What, mark, one, parse};

/// The instructions of a stage on `box`.
fn stage(lines: &str) -> Vec<What> {
    let text = format!("FROM box\n{lines}\n");
    let mut file = parse(&text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
    let stage = file.stages.remove(0);
    stage.instructions.into_iter().map(|x| x.what).collect()
}

fn only(line: &str) -> What {
    let mut all = stage(line);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn wrong(text: &str) -> String {
    format!("{:#}", parse(text).expect_err(text))
}

fn run(line: &str) -> Run {
    match only(line) {
        What::Run(run) => run,
        what => panic!("{what:?}"),
    }
}

fn shell(line: &str) -> String {
    run(line).shell().unwrap()
}

fn copy(line: &str) -> Copy {
    match only(line) {
        What::Copy(copy) | What::Add(copy) => copy,
        what => panic!("{what:?}"),
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| String::from(*word)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = pairs.iter();
    owned.map(|(a, b)| ((*a).into(), (*b).into())).collect()
}

#[test]
fn lines_continue() {
    assert_eq!(shell("RUN a \\\n  b\\\nc"), "a   bc");
    assert_eq!(
        shell("RUN a \\  \n b"),
        "a  b",
        "blanks after the backslash"
    );
    assert_eq!(
        shell("RUN a \\\n# c \\\n\n   # d\n b"),
        "a  b",
        "comments, an empty line"
    );
    assert_eq!(shell("RUN a \\"), "a", "the end of the file");
    assert_eq!(shell("RUN a \\\\\n"), "a \\\\", "two backslashes");
    assert_eq!(
        shell("RUN a # b \\\n c"),
        "a # b  c",
        "no comment to the builder"
    );
    assert_eq!(shell("  RUN\ta"), "a");
    assert_eq!(shell("run a\r\n"), "a");
    assert_eq!(shell("RUN a \\\r\n b\r"), "a  b");
    let file = parse("# escape=`\nFROM box\nRUN a `\n b\\\nRUN c").unwrap();
    assert_eq!(file.escape, '`');
    let [first, second] = file.stages[0].instructions.as_slice() else {
        panic!("{file:?}");
    };
    assert_eq!((first.lines.clone(), second.lines.clone()), (3..5, 5..6));
    assert_eq!(first.text, "RUN a  b\\");
}

#[test]
fn directives_stand_at_the_top() {
    let escape = |text: &str| parse(text).unwrap().escape;
    assert_eq!(escape("# Escape = `\nFROM box"), '`');
    assert_eq!(
        escape("#syntax=docker/dockerfile:1.7-labs\n#escape=`\nFROM box"),
        '`'
    );
    assert_eq!(
        escape("\u{feff}#check=skip=all\n# escape=`\r\nFROM box"),
        '`'
    );
    assert_eq!(
        escape("# about\n# escape=`\nFROM box"),
        '\\',
        "after a comment"
    );
    assert_eq!(
        escape("\n# escape=`\nFROM box"),
        '\\',
        "after an empty line"
    );
    assert_eq!(
        escape("FROM box\n# escape=`\n"),
        '\\',
        "after an instruction"
    );
    assert_eq!(
        wrong("# escape=x\nFROM box"),
        "invalid escape token 'x' does not match ` or \\"
    );
    assert_eq!(
        wrong("# syntax=a\n# escape=`\n# syntax=b\nFROM box"),
        "syntax=a is not supported: only docker/dockerfile is"
    );
    assert_eq!(
        wrong("# escape=`\n# ESCAPE=`\nFROM box"),
        "only one escape parser directive can be used"
    );
    for image in [
        "docker/dockerfile",
        "docker.io/docker/dockerfile:1",
        "docker/dockerfile-upstream:master",
        "docker/dockerfile:1@sha256:abc",
    ] {
        parse(&format!("# syntax={image}\nFROM box")).unwrap();
    }
}

#[test]
fn heredocs() {
    let script = run("RUN <<EOF\na\n# b\n  c \\\nEOF\nRUN d"
        .split("\nRUN d")
        .next()
        .unwrap());
    assert_eq!(script.command, Words::Shell("a\n# b\n  c \\\n".into()));
    assert_eq!((script.heredocs.len(), script.script), (0, None));
    let program = run("RUN <<-EOF\n\t\t#!/bin/awk\n\tx\n\tEOF");
    assert_eq!(program.command, Words::Shell("#!/bin/awk\nx\n".into()));
    assert_eq!(program.script.as_deref(), Some("EOF"));
    assert_eq!(
        shell("RUN cat <<A 3<<'B' > x && y\n1 $x\nA\n2\nB"),
        "cat <<A 3<<'B' > x && y\n1 $x\nA\n2\nB"
    );
    assert_eq!(stage("RUN cat <<A > x\nRUN b\nA\nRUN c").len(), 2);
    assert_eq!(shell("RUN echo '<<A'\n"), "echo '<<A'", "quoted");
    assert_eq!(shell("RUN cat <<<A"), "cat <<<A", "no heredoc");
    assert_eq!(shell("RUN echo $((1 << 2))"), "echo $((1 << 2))");
    assert_eq!(only("RUN [\"<<A\"]"), only("RUN [ \"<<A\" ]"));
    assert_eq!(only("CMD <<A"), What::Cmd(Words::Shell("<<A".into())));
    let files = copy("COPY <<a \"<<b c\" <<-\"d\" /x/\n$1\na\n\t2\nd");
    assert_eq!(files.sources.len(), 4);
    let Source::Here(first) = &files.sources[0] else {
        panic!("{files:?}");
    };
    assert_eq!((first.content.as_str(), first.expand), ("$1\n", true));
    let Source::Here(last) = &files.sources[3] else {
        panic!("{files:?}");
    };
    assert_eq!((last.content.as_str(), last.expand), ("2\n", false));
    assert_eq!(wrong("FROM box\nRUN <<EOF\na\n"), "unterminated heredoc");
    assert!(wrong("FROM box\nCOPY a <<EOF\nEOF").contains("as a destination"));
    for line in [
        "COPY <<../../x /y/\n../../x",
        "ADD <<.. /y/\n..",
        "RUN <<a/b\n#!/bin/sh\na/b",
    ] {
        let message = wrong(&format!("FROM box\n{line}"));
        assert!(message.ends_with("has no name of a file"), "{message}");
    }
    assert_eq!(shell("RUN cat <<a/b\n#!\na/b"), "cat <<a/b\n#!\na/b");
    let trigger = only("ONBUILD COPY <<EOF /x\na\nEOF");
    assert_eq!(trigger, What::Onbuild("COPY <<EOF /x\na\nEOF".into()));
    let What::Copy(copied) = one("COPY <<EOF /x\na\nEOF", '\\').unwrap().what else {
        panic!("no COPY");
    };
    assert!(matches!(&copied.sources[..], [Source::Here(x)] if x.content == "a\n"));
}

#[test]
fn lists_are_json() {
    let exec = |words: &[&str]| What::Cmd(Words::Exec(texts(words)));
    let line = |text: &str| What::Cmd(Words::Shell(text.into()));
    assert_eq!(only(r#"CMD ["a", "b\u0020c"]"#), exec(&["a", "b c"]));
    assert_eq!(only("CMD []"), exec(&[]));
    assert_eq!(only("CMD ['a']"), line("['a']"));
    assert_eq!(only(r#"CMD ["a"] b"#), line(r#"["a"] b"#));
    assert_eq!(only(r#"CMD ["a",]"#), line(r#"["a",]"#));
    assert_eq!(only(r#"CMD [ -f x ]"#), line("[ -f x ]"));
    assert_eq!(only("CMD"), line(""));
    assert!(wrong("FROM box\nCMD [1]").contains("comprised of strings only"));
    assert_eq!(
        only(r#"VOLUME ["/a b", "/c"]"#),
        What::Volume(texts(&["/a b", "/c"]))
    );
    assert_eq!(only("VOLUME /a  /b"), What::Volume(texts(&["/a", "/b"])));
    let spaces = copy(r#"COPY --chown=1 ["a b", "c"]"#);
    assert_eq!(spaces.sources, [Source::Path("a b".into())]);
    assert_eq!(
        (spaces.destination.as_str(), spaces.chown.as_deref()),
        ("c", Some("1"))
    );
    assert!(wrong("FROM box\nSHELL /bin/sh").contains("JSON form"));
}

#[test]
fn pairs_have_two_forms() {
    assert_eq!(
        only(r#"ENV a=1 b="x y"  c=x\ y d='"' e="#),
        What::Env(pairs(&[
            ("a", "1"),
            ("b", "\"x y\""),
            ("c", "x\\ y"),
            ("d", "'\"'"),
            ("e", "")
        ]))
    );
    assert_eq!(
        only("ENV a  b=c  \"d\""),
        What::Env(pairs(&[("a", "b=c  \"d\"")]))
    );
    assert_eq!(
        only("LABEL \"a b\"=c"),
        What::Label(pairs(&[("\"a b\"", "c")]))
    );
    assert_eq!(
        only("ARG a b=c d="),
        What::Arg(vec![
            ("a".into(), None),
            ("b".into(), Some("c".into())),
            ("d".into(), Some(String::new()))
        ])
    );
    assert_eq!(wrong("FROM box\nENV x"), "ENV must have two arguments");
    assert!(wrong("FROM box\nENV a=b c").starts_with("Syntax error - can't find = in \"c\""));
}

#[test]
fn options_stand_first() {
    let copied = copy("COPY --from=\"a\" --exclude=b --exclude=c --link --parents=false x --y z/");
    assert_eq!(copied.from.as_deref(), Some("a"));
    assert_eq!(copied.exclude, texts(&["b", "c"]));
    assert_eq!((copied.link, copied.parents), (true, false));
    assert_eq!(
        copied.sources.len(),
        2,
        "after the first path there are none"
    );
    let ended = copy("COPY -- --x z/");
    assert_eq!(ended.sources, [Source::Path("--x".into())]);
    for (line, error) in [
        (
            "COPY --chmd=1 a b",
            "unknown flag: chmd (did you mean chmod?)",
        ),
        (
            "COPY --chown=1 --chown=2 a b",
            "duplicate flag specified: chown",
        ),
        ("COPY --chown a b", "missing a value on flag: chown"),
        (
            "COPY --link=x a b",
            "expecting boolean value for flag link, not: x",
        ),
        ("COPY --checksum=x a b", "unknown flag: checksum"),
        ("WORKDIR --x /", "unknown flag: x"),
        ("STOPSIGNAL --x 9", "unknown flag: x"),
        ("RUN --network=bridge x", "invalid network mode \"bridge\""),
        (
            "RUN --mount=type=caches x",
            "unsupported mount type \"caches\" (did you mean cache?)",
        ),
    ] {
        let message = wrong(&format!("FROM box\n{line}"));
        assert_eq!(
            message,
            format!("dockerfile parse error on line 2: {error}")
        );
    }
}

#[test]
fn stages_have_names() {
    let file = parse("ARG a=1\nFROM --platform=$p $x aS Build\nRUN a\nFROM build").unwrap();
    assert_eq!((file.args.len(), file.stages.len()), (1, 2));
    let stage = &file.stages[0];
    assert_eq!(stage.name.as_deref(), Some("build"));
    assert_eq!(
        (stage.platform.as_deref(), stage.from.as_str()),
        (Some("$p"), "$x")
    );
    assert!(wrong("FROM a b").ends_with("FROM requires either one or three arguments"));
    assert!(wrong("FROM a as 1b").contains("invalid name for build stage: \"1b\""));
    assert_eq!(wrong("RUN a\n"), "no build stage in current context");
    assert_eq!(wrong("ARG a\n"), "dockerfile contains no stages to build");
    assert_eq!(wrong("# a\n\n"), "file with no instructions");
}

#[test]
fn healthchecks() {
    assert_eq!(
        only("HEALTHCHECK --interval=1m30s --retries=3 --start-interval=5ms CMD a b"),
        What::Healthcheck(Some(Health {
            command: Words::Shell("a b".into()),
            times: [90_000_000_000, 0, 0, 5_000_000],
            retries: 3,
        }))
    );
    assert_eq!(only("HEALTHCHECK none"), What::Healthcheck(None));
    for (line, error) in [
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK CMD []",
            "Missing command after HEALTHCHECK CMD",
        ),
        ("HEALTHCHECK --timeout=1us CMD x", "cannot be less than 1ms"),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        (
            "HEALTHCHECK a",
            "Unknown type \"A\" in HEALTHCHECK (try CMD)",
        ),
    ] {
        let message = wrong(&format!("FROM box\n{line}"));
        assert!(message.ends_with(error), "{message}");
    }
}

#[test]
fn triggers_are_instructions() {
    assert_eq!(only("ONBUILD  RUN  a"), What::Onbuild("RUN  a".into()));
    for (line, error) in [
        (
            "ONBUILD ONBUILD RUN a",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "ONBUILD MAINTAINER a",
            "MAINTAINER isn't allowed as an ONBUILD trigger",
        ),
        (
            "ONBUILD RNU a",
            "unknown instruction: RNU (did you mean RUN?)",
        ),
        ("ONBUILD", "ONBUILD requires at least one argument"),
    ] {
        let message = wrong(&format!("FROM box\n{line}"));
        assert_eq!(
            message,
            format!("dockerfile parse error on line 2: {error}")
        );
    }
    assert!(one("RUN a\nRUN b", '\\').is_err());
    assert!(one("", '\\').is_err());
}

#[test]
fn errors_show_the_line() {
    let text = "FROM box\nFOO bar\r\nRUN a\n";
    let error = parse(text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"
    );
    let lines = super::lines_of(&error).unwrap();
    assert_eq!(
        mark("Dockerfile", text, &lines),
        "Dockerfile:2\n--------------------\n   1 |     FROM box\n   2 | >>> FOO bar\n   3 |     \
         RUN a\n   4 |     \n--------------------\n"
    );
    assert_eq!(mark("Dockerfile", text, &(0..0)), "");
    assert_eq!(mark("Dockerfile", text, &(9..10)), "");
    for (name, least) in [
        ("RUN", "one"),
        ("EXPOSE", "one"),
        ("ENV", "one"),
        ("ARG", "one"),
    ] {
        let message = wrong(&format!("FROM box\n{name}"));
        assert!(message.ends_with(&format!("{name} requires at least {least} argument")));
    }
    for name in ["WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER"] {
        let message = wrong(&format!("FROM box\n{name}"));
        assert!(message.ends_with(&format!("{name} requires exactly one argument")));
    }
}

/// Texts of which much has a meaning to the builder.
fn texts_of_a_builder() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let piece = prop_oneof![
        proptest::sample::select(
            &[
                "FROM a\n",
                "FROM ",
                " AS ",
                "RUN ",
                "COPY ",
                "ADD ",
                "ENV ",
                "ARG ",
                "LABEL ",
                "ONBUILD ",
                "HEALTHCHECK ",
                "CMD ",
                "VOLUME ",
                "# escape=`\n",
                "# syntax=",
                "#",
                "\\\n",
                "`\n",
                "\n",
                "\r\n",
                " ",
                "\t",
                "<<",
                "<<-",
                "EOF",
                "EOF\n",
                "\"",
                "'",
                "[",
                "]",
                ",",
                "\"a\"",
                "--mount=type=",
                "--from=",
                "--",
                "=",
                "$",
                "${",
                "}",
                ":-",
                "%%",
                "##",
                "/",
                "//",
                "*",
                "?",
                "\\",
                "a",
                "é",
                "\u{feff}",
                "\u{0}",
                "\u{2028}",
            ][..]
        )
        .prop_map(String::from),
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_odd(text in texts_of_a_builder()) {
        let lines = text.lines().count();
        match parse(&text) {
            Ok(file) => {
                let get = |name: &str| Some(name.repeat(3));
                for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                    assert!(instruction.lines.start >= 1 && instruction.lines.end <= lines + 2);
                    assert!(!mark("x", &text, &instruction.lines).is_empty());
                    // What was read once can be read again from its one line.
                    let expander = super::Expander::new(file.escape, &get);
                    drop((expander.word(&instruction.text), expander.words(&instruction.text)));
                    if let What::Onbuild(trigger) = &instruction.what {
                        one(trigger, file.escape).unwrap();
                    }
                    if let What::Copy(copy) | What::Add(copy) = &instruction.what {
                        for source in &copy.sources {
                            if let Source::Here(heredoc) = source {
                                drop(expander.heredoc(heredoc));
                            }
                        }
                    }
                }
            }
            Err(error) => {
                let lines = super::lines_of(&error).expect("an error has lines");
                assert!(!mark("x", &text, &lines).is_empty());
            }
        }
    }
}

#[test]
fn reading_takes_no_longer_than_the_text() {
    for (name, piece) in [
        ("a continued line", "a\\\n"),
        ("continued comments", "\\\n#a\n"),
        ("heredocs", "RUN <<A\na\nA\n"),
        ("quotes", "\"a\" 'b' "),
        ("options", "--mount=type=tmpfs "),
        ("words", "a=b "),
        ("variables", "${a:-b}"),
        ("open braces", "${a"),
        ("brackets", "[\"a\","),
    ] {
        let start = std::time::Instant::now();
        for head in ["", "RUN ", "ENV ", "COPY ", "RUN <<", "ONBUILD RUN "] {
            let text = format!("FROM a\n{head}{}", piece.repeat((256 << 10) / piece.len()));
            drop(parse(&text));
            let line = format!("FROM a\n{head}{}", piece.repeat(60_000 / piece.len()));
            if let Ok(file) = parse(&line) {
                let expander = super::Expander::new('\\', &|_| None);
                for instruction in &file.stages[0].instructions {
                    drop(expander.words(&instruction.text));
                }
            }
        }
        let took = start.elapsed();
        assert!(took.as_secs() < 20, "{name}: {took:?}");
    }
}

//! The book's sources hold together. Whether its transcripts are true is for
//! `just book-test` to see, and how its pages look for `just book-look`.
#![allow(clippy::unwrap_used)]

use std::fs;

use book::compare::Known;
use book::varies::{self, Varies};
use book::{self, Page, experiments, includes, look, preprocess, transcript};
use course::wrong;

#[test]
fn every_include_resolves() {
    let complaints: Vec<String> = book::pages()
        .unwrap()
        .iter()
        .flat_map(includes::complaints)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn every_insertion_can_be_made() {
    for page in book::pages().unwrap() {
        if let Err(error) = preprocess::page(&page.text) {
            panic!("{}: {error:#}", page.path);
        }
    }
}

#[test]
fn every_message_is_of_a_check_that_fails() {
    let all = wrong::all().unwrap();
    for (name, check) in preprocess::quoted_checks().unwrap() {
        let wrong = all.iter().find(|w| w.name == name);
        let fails = wrong.is_some_and(|w| w.fails.contains(&check));
        assert!(fails, "{name} does not fail {check}");
    }
}

#[test]
fn every_transcript_can_be_read_and_nearly_all_are_run() {
    let blocks: Vec<_> = book::pages()
        .unwrap()
        .iter()
        .flat_map(|page| match transcript::blocks(&page.text) {
            Ok(blocks) => blocks,
            Err(error) => panic!("{}: {error:#}", page.path),
        })
        .collect();
    let run = blocks.iter().filter(|b| b.norun.is_none()).count();
    assert!(run * 100 >= blocks.len() * 95, "{run} of {}", blocks.len());
}

#[test]
fn every_page_shows_values_and_every_pattern_fits_some() {
    let pages = book::pages().unwrap();
    let mut complaints = varies::strays(&pages).unwrap();
    for page in &pages {
        complaints.extend(Varies::of(page).unwrap().complaints(page).unwrap());
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_transcript_with_another_line_is_found_out() {
    for page in book::pages().unwrap() {
        let varies = Varies::of(&page).unwrap();
        let blocks = transcript::blocks(&page.text).unwrap();
        let run = blocks.iter().filter(|block| block.norun.is_none());
        for command in run.flat_map(|block| &block.commands) {
            let patterns = varies.patterns(command);
            let differs = |actual: &str| {
                let mut known = Known::default();
                let compared = known.compare(&command.expected, actual, patterns);
                !compared.differences.is_empty()
            };
            assert!(!differs(&command.expected), "{}", command.text);
            let lines: Vec<&str> = command.expected.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let changed = format!("{line}!");
                let may_vary = patterns.iter().any(|p| p.values(&changed).is_some());
                if *line == "..." || may_vary {
                    continue;
                }
                let mut actual = lines.clone();
                actual[at] = &changed;
                let place = format!("{}:{}", page.path, command.from + at + 1);
                assert!(differs(&actual.join("\n")), "{place}: {changed}");
            }
        }
    }
}

#[test]
fn every_experiment_has_its_section_and_its_check() {
    let pages = book::pages().unwrap();
    let table = pages
        .iter()
        .find(|page| page.name() == "experiments")
        .unwrap();
    let complaints = experiments::complaints(table, &pages).unwrap();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn every_chapter_of_a_step_has_its_parts() {
    for page in book::pages().unwrap() {
        if !page.name().starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        for part in [
            "## What you will build",
            "## The kernel's idea",
            "## Predict before you run",
            "## Experiments",
            "## The code, in the order in which it runs",
            "## The wrong ways",
            "## Checkpoint",
            "## Questions",
            "## Exercise",
            "## Bonus",
        ] {
            assert!(page.text.contains(part), "{} has no {part}", page.path);
        }
        let step = &page.name()[..2];
        assert!(
            page.text.contains(&format!("./just test-step {step}")),
            "{} does not say how it is checked",
            page.path
        );
        assert!(
            step == "00"
                || page.text.contains(&format!("{{{{#main-diff {step}}}}}"))
                || page.text.contains("src/list.rs:"),
            "{} does not show how the list grows",
            page.path
        );
    }
}

#[test]
fn a_page_that_is_wrong_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = "<html><body><main><div style='width:3000px'>wide</div>\
        <script>console.error('oh'); fetch('http://127.0.0.1:9/x').catch(() => {})</script>\
        </main></body></html>";
    for name in ["page.html", "index.html"] {
        fs::write(dir.path().join(name), wrong).unwrap();
    }
    let pages = [Page {
        path: "page.md".to_owned(),
        text: String::new(),
    }];
    let Some(found) = look::look(dir.path(), &pages, None).unwrap() else {
        return; // no browser
    };
    assert_eq!(found.views, 4);
    for word in [
        "wide, the window",
        "oh",
        "asks for",
        "the theme is not",
        "finds no",
    ] {
        let told = found.complaints.iter().any(|line| line.contains(word));
        assert!(told, "nothing says {word:?}: {:#?}", found.complaints);
    }
}

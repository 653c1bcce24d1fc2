//! The regions of a source file that are exercises.

use anyhow::{Result, bail};

use super::{Exercise, Exercises};

/// The prefix of the names of anchors around an exercise.
const PREFIX: &str = "exercise_";

/// The width of comments with a task, in columns.
const WIDTH: usize = 80;

/// The kinds of lines in a source file.
enum Line<'a> {
    Begin(&'a str),
    End(&'a str),
    /// An anchor of the book.
    Anchor,
    Code,
}

fn classify(line: &str) -> Line<'_> {
    let comment = line.trim().strip_prefix("// ").unwrap_or_default();
    let name = |keyword: &str| comment.strip_prefix(keyword).map(str::trim);
    match (name("ANCHOR: "), name("ANCHOR_END: ")) {
        (Some(name), _) => name.strip_prefix(PREFIX).map_or(Line::Anchor, Line::Begin),
        (_, Some(name)) => name.strip_prefix(PREFIX).map_or(Line::Anchor, Line::End),
        _ => Line::Code,
    }
}

/// The region of one exercise in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The exercise's name.
    pub name: String,
    /// The line number of the first comment, from 1.
    pub line: usize,
    /// The lines between the comments: our solution.
    pub solution: String,
}

/// Finds the regions of a file, in their order. It is an error if the comments
/// do not come in pairs, or if one region begins within another.
pub fn regions(text: &str) -> Result<Vec<Region>> {
    let mut regions: Vec<Region> = Vec::new();
    let mut open: Option<Region> = None;
    for (place, line) in text.lines().enumerate() {
        match (classify(line), &mut open) {
            (Line::Begin(name), None) => {
                open = Some(Region {
                    name: name.to_owned(),
                    line: place + 1,
                    solution: String::new(),
                });
            }
            (Line::Begin(name), Some(outer)) => {
                bail!("line {}: {name} begins within {}", place + 1, outer.name)
            }
            (Line::End(name), Some(region)) if region.name == name => regions.extend(open.take()),
            (Line::End(name), _) => bail!("line {}: {name} ends and never began", place + 1),
            (Line::Anchor | Line::Code, Some(region)) => {
                region.solution.push_str(line);
                region.solution.push('\n');
            }
            (Line::Anchor | Line::Code, None) => {}
        }
    }
    match open {
        Some(region) => bail!("line {}: {} never ends", region.line, region.name),
        None => Ok(regions),
    }
}

/// The file with the solutions of the first `done` exercises only. In the place
/// of each of the others stand its task, as a comment, and its [`gap`]. Anchors
/// of the book within such a solution stay, around the task.
pub fn cut(text: &str, exercises: &Exercises, done: usize) -> Result<String> {
    regions(text)?;
    let done = &exercises.all[..done.min(exercises.all.len())];
    let mut skeleton = String::new();
    let mut within = false;
    let mut behind = Vec::new();
    for line in text.lines() {
        match classify(line) {
            Line::Begin(name) => {
                let Some(exercise) = exercises.get(name) else {
                    bail!("{name} has no task in harness/exercises");
                };
                within = !done.iter().any(|done| done.name == name);
                if within {
                    behind = placeholder(line, exercise);
                }
            }
            Line::End(_) => {
                for line in behind.drain(..) {
                    skeleton.push_str(&line);
                    skeleton.push('\n');
                }
                within = false;
            }
            Line::Anchor if within && line.contains("ANCHOR_END") => behind.push(line.to_owned()),
            Line::Code if within => {}
            Line::Anchor | Line::Code => {
                skeleton.push_str(line);
                skeleton.push('\n');
            }
        }
    }
    Ok(skeleton)
}

/// The file with its solutions, but without the comments around them.
pub fn solved(text: &str) -> String {
    text.lines()
        .filter(|line| matches!(classify(line), Line::Anchor | Line::Code))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The file without any anchor: neither the book's nor those of exercises.
pub fn without_anchors(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| matches!(classify(line), Line::Code))
        .collect()
}

/// Whether the learner has not begun this exercise: its gap is still in the
/// file. The indentation may differ.
pub fn is_open(text: &str, exercise: &Exercise) -> bool {
    let trimmed = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| line.trim().to_owned()).collect()
    };
    let gap = gap(exercise);
    let gap = trimmed(&gap.lines().collect::<Vec<_>>());
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(gap.len()).any(|lines| trimmed(lines) == gap)
}

/// What stands in the place of a solution: a `todo!`, or a comment and the code
/// that does nothing instead.
fn gap(exercise: &Exercise) -> String {
    let Exercise { name, title, .. } = exercise;
    let Some(instead) = &exercise.instead else {
        let title = title.replace('{', "{{").replace('}', "}}");
        let title = title.replace('"', "\\\"");
        return format!("todo!(\"exercise {name}: {title}\");");
    };
    format!("// TODO exercise {name}: {title}\n{instead}")
        .trim_end()
        .to_owned()
}

fn placeholder(marker: &str, exercise: &Exercise) -> Vec<String> {
    let indent: String = marker.chars().take_while(|c| c.is_whitespace()).collect();
    let mut lines = vec![format!(
        "{indent}// Exercise {} ({}).",
        exercise.name, exercise.level
    )];
    let turns = format!("Turns green: {}.", exercise.turns.join(", "));
    for paragraph in [&exercise.task, &turns] {
        let mut line = format!("{indent}//");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut line, format!("{indent}//")));
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.extend(gap(exercise).lines().map(|line| match line.is_empty() {
        true => String::new(),
        false => format!("{indent}{line}"),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercise::Level;

    const FILE: &str = "\
fn a() -> u8 {
    let before = 1;
    // ANCHOR: exercise_sum
    // ANCHOR: shown
    let sum = before + 1;
    // ANCHOR_END: shown
    sum
    // ANCHOR_END: exercise_sum
}
";

    fn exercises(instead: Option<&str>) -> Exercises {
        Exercises {
            all: vec![Exercise {
                name: "sum".into(),
                level: Level::Core,
                title: "add {one}".into(),
                task: "Add one to it.".into(),
                turns: vec!["one_is_added".into()],
                instead: instead.map(str::to_owned),
            }],
        }
    }

    #[test]
    fn a_region_is_cut_out() -> Result<()> {
        let skeleton = "\
fn a() -> u8 {
    let before = 1;
    // ANCHOR: shown
    // Exercise sum (core).
    // Add one to it.
    // Turns green: one_is_added.
    todo!(\"exercise sum: add {{one}}\");
    // ANCHOR_END: shown
}
";
        let exercises = exercises(None);
        assert_eq!(cut(FILE, &exercises, 0)?, skeleton);
        assert_eq!(
            cut(FILE, &exercises, 1)?,
            FILE.lines()
                .filter(|line| !line.contains("exercise_"))
                .flat_map(|line| [line, "\n"])
                .collect::<String>()
        );
        assert!(is_open(skeleton, &exercises.all[0]));
        assert!(!is_open(FILE, &exercises.all[0]));
        Ok(())
    }

    #[test]
    fn code_may_stand_in_the_place_of_a_solution() -> Result<()> {
        let exercises = exercises(Some("let sum = before;\nsum\n"));
        let skeleton = cut(FILE, &exercises, 0)?;
        let gap = "    // TODO exercise sum: add {one}\n    let sum = before;\n    sum\n";
        assert!(skeleton.contains(gap), "{skeleton}");
        assert!(is_open(&skeleton, &exercises.all[0]));
        // Begun, with the comment left where it was.
        let begun = skeleton.replace("let sum = before;", "let sum = before + 1;");
        assert!(!is_open(&begun, &exercises.all[0]));
        Ok(())
    }

    #[test]
    fn the_solution_is_the_file_without_the_comments() -> Result<()> {
        assert!(!solved(FILE).contains("exercise"));
        assert!(solved(FILE).contains("let sum"));
        assert!(regions(FILE)?[0].solution.contains("let sum"));
        Ok(())
    }

    #[test]
    fn comments_come_in_pairs() {
        assert!(regions("// ANCHOR: exercise_a\n").is_err());
        assert!(regions("// ANCHOR_END: exercise_a\n").is_err());
        assert!(regions("// ANCHOR: exercise_a\n// ANCHOR: exercise_b\n").is_err());
        assert!(
            cut(
                "// ANCHOR: exercise_a\n// ANCHOR_END: exercise_a\n",
                &exercises(None),
                0
            )
            .is_err()
        );
    }
}

//! Hostile submissions: `harness/hostile/*.toml`. Each tries to gain points
//! that it has not earned, or to do harm. Graded like any other, it must
//! achieve neither.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use zip::write::SimpleFileOptions;

use crate::exercise::region::solved;
use crate::exercise::skeleton::{self, Solutions};
use crate::grade::marks::{Format, Marks};
use crate::wrong;
use check::outcome::Outcome;
use check::registry::Step;
use check::{toml_dir, workspace};
use vm::checking;

/// A hostile submission.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hostile {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// Its attack, in a few words.
    pub title: String,
    /// The step for which it is submitted.
    pub step: String,
    /// Its honest part: `skeleton`, which earns nothing; the name of a wrong
    /// solution, which earns all but the checks that this one fails; or
    /// `nothing`.
    pub on: String,
    /// Whether it is submitted as a zip archive.
    #[serde(default)]
    pub zip: bool,
    /// Time limit for the whole submission, in seconds.
    pub limit: Option<u64>,
    /// Time limit for each of its checks, in seconds.
    pub check_limit: Option<u64>,
    /// How it must end.
    pub expect: Expect,
    /// Text that the message for the submission as a whole, or for one of its
    /// checks, must contain.
    pub says: String,
    /// Checks that it passes honestly, and that its attack must not harm.
    #[serde(default)]
    pub passes: BTreeSet<String>,
    /// Rust source of the module `act`. The program calls its function `act`
    /// first.
    pub act: Option<String>,
    /// Shell script that the program runs first, with the program's arguments.
    pub script: Option<String>,
    /// Files added to the honest ones, or replacing them.
    #[serde(rename = "file", default)]
    pub files: Vec<Extra>,
}

/// How a hostile submission must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Refused without being run.
    Refused,
    /// Run without gaining anything.
    Held,
}

/// A file of a hostile submission. Its texts may contain the placeholders of
/// [`Bait`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// Path relative to the crate's directory; in an archive, the literal path.
    pub path: String,
    /// First part of its content.
    #[serde(default)]
    pub text: String,
    /// Second part of its content.
    #[serde(default)]
    pub end: String,
    /// How often each part is repeated; `None` for once.
    pub times: Option<usize>,
    /// Target of a symbolic link, which the file is instead.
    pub link: Option<String>,
    /// Length in bytes: the rest after the content is a hole.
    pub length: Option<u64>,
}

/// The targets of a hostile submission besides points. Its texts name each by a
/// placeholder.
#[derive(Debug)]
pub struct Bait {
    /// `{marker}`: a file that must not be made.
    marker: PathBuf,
    /// `{secret}`: a file of the teacher's, with a word in it that must not get
    /// out.
    secret: PathBuf,
    /// `{other}`: a source of another student, with the same word in it.
    other: PathBuf,
    /// `{build}`: the directory in which the submission is compiled, whose path
    /// it may guess.
    build: PathBuf,
    word: String,
}

impl Bait {
    /// Makes the files below `dir`, for a submission of step `number` that is
    /// compiled in `build`.
    pub fn put(dir: &Path, number: &str, build: PathBuf) -> Result<Bait> {
        let word = format!("bait{:016x}", checking::any_seed());
        let step = skeleton::step_dir(number)?;
        let other = Path::new("class/other").join(step.file_name().unwrap_or_default());
        let bait = Bait {
            marker: dir.join("marker"),
            secret: dir.join("secret.txt"),
            other: dir.join(other).join("src/name.rs"),
            build,
            word,
        };
        let word = &bait.word;
        skeleton::write(&bait.secret, &format!("{word} is nobody's to know\n"))?;
        skeleton::write(
            &bait.other,
            &format!("pub const NAME: &str = \"{word}\";\n"),
        )?;
        Ok(bait)
    }

    /// Replaces each `{name}` in a text by its path, and each `{name:symbol}`
    /// by the symbol that a linker makes of the path.
    fn named(&self, text: &str) -> String {
        let named = [
            ("root", &workspace::root()),
            ("marker", &self.marker),
            ("secret", &self.secret),
            ("other", &self.other),
            ("build", &self.build),
        ];
        named.iter().fold(text.to_owned(), |text, (name, path)| {
            let path = path.to_string_lossy();
            let symbol = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            text.replace(&format!("{{{name}}}"), &path)
                .replace(&format!("{{{name}:symbol}}"), &symbol)
        })
    }

    /// Makes sure that the submission with these marks has reached none of the
    /// targets.
    ///
    /// # Errors
    /// Names the file that it has made, or where the word has appeared.
    pub fn judge(&self, marks: &Marks) -> Result<()> {
        if self.marker.exists() {
            bail!("it has made {} on this host", self.marker.display());
        }
        if marks.format(Format::Json, "")?.contains(&self.word) {
            bail!("its marks tell what is in a file that is not its own");
        }
        let mut paths = vec![self.build.clone()];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                let list = || format!("list {}", path.display());
                for entry in fs::read_dir(&path).with_context(list)? {
                    paths.push(entry.with_context(list)?.path());
                }
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let word = self.word.as_bytes();
            if bytes.windows(word.len()).any(|part| part == word) {
                bail!("{} has a file in it that is not its own", path.display());
            }
        }
        Ok(())
    }
}

/// All hostile submissions, ordered by name.
///
/// # Errors
/// Names the file that cannot be read.
pub fn all() -> Result<Vec<Hostile>> {
    let all = toml_dir::read(&workspace::root().join("harness/hostile"))?;
    let named = |(name, hostile)| Hostile { name, ..hostile };
    Ok(all.into_iter().map(named).collect())
}

impl Hostile {
    /// The checks in `marks` that its honest part does not earn.
    pub fn unearned(&self, marks: &Marks) -> Result<BTreeSet<String>> {
        let all = marks.marks.iter().map(|mark| mark.check.clone());
        Ok(match self.on.as_str() {
            "skeleton" | "nothing" => all.collect(),
            name => self.wrong(name)?.fails,
        })
    }

    fn wrong(&self, name: &str) -> Result<wrong::Wrong> {
        wrong::all()?
            .into_iter()
            .find(|wrong| wrong.name == name && wrong.step == self.step)
            .with_context(|| {
                format!(
                    "{}: there is no wrong solution {name} of step {}",
                    self.name, self.step
                )
            })
    }

    /// Writes the submission below `dir` and returns the path to hand in.
    pub fn lay_out(&self, dir: &Path, bait: &Bait) -> Result<PathBuf> {
        let top = dir.join(&self.name);
        let ours = skeleton::step_dir(&self.step)?;
        let own = top.join(ours.file_name().unwrap_or_default());
        fs::create_dir_all(&own).with_context(|| format!("mkdir {}", own.display()))?;
        match self.on.as_str() {
            "nothing" => {}
            "skeleton" => skeleton::copy(&self.step, &own, Solutions::CutOut)?,
            name => {
                skeleton::copy(&self.step, &own, Solutions::Stay)?;
                for (file, text) in self.wrong(name)?.files()? {
                    let below = Path::new(&file)
                        .strip_prefix("steps")
                        .unwrap_or(file.as_ref());
                    skeleton::write(&top.join(below), &solved(&text))?;
                }
            }
        }
        self.write_act(&own)?;
        if self.zip {
            let archive = dir.join(format!("{}.zip", self.name));
            self.archive(&archive, bait)?;
            return Ok(archive);
        }
        for extra in &self.files {
            extra.write(&own.join(&extra.path), bait)?;
        }
        Ok(top)
    }

    /// Makes the program call the hostile part before anything else.
    fn write_act(&self, own: &Path) -> Result<()> {
        let act = match (&self.act, &self.script) {
            (Some(act), _) => act.clone(),
            (None, Some(script)) => format!(
                "pub fn act() {{\n    let args = std::env::args_os().skip(1);\n    \
                 let shell = std::process::Command::new(\"/bin/sh\")\
                 .args([\"-c\", {script:?}, \"hostile\"]).args(args).status();\n    \
                 drop(shell);\n}}\n"
            ),
            (None, None) => return Ok(()),
        };
        let main = own.join("src/main.rs");
        let begin = "fn main() -> ExitCode {";
        let text = skeleton::read(&main)?;
        if !text.contains(begin) {
            bail!("{}: no {begin:?}", main.display());
        }
        let text = text.replace(begin, &format!("mod act;\n\n{begin}\n    act::act();"));
        skeleton::write(&main, &text)?;
        skeleton::write(&own.join("src/act.rs"), &act)
    }

    fn archive(&self, to: &Path, bait: &Bait) -> Result<()> {
        let writing = || format!("write {}", to.display());
        let file = File::create(to).with_context(writing)?;
        let mut zip = zip::ZipWriter::new(file);
        for extra in &self.files {
            zip.start_file(bait.named(&extra.path), SimpleFileOptions::default())
                .with_context(writing)?;
            let zeros = std::io::repeat(0).take(extra.length.unwrap_or(0));
            let content = extra.content(bait);
            std::io::copy(&mut content.as_bytes().chain(zeros), &mut zip).with_context(writing)?;
        }
        zip.finish().with_context(writing)?;
        Ok(())
    }

    /// Makes sure that the submission got the marks it should.
    ///
    /// # Errors
    /// Names an unearned point, a check without a mark or spoilt by the attack,
    /// or the missing message.
    pub fn judge(&self, marks: &Marks) -> Result<()> {
        let checks = Step::read(&workspace::checks(), &self.step)?.checks.len();
        if marks.marks.len() != checks {
            bail!("{} of {checks} checks have marks", marks.marks.len());
        }
        let unearned = self.unearned(marks)?;
        for mark in &marks.marks {
            if unearned.contains(&mark.check) && mark.outcome == Outcome::Pass {
                bail!("it has gained {} points for {}", mark.points, mark.check);
            }
            if mark.outcome == Outcome::Unsupported {
                bail!("{} does not count any more: {}", mark.check, mark.message);
            }
            if self.passes.contains(&mark.check) && mark.outcome != Outcome::Pass {
                bail!("{} did not pass: {}", mark.check, mark.message);
            }
        }
        let trouble = marks.trouble.clone().unwrap_or_default();
        let ran = marks.marks.iter().any(|mark| mark.millis > 0);
        if self.expect == Expect::Refused && (ran || trouble.is_empty()) {
            bail!("it was not refused");
        }
        let told = marks.marks.iter().map(|mark| mark.message.as_str());
        if !told
            .chain([trouble.as_str()])
            .any(|text| text.contains(&self.says))
        {
            bail!("nothing says {:?}; as a whole: {trouble:?}", self.says);
        }
        Ok(())
    }
}

impl Extra {
    fn content(&self, bait: &Bait) -> String {
        let times = self.times.unwrap_or(1);
        bait.named(&self.text).repeat(times) + &self.end.repeat(times)
    }

    fn write(&self, to: &Path, bait: &Bait) -> Result<()> {
        let writing = || format!("write {}", to.display());
        if to.exists() {
            fs::remove_file(to).with_context(writing)?;
        }
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir).with_context(writing)?;
        }
        if let Some(target) = &self.link {
            return symlink(bait.named(target), to).with_context(writing);
        }
        let mut file = File::create(to).with_context(writing)?;
        file.write_all(self.content(bait).as_bytes())
            .with_context(writing)?;
        match self.length {
            Some(length) => file.set_len(length).with_context(writing),
            None => Ok(()),
        }
    }
}

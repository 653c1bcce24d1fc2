//! The checks: their data, `tests/step_NN.toml`, and their functions, as a test
//! program lists them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The checks of one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Number of the step, two digits.
    pub step: String,
    /// Subject of the step: `PID namespace`.
    pub title: String,
    /// Its checks, in the order of running.
    #[serde(rename = "check")]
    pub checks: Vec<Entry>,
}

/// The data of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The test function in `tests/step_NN.rs` or in one of its modules.
    pub name: String,
    /// What a pass proves: "the command is PID 1 inside".
    pub title: String,
    /// Its points. Those of a step add up to 100.
    pub points: u32,
    /// Checks of the same step that must pass first.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What the kernel or machine must have: see
    /// [`requirement`](crate::requirement).
    #[serde(default)]
    pub requires: Vec<String>,
    /// Programs that it uses if they are installed, written as in `requires`.
    #[serde(default)]
    pub uses: Vec<String>,
    /// Seconds in an emulated machine, roughly, if they are many. The first run
    /// divides the checks among its machines by this.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// The reason: one sentence about the kernel.
    pub why: String,
    /// Where to look next.
    pub hint: String,
}

impl Step {
    /// Reads the data of one step.
    ///
    /// # Errors
    /// Names the file, and the line of the fault: an unknown field, or a
    /// `needs` that names no earlier check.
    pub fn read(dir: &Path, number: &str) -> Result<Self> {
        let file = dir.join(format!("step_{number}.toml"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let step: Step =
            toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        for (place, check) in step.checks.iter().enumerate() {
            if step.checks[..place].iter().any(|c| c.name == check.name) {
                bail!("{}: {} is listed twice", file.display(), check.name);
            }
            for need in &check.needs {
                if !step.checks[..place].iter().any(|c| &c.name == need) {
                    bail!(
                        "{}: {} needs {need}, which does not come before it",
                        file.display(),
                        check.name
                    );
                }
            }
        }
        Ok(step)
    }

    /// Keeps the `wanted` checks and those that they need.
    pub fn keep(&mut self, wanted: impl Fn(&Entry) -> bool) {
        let mut kept: Vec<String> = Vec::new();
        for check in self.checks.iter().rev() {
            if wanted(check) || kept.contains(&check.name) {
                kept.push(check.name.clone());
                kept.extend(check.needs.iter().cloned());
            }
        }
        self.checks.retain(|check| kept.contains(&check.name));
    }

    /// Moves a check to the front, behind those that it needs.
    pub fn first(&mut self, name: &str) {
        let mut with_needs = self.clone();
        with_needs.keep(|check| check.name == name);
        let first = with_needs.checks;
        self.checks
            .retain(|check| first.iter().all(|other| other.name != check.name));
        self.checks.splice(0..0, first);
    }

    /// Keeps the checks whose name or title contains `text`, and those that
    /// they need.
    pub fn matching(&mut self, text: &str) {
        self.keep(|check| check.name.contains(text) || check.title.contains(text));
    }

    /// Keeps the `wanted` checks only, and runs them even if those that they
    /// need have not passed.
    pub fn only(&mut self, wanted: impl Fn(&Entry) -> bool) {
        self.checks.retain(wanted);
        for check in &mut self.checks {
            check.needs.clear();
        }
    }

    /// The data of the check `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Compares the checks with the functions of the step's test program.
    ///
    /// # Errors
    /// Names the checks that only one of the two has.
    pub fn agree(&self, functions: &Functions) -> Result<()> {
        let number = &self.step;
        let lacks = |file: &str, names: Vec<&str>| match names.is_empty() {
            true => None,
            false => Some(format!("step_{number}.{file} lacks {}", names.join(", "))),
        };
        let names = self.checks.iter().map(|check| check.name.as_str());
        let no_function = names.filter(|name| !functions.0.contains_key(*name));
        let names = functions.0.keys().map(String::as_str);
        let no_data = names.filter(|name| self.entry(name).is_none());
        let faults = [
            lacks("rs", no_function.collect()),
            lacks("toml", no_data.collect()),
        ];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        if !faults.is_empty() {
            bail!("{}", faults.join("; "));
        }
        Ok(())
    }
}

/// The test functions of a test program: the name of each, and its path, which
/// libtest's `--exact` takes.
#[derive(Clone, Debug, Default)]
pub struct Functions(BTreeMap<String, String>);

impl Functions {
    /// Asks the program `tests` for its list.
    pub fn of(tests: &Path) -> Result<Self> {
        let output = Command::new(tests)
            .args(["--list", "--format", "terse"])
            .output()
            .with_context(|| format!("run {} --list", tests.display()))?;
        if !output.status.success() {
            bail!("{} --list: {}", tests.display(), output.status);
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| format!("the checks in {}", tests.display()))
    }

    /// Parses such a list, which has a line `module::name: test` for each.
    fn parse(list: &str) -> Result<Self> {
        let mut functions = BTreeMap::new();
        for path in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let name = path.rsplit("::").next().unwrap_or(path);
            if let Some(other) = functions.insert(name.to_owned(), path.to_owned()) {
                bail!("{other} and {path} have the same name");
            }
        }
        Ok(Functions(functions))
    }

    /// The path of the function of the check `name`.
    pub fn path(&self, name: &str) -> Result<&str> {
        let path = self.0.get(name);
        path.map(String::as_str)
            .with_context(|| format!("the check {name} has no function"))
    }
}

/// The numbers of all steps that have checks, in order.
pub fn numbers(dir: &Path) -> Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let name = entry
            .with_context(|| format!("list {}", dir.display()))?
            .file_name();
        let name = name.to_string_lossy();
        if let Some(number) = name
            .strip_prefix("step_")
            .and_then(|rest| rest.strip_suffix(".toml"))
        {
            numbers.push(number.to_owned());
        }
    }
    numbers.sort();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "
        step = '03'
        title = 'PID namespace'
        [[check]]
        name = 'here'
        title = 't'
        points = 60
        why = 'w'
        hint = 'h'
        [[check]]
        name = 'there'
        title = 't'
        points = 40
        why = 'w'
        hint = 'h'
    ";

    #[test]
    fn a_function_is_found_by_the_name_of_its_check() {
        let functions = Functions::parse("here: test\nmodule::there: test\n").unwrap();
        assert_eq!(functions.path("here").unwrap(), "here");
        assert_eq!(functions.path("there").unwrap(), "module::there");
        assert!(functions.path("nowhere").is_err());
        toml::from_str::<Step>(DATA)
            .unwrap()
            .agree(&functions)
            .unwrap();
    }

    #[test]
    fn a_check_in_one_place_only_is_an_error_that_names_it() {
        let functions = Functions::parse("here: test\nmodule::new: test\n").unwrap();
        let step: Step = toml::from_str(DATA).unwrap();
        let said = step.agree(&functions).unwrap_err().to_string();
        assert_eq!(said, "step_03.rs lacks there; step_03.toml lacks new");
    }

    #[test]
    fn two_functions_of_one_name_are_an_error() {
        let twice = Functions::parse("here: test\nmodule::here: test\n").unwrap_err();
        assert!(twice.to_string().contains("module::here"), "{twice}");
    }
}

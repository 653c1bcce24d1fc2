//! The mutants that do the same as our source are still there. Which mutants
//! the checks notice is for `./just mutants` to see.
#![allow(clippy::unwrap_used)]

use check::registry;
use check::workspace;
use course::mutant;

#[test]
fn every_equivalent_mutant_is_one_of_our_sources_and_has_a_reason() {
    let steps = registry::numbers(&workspace::checks()).unwrap();
    let mutants = mutant::all(&steps).unwrap();
    assert!(mutants.len() > 1000, "{} mutants", mutants.len());
    for equivalent in mutant::equivalents().unwrap() {
        assert!(!equivalent.because.is_empty(), "{equivalent:?}");
        assert!(
            mutants.iter().any(|mutant| equivalent.fits(mutant)),
            "harness/mutants.toml: no mutant is {equivalent:?}"
        );
    }
}

#[test]
fn every_mutant_changes_its_file() {
    for mutant in mutant::all(&["00".to_owned()]).unwrap() {
        let file = workspace::root().join(&mutant.file);
        let ours = std::fs::read_to_string(file).unwrap();
        assert_ne!(mutant.text().unwrap(), ours, "{}", mutant.place());
    }
}

//! Figures that the programs of a bench measure and print themselves.

use std::collections::BTreeMap;

/// The samples of each figure, by its name and unit.
pub type Figures = BTreeMap<(String, String), Vec<f64>>;

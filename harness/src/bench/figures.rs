//! What the programs of a bench have measured themselves.

use std::collections::BTreeMap;

/// A figure of the work: its name and unit to the sample.
pub type Figures = BTreeMap<(String, String), Vec<f64>>;

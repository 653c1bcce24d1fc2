//! A limit, in the form of each version of control groups.

/// A limit, in the form of each version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The option, as it was given: `--memory 128m`.
    pub(crate) asked: String,
    /// The limit comes with another option. If the kernel lacks the file, it is
    /// skipped.
    pub(crate) implied: bool,
    /// The values to write on v1, in this order.
    pub(crate) v1: Vec<Value>,
    /// The values to write on v2, in this order.
    pub(crate) v2: Vec<Value>,
}

/// A value for a controller's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) controller: &'static str,
    /// File and value, as alternatives: the first file that this kernel has is
    /// used.
    pub(crate) choices: Vec<(&'static str, String)>,
}

pub(crate) fn value(controller: &'static str, file: &'static str, value: impl ToString) -> Value {
    Value {
        controller,
        choices: vec![(file, value.to_string())],
    }
}

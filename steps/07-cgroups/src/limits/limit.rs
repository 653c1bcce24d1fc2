//! A limit, as each version of control groups writes it.

/// One limit, as each version writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The option, as it was given: `--memory 128m`.
    pub(crate) asked: String,
    /// Nobody asked for it: it comes with another option, and a kernel that
    /// cannot do it does without.
    pub(crate) implied: bool,
    /// What to write on v1, in this order.
    pub(crate) v1: Vec<Value>,
    /// What to write on v2, in this order.
    pub(crate) v2: Vec<Value>,
}

/// A value for a file of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) controller: &'static str,
    /// File and value. Of several, the first that this kernel has.
    pub(crate) choices: Vec<(&'static str, String)>,
}

pub(crate) fn value(controller: &'static str, file: &'static str, value: impl ToString) -> Value {
    Value {
        controller,
        choices: vec![(file, value.to_string())],
    }
}

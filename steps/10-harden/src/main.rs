//! step-10
fn main() {}

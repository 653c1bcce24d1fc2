//! `drydock`: run a command in a new container.

fn main() {}

//! The child that copies, as a launch.

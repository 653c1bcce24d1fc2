//! Checks of step 09: the engine, all steps at once.

#[path = "step_09/images.rs"]
mod images;

//! Checks of step 09: the engine, all steps at once.

#[path = "step_09/archives.rs"]
mod archives;
#[path = "step_09/images.rs"]
mod images;
#[path = "step_09/keeping_images.rs"]
mod keeping_images;
#[path = "step_09/layouts.rs"]
mod layouts;

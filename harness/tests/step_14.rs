//! Checks of step 14: build.

#[path = "step_14/document.rs"]
mod document;
#[path = "step_14/files.rs"]
mod files;
#[path = "step_14/fold.rs"]
mod fold;
#[path = "step_14/yard.rs"]
mod yard;

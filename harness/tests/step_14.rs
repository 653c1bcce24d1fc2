//! Checks of step 14: build.

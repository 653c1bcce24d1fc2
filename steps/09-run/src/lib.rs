//! Step 09: the full run. All of the steps at once, on images.
//!
//! | module | what |
//! |---|---|
//! | [`image`] | images: where they come from, how they are kept, what they say |

pub mod image;

//! The files that a build may see: a directory, or an archive from standard
//! input, without what `.dockerignore` names.

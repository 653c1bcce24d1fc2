//! The build: a fold over the instructions of the stages that are wanted.

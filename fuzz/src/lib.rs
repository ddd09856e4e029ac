//! What the fuzz targets do with an input, as functions that need no fuzzer: `tests/fuzz_targets.rs` of the crate takes this file
//! in as a module and runs each over a short corpus.

pub mod contexts;
pub mod loading;
pub mod one_end;
pub mod session;

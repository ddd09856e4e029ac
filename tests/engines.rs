//! What depends on the engine, and so on the features of the crate: the promises on each of them, and what a context is told.
//!
//! The tests are in few programs, since each takes its time to be built, and the next one waits for the slowest test of the one before.

#[allow(dead_code)]
#[path = "trust/authority.rs"]
mod authority;
mod certificate;
mod common;
mod defaults;
#[allow(dead_code)]
#[path = "peers/harness.rs"]
mod harness;
mod matrix;
mod post_quantum;
mod promises;
mod settings;
#[allow(dead_code)]
#[path = "matrix/table.rs"]
mod table;
mod tcp;
mod trust;
mod usage;
mod versions;

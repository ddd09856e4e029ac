//! What depends on the engine, and so on the features of the crate: the promises on each of them, and what a context is told.
//!
//! The tests are in few programs, since each takes its time to be built, and the next one waits for the slowest test of the one before.

#[cfg(unix)]
#[allow(dead_code)]
#[path = "trust/authority.rs"]
mod authority;
#[cfg(unix)]
mod certificate;
mod common;
#[cfg(unix)]
mod defaults;
#[cfg(unix)]
#[allow(dead_code)]
#[path = "peers/harness.rs"]
mod harness;
#[cfg(all(unix, feature = "log"))]
mod log;
#[cfg(unix)]
mod matrix;
mod post_quantum;
mod promises;
#[cfg(unix)]
mod settings;
#[cfg(unix)]
#[allow(dead_code)]
#[path = "matrix/table.rs"]
mod table;
mod tcp;
#[cfg(unix)]
mod trust;
mod usage;
mod versions;

//! The fourteen faults that were found from outside in November 2026, `a` to `n`: each has tests named after its letter.
//! The peer is a bare TLS library, or one that puts any record on the wire.
#![cfg(unix)]

mod bounds;
mod callbacks;
mod costs;
mod drops;
mod ends;
mod new_api;
mod panics;
mod records;
mod sharing;

//! The fourteen faults that were found from outside in November 2026, `a` to `n`: each has tests named after its letter.
//! The peer is a bare TLS library, or one that puts any record on the wire.
#![cfg(unix)]

#[path = "faults_found/bounds.rs"]
mod bounds;
#[path = "faults_found/callbacks.rs"]
mod callbacks;
mod common;
#[path = "faults_found/costs.rs"]
mod costs;
#[path = "faults_found/drops.rs"]
mod drops;
#[path = "faults_found/ends.rs"]
mod ends;
mod evil;
#[path = "faults_found/new_api.rs"]
mod new_api;
#[path = "faults_found/panics.rs"]
mod panics;
#[path = "faults_found/records.rs"]
mod records;
#[allow(dead_code)]
#[path = "callbacks/rig.rs"]
mod rig;
#[path = "faults_found/sharing.rs"]
mod sharing;

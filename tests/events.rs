//! Backends and what they call: callbacks of files and of listeners. And the faults that others found.

mod backend;
mod backpressure;
mod callbacks;
mod common;
mod evil;
mod faults_found;
mod foreign_loops;
mod listener;
mod listener_events;
mod listener_finish;
mod listener_limits;
#[allow(dead_code)]
#[path = "callbacks/rig.rs"]
mod rig;
mod seeds;

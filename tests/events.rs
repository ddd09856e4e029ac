//! Backends and what they call: callbacks of files and of listeners. And the faults that others found.

mod backend;
mod backpressure;
mod callbacks;
mod common;
mod evil;
#[cfg(unix)]
mod faults_found;
#[cfg(unix)]
mod foreign_loops;
mod listener;
mod listener_events;
mod listener_finish;
#[cfg(unix)]
mod listener_limits;
#[allow(dead_code)]
#[path = "callbacks/rig.rs"]
mod rig;
#[cfg(unix)]
mod seeds;

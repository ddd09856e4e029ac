//! Callbacks: when they are called, in which order, how often, and what may be done inside them. The peer is a bare
//! TLS library.
//!
//! The rig's log joins pieces of plaintext that came one after the other.
#![cfg(unix)]

mod common;
#[path = "callbacks/ends.rs"]
mod ends;
#[path = "callbacks/inside.rs"]
mod inside;
#[path = "callbacks/modes.rs"]
mod modes;
#[path = "callbacks/moves.rs"]
mod moves;
#[path = "callbacks/order.rs"]
mod order;
#[path = "callbacks/rig.rs"]
mod rig;

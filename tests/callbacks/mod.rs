//! Callbacks: when they are called, in which order, how often, and what may be done inside them. The peer is a bare
//! TLS library.
//!
//! The rig's log joins pieces of plaintext that came one after the other.

mod ends;
mod inside;
mod late;
mod modes;
mod moves;
mod order;

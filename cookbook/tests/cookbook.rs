//! The examples, with peers that others have written, on each engine that was built.
#![cfg(unix)]

// As they stand; each has a `main` of its own.
#[allow(dead_code)]
#[path = "../examples"]
mod examples {
    pub mod unix_bridge;
    pub mod ureq_agent;
    pub mod websocket;
}

mod cookbook {
    pub mod rig;
    mod unix_bridge;
    mod ureq_agent;
    mod websocket;
}

//! Each cell of the tables in the guide to the engines (src/docs/engines.md), on every engine that was built. That a setting which
//! is taken has its effect is shown in tests/settings.
#![cfg(unix)]

mod facts;
mod settings;

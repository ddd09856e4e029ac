//! Files whose calls the program makes by itself, in one thread or in many.

mod busy_poll;
mod common;
mod corners;
mod cut;
mod deadlines;
mod evil;
mod faults;
mod loss;
mod misuse;
mod model;
mod nested;
mod plain_file;
mod records;
mod socket;
mod split;
#[cfg(unix)]
mod streams;
#[cfg(unix)]
mod takeover;
mod threads;
mod wire;

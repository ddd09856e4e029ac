//! How many descriptors a process may have.

use rustix::process::{getrlimit, setrlimit, Resource};

/// What a process needs beside its connections: standard streams, libraries, pollers, pipes.
const OTHERS: usize = 64;

/// The soft limit becomes the hard one: each handshake of a case, say, has its two sockets from the beginning.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        eprintln!("cannot raise the limit on open files: {e}");
    }
}

/// How many connections there can be of those that are wanted, if each takes so many descriptors of a process. The hard limit
/// is raised for them where the system allows that, which it does to root; processes that are started later inherit it. With too
/// few the user is told.
pub fn connections(wanted: usize, descriptors: usize) -> usize {
    let needed = wanted * descriptors;
    if has_room_for(needed) {
        return wanted;
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = (current as usize).saturating_sub(OTHERS) / descriptors;
    println!("{possible} connections instead of {wanted}: a process may have no more than {current} descriptors\n");
    possible
}

/// Whether so many descriptors for connections can be had.
pub fn has_room_for(descriptors: usize) -> bool {
    let needed = (descriptors + OTHERS) as u64;
    let has_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    let mut limit = getrlimit(Resource::Nofile);
    if has_enough(limit.current) {
        return true;
    }
    limit.current = Some(needed);
    limit.maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, limit).is_ok()
}

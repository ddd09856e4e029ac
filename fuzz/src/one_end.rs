//! Arbitrary bytes into one end. Nobody who lacks the other end's keys can complete its handshake, so no bytes may: each run
//! comes to an error, and to the same one however the bytes are split.

use std::io;

use sslfile::{Connection, Error, ErrorKind};

use super::contexts::{clients, servers};

/// How reading ended.
type End = Result<usize, (io::ErrorKind, Option<ErrorKind>)>;

pub fn server(input: &[u8]) {
    for context in servers() {
        let ends = both_ways(|| Connection::server(context).expect("server"), input);
        // Nothing at all is how a client that has changed its mind ends; nothing else is a clean end.
        assert_eq!(ends == Ok(0), input.is_empty(), "{context:?}: {ends:?}");
    }
}

pub fn client(input: &[u8]) {
    for context in clients() {
        let end = both_ways(|| Connection::client(context, "localhost").expect("client"), input);
        assert!(end.is_err(), "{context:?}: {end:?}");
    }
}

fn both_ways(open: impl Fn() -> Connection, input: &[u8]) -> End {
    let whole = end_of(open(), input.chunks(input.len().max(1)));
    let split = end_of(open(), input.chunks(if input.len() < 1_000 { 1 } else { 53 }));
    assert_eq!(whole, split, "as a whole, and in pieces");
    whole
}

fn end_of<'a>(mut connection: Connection, pieces: impl Iterator<Item = &'a [u8]>) -> End {
    let mut failure = None;
    for piece in pieces {
        connection.feed(piece);
        let handshake = call(connection.handshake());
        assert!(!connection.is_handshake_done());
        // A failure is final.
        assert!(failure.is_none() || failure == Some(handshake), "{failure:?}, then {handshake:?}");
        if handshake != Err((io::ErrorKind::WouldBlock, None)) {
            failure = Some(handshake);
        }
        assert_eq!(call(connection.read(&mut [0; 100])).map(|_| ()), handshake);
        assert_eq!(call(connection.write(b"data")).map(|_| ()), handshake);
        let sent = connection.output().len();
        connection.consume_output(sent);
    }
    connection.feed_eof();
    let end = call(connection.read(&mut [0; 100]));
    assert_ne!(end, Err((io::ErrorKind::WouldBlock, None)), "after the end of the input");
    assert_eq!(call(connection.read(&mut [0; 100])), end, "again");
    assert!(connection.handshake().is_err() && connection.write(b"data").is_err());
    assert!(!connection.is_handshake_done() && !connection.is_peer_closed());
    connection.take_unread();
    end
}

fn call<T>(result: io::Result<T>) -> Result<T, (io::ErrorKind, Option<ErrorKind>)> {
    result.map_err(|e| (e.kind(), Error::of(&e).map(Error::kind)))
}

//! What a peer can make a connection do without sending data.

use std::io::ErrorKind as Io;

use sslfile::{Connection, Engine, ErrorKind, Role, Version};

use super::common::{engines, kind_of, pattern};
use crate::evil::{connection_pair, on_each, speaks, ALERT, DATA, HANDSHAKE};

type Evil = crate::evil::Evil<()>;

/// Records in a row without data, and session tickets.
const RECORDS: usize = 32;
const TICKETS: u32 = 255;
/// Bytes of answers that wait to be taken.
const ANSWERS: usize = 4096;

const ROLES: [Role; 2] = [Role::Client, Role::Server];
const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];
const CLOSE_NOTIFY: u8 = 0;

/// Runs it for each engine and role in these versions.
fn each(versions: &'static [Version], test: fn(Engine, Role, Version, Connection, Evil)) {
    on_each(versions, move |engine, role, version| {
        let (ours, peer) = connection_pair(engine, role, version);
        test(engine, role, version, ours, peer);
    });
}

#[track_caller]
fn read(ours: &mut Connection) -> Result<Vec<u8>, std::io::Error> {
    let mut buf = vec![0; 20_000];
    let n = ours.read(&mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

#[track_caller]
fn assert_waits(ours: &mut Connection, what: &str) {
    let error = read(ours).expect_err(what);
    assert_eq!(error.kind(), Io::WouldBlock, "{what}: {error}");
}

/// It has failed; the fatal alert that its error names is the last thing on the wire, and what it tells of itself.
#[track_caller]
fn assert_failed(ours: &mut Connection, peer: &mut Evil, what: &str) -> String {
    let error = read(ours).expect_err(what);
    let Some(ErrorKind::LocalAlert(alert)) = kind_of(&error) else {
        panic!("{what}: {:?}, {error}", kind_of(&error));
    };
    let sent = peer.open(ours.output());
    assert_eq!(sent.last(), Some(&(ALERT, vec![2, alert])), "{what}: {error}");
    let told = ours.take_alerts();
    assert_eq!(told.last().map(|a| (a.number(), a.is_ours())), Some((alert, true)), "{what}: {error}");
    assert_eq!(error.kind(), Io::InvalidData, "{what}");
    let text = error.to_string();
    assert!(text.starts_with("reading: "), "{what}: {text}");
    assert_eq!(ours.write(b"x").expect_err("over").to_string(), text, "{what}");
    text
}

/// Lots of records of one kind, in one piece: no more of them than may be are worked on.
#[track_caller]
fn assert_flood_ends(
    mut ours: Connection,
    mut peer: Evil,
    what: &str,
    record: &dyn Fn(&mut Evil) -> Vec<u8>,
) -> String {
    const FLOOD: usize = 100_000;
    let before = ours.traffic().records_received;
    let some: Vec<u8> = (0..1000).flat_map(|_| record(&mut peer)).collect();
    // What is behind these never comes to be looked at.
    for _ in 0..FLOOD / 1000 {
        ours.feed(&some);
    }
    let text = assert_failed(&mut ours, &mut peer, what);
    let worked_on = ours.traffic().records_received - before;
    assert!(worked_on <= RECORDS as u64 + 2, "{what}: {worked_on} records");
    assert!(!ours.take_unread().is_empty(), "{what}");
    text
}

/// So many of them go by, again and again, if there is data in between.
#[track_caller]
fn assert_pass(ours: &mut Connection, peer: &mut Evil, many: usize, what: &str, record: &dyn Fn(&mut Evil) -> Vec<u8>) {
    for round in 0..20 {
        for _ in 0..many {
            // One call each: it counts from call to call.
            ours.feed(&record(peer));
            assert_waits(ours, what);
        }
        ours.feed(&peer.data(&[round]));
        assert_eq!(read(ours).expect(what), [round], "{what}");
        let sent = ours.output().to_vec();
        ours.consume_output(sent.len());
        peer.open(&sent);
        ours.write(b"still").expect(what);
        let sent = ours.output().to_vec();
        ours.consume_output(sent.len());
        assert_eq!(peer.open(&sent).last(), Some(&(DATA, b"still".to_vec())), "{what}");
    }
}

#[test]
fn key_updates_in_a_row_are_limited() {
    each(&[Version::Tls1_3], |engine, role, version, mut ours, mut peer| {
        for asks in [false, true] {
            let what = format!("{engine:?} {role:?}, asks for one: {asks}");
            assert_pass(&mut ours, &mut peer, RECORDS, &what, &|peer| peer.key_update(asks));
            let (ours, peer) = connection_pair(engine, role, version);
            let text = assert_flood_ends(ours, peer, &what, &|peer| peer.key_update(asks));
            assert!(
                text.contains("in a row without data") || text.contains("too many key update requests"),
                "{what}: {text}"
            );
        }
    });
}

#[test]
fn empty_records_in_a_row_are_limited() {
    each(&VERSIONS, |engine, role, version, mut ours, mut peer| {
        let what = format!("{engine:?} {role:?} {version}");
        assert_pass(&mut ours, &mut peer, RECORDS, &what, &|peer| peer.data(b""));
        assert_flood_ends(ours, peer, &what, &|peer| peer.data(b""));
    });
}

#[test]
fn warnings_in_a_row_are_limited() {
    const WARNING: u8 = 1;
    const USER_CANCELED: u8 = 90;
    each(&VERSIONS, |engine, role, version, mut ours, mut peer| {
        let what = format!("{engine:?} {role:?} {version}");
        let record = |peer: &mut Evil| peer.record(ALERT, &[WARNING, USER_CANCELED]);
        for n in 0..4 {
            ours.feed(&record(&mut peer));
            assert_waits(&mut ours, &format!("{what}: warning {n}"));
        }
        assert_flood_ends(ours, peer, &what, &record);
    });
}

/// A HelloRequest, or a client's hello.
pub fn renegotiation(peer: &mut Evil, ours: Role) -> Vec<u8> {
    match ours {
        Role::Client => peer.record(HANDSHAKE, &[0, 0, 0, 0]),
        Role::Server => {
            let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2b], &[1, 0]].concat();
            peer.record(HANDSHAKE, &[&[1, 0, 0, body.len() as u8][..], &body].concat())
        }
    }
}

#[test]
fn requests_to_renegotiate_are_limited() {
    each(&[Version::Tls1_2], |engine, role, version, ours, peer| {
        let what = format!("{engine:?} {role:?}");
        assert_flood_ends(ours, peer, &what, &|peer| renegotiation(peer, role));
        // Many in one record.
        let (mut ours, mut peer) = connection_pair(engine, role, version);
        if role == Role::Client {
            for _ in 0..=RECORDS {
                ours.feed(&peer.record(HANDSHAKE, &[0; 4 * 4000]));
            }
            assert_failed(&mut ours, &mut peer, &what);
        }
    });
}

#[test]
fn session_tickets_have_a_limit_of_their_own() {
    each(&[Version::Tls1_3], |engine, role, _, mut ours, mut peer| {
        if role == Role::Server {
            return;
        }
        let what = format!("{engine:?}");
        for round in 0..2 {
            for number in 0..TICKETS {
                ours.feed(&peer.session_ticket(number));
            }
            ours.feed(&peer.data(&[round]));
            assert_eq!(read(&mut ours).expect(&what), [round], "{what}");
        }
        for number in 0..300 {
            ours.feed(&peer.session_ticket(number));
        }
        let before = ours.traffic().records_received;
        assert_failed(&mut ours, &mut peer, &what);
        assert_eq!(ours.traffic().records_received - before, u64::from(TICKETS) + 1, "{what}");
    });
}

/// Asks for an answer with each byte of data until the connection fails, 10,000 times at the most. Says how often.
fn ask(ours: &mut Connection, each: &mut dyn FnMut(&mut Connection) -> Vec<u8>) -> usize {
    for asked in 0..10_000 {
        let records = each(ours);
        ours.feed(&records);
        match read(ours) {
            Ok(data) => assert_eq!(data, b"x"),
            Err(_) => return asked,
        }
    }
    10_000
}

#[test]
fn answers_that_nobody_takes_are_limited() {
    let mut limited = 0;
    for engine in engines() {
        for version in VERSIONS {
            for role in ROLES {
                if !speaks(engine, role, version) {
                    continue;
                }
                let (mut ours, mut peer) = connection_pair(engine, role, version);
                let what = format!("{engine:?} {role:?} {version}");
                let asked = ask(&mut ours, &mut |_| {
                    let asks = match version {
                        Version::Tls1_3 => peer.key_update(true),
                        _ => renegotiation(&mut peer, role),
                    };
                    [asks, peer.data(b"x")].concat()
                });
                assert!(ours.output().len() < ANSWERS + 100, "{what}: {} bytes", ours.output().len());
                if asked == 10_000 {
                    // Merged into one, which goes with our next data; or the library renegotiates, and that once.
                    assert!(ours.output().len() < 1000, "{what}");
                    continue;
                }
                let text = assert_failed(&mut ours, &mut peer, &what);
                limited += usize::from(text.contains("does not take"));
            }
        }
    }
    assert!(limited > 0 || !engines().contains(&Engine::OpenSsl));
}

/// The output is never empty when an answer is put into it.
#[test]
fn answers_that_are_taken_have_no_limit() {
    for engine in engines().into_iter().filter(|engine| *engine == Engine::OpenSsl) {
        let (mut ours, mut peer) = connection_pair(engine, Role::Client, Version::Tls1_2);
        let (mut answers, mut kept) = (0, 0);
        let asked = ask(&mut ours, &mut |ours| {
            ours.write(b"data").expect("open");
            let new = ours.output()[kept..].to_vec();
            answers += peer.open(&new).iter().filter(|(kind, _)| *kind == ALERT).count();
            // The end of the last record stays.
            ours.consume_output(kept + new.len() - 3);
            kept = 3;
            [renegotiation(&mut peer, Role::Client), peer.data(b"x")].concat()
        });
        assert_eq!((asked, answers), (10_000, 9_999));
    }
}

#[test]
fn long_transfers_with_key_updates_go_through() {
    each(&[Version::Tls1_3], |engine, role, _, mut ours, mut peer| {
        let what = format!("{engine:?} {role:?}");
        let data = pattern(2, 16_000);
        let mut got = 0;
        while got < 20 << 20 {
            ours.feed(&[peer.key_update(got % 3 == 0), peer.data(b""), peer.data(&data)].concat());
            assert!(read(&mut ours).expect(&what) == data, "{what}");
            got += data.len();
            let output = ours.output().to_vec();
            ours.consume_output(output.len());
            peer.open(&output);
        }
    });
}

#[test]
fn nothing_is_said_behind_our_close_notify() {
    each(&VERSIONS, |engine, role, version, mut ours, mut peer| {
        let what = format!("{engine:?} {role:?} {version}");
        ours.take_alerts();
        ours.close().expect(&what);
        let output = ours.output().to_vec();
        ours.consume_output(output.len());
        assert_eq!(peer.open(&output), [(ALERT, vec![1, CLOSE_NOTIFY])], "{what}");
        let sent = ours.traffic();
        let is_silent = |ours: &Connection, when: &str| {
            assert!(ours.output().is_empty(), "{what}: {when}");
            let now = ours.traffic();
            assert_eq!((now.bytes_sent, now.records_sent), (sent.bytes_sent, sent.records_sent), "{what}: {when}");
        };
        for round in 0..200 {
            ours.feed(&match version {
                Version::Tls1_3 => peer.key_update(true),
                _ => peer.data(b""),
            });
            ours.feed(&peer.data(&[round]));
            assert_eq!(read(&mut ours).expect(&what), [round], "{what}");
            is_silent(&ours, "an answer");
        }
        if version == Version::Tls1_2 {
            ours.feed(&renegotiation(&mut peer, role));
            let _ = read(&mut ours);
            is_silent(&ours, "a renegotiation");
        }
        ours.feed(b"no record at all");
        let error = read(&mut ours).expect_err(&what);
        assert_eq!(kind_of(&error), Some(ErrorKind::Protocol), "{what}: {error}");
        is_silent(&ours, "an alert");
        let told: Vec<_> = ours.take_alerts().iter().map(|a| (a.number(), a.is_ours())).collect();
        assert_eq!(told, [(CLOSE_NOTIFY, true)], "{what}");
    });
}

#[test]
fn floods_behind_our_close_notify_end_without_an_alert() {
    each(&[Version::Tls1_3], |engine, role, _, mut ours, mut peer| {
        let what = format!("{engine:?} {role:?}");
        ours.close().expect(&what);
        ours.consume_output(usize::MAX);
        for _ in 0..100 {
            ours.feed(&peer.key_update(true));
        }
        let error = read(&mut ours).expect_err(&what);
        assert_eq!(kind_of(&error), Some(ErrorKind::Protocol), "{what}: {error}");
        assert!(ours.output().is_empty(), "{what}");
    });
}

//! `Polled`: any `Read + Write` with a descriptor has what sockets have. Shown with a terminal and a type of another crate.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{fcntl_getfl, OFlags};
use sslfile::{Backend, Callbacks, Engine, Handshake, Polled, SslFile};

use crate::common::{client_context, engines, pattern, server_context, until_busy, within, LONG, NAME};

const LIMIT: Duration = Duration::from_millis(200);

/// A terminal's two ends, that pass bytes as they are.
fn terminal() -> (File, File) {
    use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
    use rustix::termios::{tcgetattr, tcsetattr, OptionalActions};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("openpt");
    grantpt(&master).expect("grantpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("a path");
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let line = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).expect("open");
    let mut settings = tcgetattr(&line).expect("settings");
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings).expect("raw");
    (File::from(master), File::from(line))
}

fn sockets() -> (mio::net::UnixStream, mio::net::UnixStream) {
    mio::net::UnixStream::pair().expect("pair")
}

trait Ends: Read + Write + AsFd + Send + Sync + 'static {}
impl<T: Read + Write + AsFd + Send + Sync + 'static> Ends for T {}

/// Files with shaken hands.
fn open<T: Ends>(engine: Engine, (near, far): (T, T)) -> (SslFile<Polled<T>>, SslFile<Polled<T>>) {
    let options = || SslFile::options().nonblocking(false).handshake(Handshake::Lazy);
    let client = options().client(NAME).open(Polled::new(near), &client_context(engine)).expect("client");
    let server = options().server().open(Polled::new(far), &server_context(engine)).expect("server");
    thread::scope(|t| {
        t.spawn(|| (&client).write_all(b"x").expect("write"));
        (&server).read_exact(&mut [0]).expect("read");
    });
    (client, server)
}

fn each(on_terminals: fn(Engine, (File, File)), on_sockets: fn(Engine, (mio::net::UnixStream, mio::net::UnixStream))) {
    within(LONG, move || {
        for engine in engines() {
            on_terminals(engine, terminal());
            on_sockets(engine, sockets());
        }
    });
}

fn times_out<T: std::fmt::Debug>(call: impl FnOnce() -> io::Result<T>) {
    let begin = Instant::now();
    assert_eq!(call().expect_err("nothing comes").kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() >= LIMIT);
}

fn waits_like_a_socket<T: Ends>(engine: Engine, ends: (T, T)) {
    let (client, server) = open(engine, ends);
    client.set_read_timeout(Some(LIMIT)).expect("time-out");
    times_out(|| (&client).read(&mut [0]));
    client.set_read_timeout(None).expect("time-out");
    thread::scope(|t| {
        let reader = t.spawn(|| (&client).read(&mut [0]));
        until_busy(&client);
        // A blocked reader holds up no writer.
        (&client).write_all(b"up").expect("write");
        client.interrupt();
        assert_eq!(reader.join().expect("no panic").expect_err("interrupted").kind(), ErrorKind::Other);
    });
    (&server).read_exact(&mut [0; 2]).expect("read");
    client.set_nonblocking(true).expect("mode");
    assert_eq!((&client).read(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
}

#[test]
fn time_outs_modes_and_interrupt_are_there() {
    each(waits_like_a_socket, waits_like_a_socket);
}

fn goes_both_ways<T: Ends>(engine: Engine, ends: (T, T)) {
    const SIZE: usize = 1 << 20;
    let (client, server) = open(engine, ends);
    thread::scope(|t| {
        for (file, seed) in [(&client, 1), (&server, 2)] {
            t.spawn(move || (&mut &*file).write_all(&pattern(seed, SIZE)).expect("write"));
        }
        for (file, seed) in [(&client, 2), (&server, 1)] {
            t.spawn(move || {
                let mut all = vec![0; SIZE];
                (&mut &*file).read_exact(&mut all).expect("read");
                assert!(all == pattern(seed, SIZE));
            });
        }
    });
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!((&server).read(&mut [0]).expect("close_notify"), 0);
}

#[test]
fn both_directions_are_used_at_once() {
    each(goes_both_ways, goes_both_ways);
}

fn calls_back<T: Ends>(engine: Engine, ends: (T, T)) {
    let (client, server) = open(engine, ends);
    let backend = Backend::new().expect("backend");
    let (tell, told) = std::sync::mpsc::channel();
    server.set_nonblocking(true).expect("mode");
    server.set_callbacks(
        Callbacks::new()
            .on_read(|file: &SslFile<_>, data| file.send(data).expect("send"))
            .on_close(move |_, end| tell.send(end.is_ok()).expect("the test lives")),
    );
    server.set_backend(Some(&backend)).expect("backend");
    thread::scope(|t| {
        t.spawn(|| {
            (&client).write_all(b"echo").expect("write");
            let mut echo = [0; 4];
            (&client).read_exact(&mut echo).expect("read");
            assert_eq!(&echo, b"echo");
            client.shutdown(Shutdown::Write).expect("shutdown");
        });
        let end = loop {
            backend.turn(None).expect("turn");
            if let Ok(end) = told.try_recv() {
                break end;
            }
        };
        assert!(end, "a clean end");
    });
}

#[test]
fn backends_drive_them() {
    each(calls_back, calls_back);
}

fn is_put_back<T: Ends>(engine: Engine, (near, far): (T, T)) {
    let is_nonblocking = |it: &T| fcntl_getfl(it).expect("flags").contains(OFlags::NONBLOCK);
    let before = is_nonblocking(&near);
    let (client, server) = open(engine, (near, far));
    thread::scope(|t| {
        t.spawn(|| server.close_clean().expect("close_clean"));
        client.close_clean().expect("close_clean");
    });
    let (near, unread) = client.release().expect("release");
    assert_eq!(unread, b"");
    let near = near.into_inner();
    assert_eq!(is_nonblocking(&near), before);
}

#[test]
fn the_stream_comes_back_as_it_was() {
    each(is_put_back, is_put_back);
}

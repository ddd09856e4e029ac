use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::machine::Going;

/// Far more than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(60))
}

pub(super) fn late() -> Option<Instant> {
    Some(Instant::now() + LONG)
}

pub(super) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // Nothing is told to wait where a file has the socket.
    claim(near.as_fd()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Until nothing more goes.
pub(super) fn fill(fd: BorrowedFd<'_>) -> usize {
    let mut sent = 0;
    loop {
        match try_send(fd, &[7; 65536], Going::AsSet) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The system may still move some on to the peer.
                if wait(&[(fd, Ready::WRITABLE)], &Doorbell::default(), soon()) == Woken::TimedOut {
                    return sent;
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
}

/// Rings for a thread that is asleep in that way; gives how its wait ended.
fn rung_while(asleep: impl FnOnce(&Doorbell) -> Woken + Send + 'static, state: u8) -> Woken {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let bell = Doorbell::current();
        tell.send(bell.clone()).unwrap();
        asleep(&bell)
    });
    let bell = told.recv().unwrap();
    let begun = Instant::now();
    while !bell.is_asleep(state) {
        assert!(begun.elapsed() < LONG);
        thread::yield_now();
    }
    bell.ring();
    thread.join().unwrap()
}

#[test]
fn a_ring_before_a_sleep_or_a_wait_ends_it_and_only_one() {
    let bell = Doorbell::default();
    let (near, _far) = tcp_pair();
    let wanted = [(near.as_fd(), Ready::READABLE)];
    bell.ring();
    bell.ring();
    assert_eq!(bell.sleep(late()), Woken::Rung);
    assert_eq!(bell.sleep(soon()), Woken::TimedOut);
    bell.ring();
    assert_eq!(wait(&wanted, &bell, late()), Woken::Rung);
    assert_eq!(wait(&wanted, &bell, soon()), Woken::TimedOut);
    bell.ring();
    assert!(bell.is_rung() && bell.take_ring() && !bell.take_ring() && !bell.is_rung());
    assert_eq!(wait(&wanted, &bell, soon()), Woken::TimedOut);
}

#[test]
fn a_ring_ends_a_sleep_under_way() {
    assert_eq!(rung_while(|bell| bell.sleep(late()), doorbell::PARKED), Woken::Rung);
    assert_eq!(rung_while(|bell| wait(&[], bell, late()), doorbell::PARKED), Woken::Rung);
    assert_eq!(rung_while(|bell| bell.sleep(None), doorbell::PARKED), Woken::Rung);
}

#[test]
fn a_ring_ends_a_wait_under_way_and_leaves_nothing_behind() {
    for until in [late(), None] {
        let woken = rung_while(
            move |bell| {
                let (near, _far) = tcp_pair();
                let wanted = [(near.as_fd(), Ready::READABLE)];
                let woken = wait(&wanted, bell, until);
                // The ringer writes to the bell behind the flag, so one more look is allowed.
                let more = [wait(&wanted, bell, soon()), wait(&wanted, bell, soon())];
                assert_eq!(more[1], Woken::TimedOut);
                woken
            },
            doorbell::POLLING,
        );
        assert_eq!(woken, Woken::Rung);
    }
}

#[test]
#[cfg(unix)]
fn the_bell_that_other_systems_have_rings_too() {
    let own = Bell::pair().unwrap();
    for _ in 0..100_000 {
        // Does not block when it is full.
        own.ring();
    }
    let bell = Doorbell::with_bell(own);
    let (near, _far) = tcp_pair();
    let wanted = [(near.as_fd(), Ready::READABLE)];
    assert_eq!(wait(&wanted, &bell, late()), Woken::Rung);
    assert_eq!(wait(&wanted, &bell, soon()), Woken::TimedOut);
    // From another thread, in poll.
    let (again, begun) = (bell.clone(), Instant::now());
    let ringer = thread::spawn(move || {
        while !again.is_asleep(doorbell::POLLING) {
            assert!(begun.elapsed() < LONG);
            thread::yield_now();
        }
        again.ring();
    });
    assert_eq!(wait(&wanted, &bell, late()), Woken::Rung);
    ringer.join().unwrap();
}

#[test]
fn no_ring_is_lost() {
    // Each side rings the other and waits for its answer. A lost ring leaves both asleep.
    fn play(rounds: u32, count: &AtomicU32, mine: u32, own: &Doorbell, other: &Doorbell, stream: Option<&TcpStream>) {
        for round in 0..rounds {
            while count.load(Ordering::SeqCst) != 2 * round + mine {
                let woken = match stream {
                    Some(stream) => wait(&[(stream.as_fd(), Ready::READABLE)], own, late()),
                    None => own.sleep(late()),
                };
                assert_eq!(woken, Woken::Rung);
            }
            count.fetch_add(1, Ordering::SeqCst);
            other.ring();
        }
    }
    const ROUNDS: u32 = if cfg!(windows) { 4_000 } else { 20_000 };
    for polls in [false, true] {
        let (near, _far) = tcp_pair();
        let stream = polls.then_some(&near);
        let (count, a, b) = (AtomicU32::new(0), Doorbell::default(), Doorbell::default());
        thread::scope(|scope| {
            scope.spawn(|| play(ROUNDS, &count, 0, &a, &b, stream));
            scope.spawn(|| play(ROUNDS, &count, 1, &b, &a, None));
        });
        assert_eq!(count.load(Ordering::SeqCst), 2 * ROUNDS);
    }
}

#[test]
fn a_thread_has_one_bell() {
    let bell = Doorbell::current();
    assert!(Arc::ptr_eq(&bell, &Doorbell::current()));
    let other = thread::spawn(Doorbell::current).join().unwrap();
    assert!(!Arc::ptr_eq(&bell, &other));
}

#[test]
fn what_is_ready_is_told_and_nothing_else() {
    let bell = Doorbell::default();
    let (near, mut far) = tcp_pair();
    let both = Ready { readable: true, writable: true };
    let fd = near.as_fd();
    assert_eq!(wait(&[(fd, both)], &bell, late()), Woken::Ready(Ready::WRITABLE));
    assert_eq!(wait(&[(fd, Ready::READABLE)], &bell, soon()), Woken::TimedOut);
    far.write_all(b"x").unwrap();
    assert_eq!(wait(&[(fd, Ready::READABLE)], &bell, late()), Woken::Ready(Ready::READABLE));
    assert_eq!(wait(&[(fd, both)], &bell, late()), Woken::Ready(both));
    // Also when its time is over already.
    assert_eq!(wait(&[(fd, both)], &bell, Some(Instant::now())), Woken::Ready(both));

    // Of two, the one that is; of one of which nothing is wanted, nothing, not even its end.
    let (mine, theirs) = tcp_pair();
    drop(theirs);
    assert_eq!(
        wait(&[(mine.as_fd(), Ready::default()), (fd, Ready::READABLE)], &bell, late()),
        Woken::Ready(Ready::READABLE)
    );
    assert_eq!(wait(&[(mine.as_fd(), Ready::default())], &bell, soon()), Woken::TimedOut);
    let (quiet, _peer) = tcp_pair();
    assert_eq!(
        wait(&[(mine.as_fd(), Ready::default()), (quiet.as_fd(), Ready::READABLE)], &bell, soon()),
        Woken::TimedOut
    );
    assert_eq!(
        wait(&[(quiet.as_fd(), Ready::READABLE), (fd, Ready::WRITABLE)], &bell, late()),
        Woken::Ready(Ready::WRITABLE)
    );
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn the_end_of_what_is_not_wanted_does_not_make_a_wait_spin() {
    /// Of this thread, as the system counts it.
    fn processor_time() -> Duration {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(told.split_whitespace().next().unwrap().parse().unwrap())
    }
    let (mine, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(theirs);
    let (quiet, _peer) = tcp_pair();
    let before = processor_time();
    let wanted = [(mine.as_fd(), Ready::default()), (quiet.as_fd(), Ready::READABLE)];
    assert_eq!(wait(&wanted, &Doorbell::default(), soon()), Woken::TimedOut);
    let spent = processor_time() - before;
    assert!(spent < Duration::from_millis(10), "{spent:?}");
}

#[test]
fn an_end_counts_as_ready() {
    let bell = Doorbell::default();
    let (near, far) = tcp_pair();
    fill(near.as_fd());
    assert_eq!(wait(&[(near.as_fd(), Ready::WRITABLE)], &bell, soon()), Woken::TimedOut);
    // With unread data: a reset.
    drop(far);
    assert_eq!(wait(&[(near.as_fd(), Ready::WRITABLE)], &bell, late()), Woken::Ready(Ready::WRITABLE));
    assert_eq!(wait(&[(near.as_fd(), Ready::READABLE)], &bell, late()), Woken::Ready(Ready::READABLE));
    // Windows keeps it to itself.
    assert_eq!(take_error(near.as_fd()).is_some(), cfg!(unix));
    assert!(take_error(near.as_fd()).is_none());
}

#[test]
#[cfg(unix)]
fn the_end_of_a_pipe_counts_as_ready() {
    let bell = Doorbell::default();
    let (reader, writer) = io::pipe().unwrap();
    drop(writer);
    assert_eq!(wait(&[(reader.as_fd(), Ready::READABLE)], &bell, late()), Woken::Ready(Ready::READABLE));
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert_eq!(wait(&[(writer.as_fd(), Ready::WRITABLE)], &bell, late()), Woken::Ready(Ready::WRITABLE));
}

#[test]
fn spinning_leaves_a_ring_for_the_wait_behind_it() {
    let (near, _far) = tcp_pair();
    let bell = Doorbell::default();
    let result = spin(&bell, late(), || {
        bell.ring();
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
    assert!(result.is_none());
    assert_eq!(wait(&[(near.as_fd(), Ready::READABLE)], &bell, late()), Woken::Rung);
}

#[test]
fn no_wait_times_out_early() {
    let (near, _far) = tcp_pair();
    let bell = Doorbell::default();
    // Times that are not whole milliseconds.
    for time in [1, 999, 1_001, 2_500, 19_999, 50_001].map(Duration::from_micros) {
        let until = Instant::now() + time;
        assert_eq!(wait(&[(near.as_fd(), Ready::READABLE)], &bell, Some(until)), Woken::TimedOut);
        assert!(Instant::now() >= until);
        let until = Instant::now() + time;
        assert_eq!(bell.sleep(Some(until)), Woken::TimedOut);
        assert!(Instant::now() >= until);
    }
}

#[test]
fn spinning_gives_what_comes_or_ends_in_time() {
    let bell = Doorbell::default();
    let (near, far) = tcp_pair();
    let mut buf = [0; 8];
    let until = soon();
    assert!(spin(&bell, until, || try_recv(near.as_fd(), &mut buf)).is_none());
    assert!(Instant::now() >= until.unwrap());
    (&far).write_all(b"abc").unwrap();
    assert_eq!(spin(&bell, late(), || try_recv(near.as_fd(), &mut buf)).unwrap().unwrap(), 3);
    drop(far);
    assert_eq!(spin(&bell, late(), || try_recv(near.as_fd(), &mut buf)).unwrap().unwrap(), 0);
}

/// In a process of its own, as the limit is the process's.
#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn without_descriptors_waits_are_slow_but_do_not_fail() {
    use std::{env, process};

    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    const NAME: &str = "sys::tests::without_descriptors_waits_are_slow_but_do_not_fail";
    const MARK: &str = "SSLFILE_TEST_WITHOUT_DESCRIPTORS";
    if env::var_os(MARK).is_none() {
        let child = process::Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
        return;
    }
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
    };
    let (near, far) = tcp_pair();
    let wanted = [(near.as_fd(), Ready::READABLE)];
    // 3: no bell can be made. 0: and poll itself fails.
    for most in [3, 0] {
        limit(most);
        let bell = Arc::new(Doorbell::default());
        assert!(bell.bell().is_none());
        let until = soon();
        let woken = loop {
            match wait(&wanted, &bell, until) {
                // Where poll fails the caller is asked to try.
                Woken::Ready(_) if most == 0 => {
                    assert_eq!(try_recv(near.as_fd(), &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
                }
                woken => break woken,
            }
        };
        assert_eq!(woken, Woken::TimedOut);
        assert!(Instant::now() >= until.unwrap());

        let (from, begun) = (bell.clone(), Instant::now());
        let ringer = thread::spawn(move || {
            thread::sleep(2 * SLICE);
            from.ring();
        });
        while wait(&wanted, &bell, late()) != Woken::Rung {
            assert!(begun.elapsed() < LONG);
        }
        ringer.join().unwrap();
        assert!(begun.elapsed() < LONG / 2);

        (&far).write_all(b"x").unwrap();
        assert_eq!(wait(&wanted, &bell, late()), Woken::Ready(Ready::READABLE));
        assert_eq!(try_recv(near.as_fd(), &mut [0; 2]).unwrap(), 1);
        limit(64);
        // And when there are some again, the bell is made.
        assert!(bell.bell().is_some());
    }
}

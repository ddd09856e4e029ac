use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use super::super::tests::{fill, tcp_pair, LONG};
use super::super::SLICE;
use super::*;

#[test]
fn nothing_of_a_socket_waits_but_a_bounded_receive() {
    let (near, far) = tcp_pair();
    let fd = near.as_fd();
    claim(fd).unwrap();
    let mut buf = [0; 8];
    assert_eq!(try_recv(fd, &mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(fill(fd) > 0);
    assert!(!is_nonblocking(fd).unwrap());

    near.set_read_timeout(Some(LONG)).unwrap();
    near.set_write_timeout(Some(2 * LONG)).unwrap();
    let before = timeouts(fd).unwrap();
    assert_eq!(before, (Some(LONG), Some(2 * LONG)));
    bound_receives(fd).unwrap();
    let begun = Instant::now();
    assert_eq!(recv_for_slice(fd, &mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let took = begun.elapsed();
    assert!(took >= SLICE / 2 && took < LONG / 2, "{took:?}");
    (&far).write_all(b"x").unwrap();
    assert_eq!(recv_for_slice(fd, &mut buf).unwrap(), 1);
    restore_timeout(fd, before.0).unwrap();
    assert_eq!(timeouts(fd).unwrap(), before);
    near.set_nonblocking(true).unwrap();
    assert!(is_nonblocking(fd).unwrap());
}

#[test]
fn bells_are_close_on_exec_and_ring_without_waiting() {
    use rustix::io::{fcntl_getfd, FdFlags};
    for bell in [Bell::new().unwrap(), Bell::pair().unwrap()] {
        for end in [bell.as_fd(), bell.write_end()] {
            assert!(fcntl_getfd(end).unwrap().contains(FdFlags::CLOEXEC));
            assert!(is_nonblocking(end).unwrap());
        }
    }
}

#[test]
fn halves_with_a_descriptor_are_found_and_put_back_as_they_were() {
    let (mut reader, writer) = io::pipe().unwrap();
    {
        let fd = descriptor_of(&reader).unwrap();
        let flags = Flags::of(fd).unwrap();
        assert!(!flags.are_nonblocking());
        flags.set_nonblocking(fd).unwrap();
        assert!(is_nonblocking(duplicate(fd).unwrap().as_fd()).unwrap());
        let mut half = &reader;
        assert_eq!(half.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        flags.restore(fd).unwrap();
        assert!(!is_nonblocking(fd).unwrap());
    }
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(descriptor_of(&io::stdin()).is_none());
    assert!(descriptor_of(&io::BufReader::new(reader)).is_none());
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use super::super::super::{wait, Doorbell, Ready, Woken};
    use super::*;
    use crate::machine::Going;

    #[test]
    fn a_last_send_goes_with_the_half_close_and_another_at_once() {
        // Linux waits for more for 200 ms.
        let before = || Some(Instant::now() + Duration::from_millis(100));
        let bell = Doorbell::default();
        let (near, mut far) = tcp_pair();
        assert_eq!(try_send(near.as_fd(), b"some", Going::AsSet).unwrap(), 4);
        assert_eq!(wait(&[(far.as_fd(), Ready::READABLE)], &bell, before()), Woken::Ready(Ready::READABLE));
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 4);
        assert_eq!(try_send(near.as_fd(), b"the end", Going::Last).unwrap(), 7);
        assert_eq!(wait(&[(far.as_fd(), Ready::READABLE)], &bell, before()), Woken::TimedOut);
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = String::new();
        far.read_to_string(&mut all).unwrap();
        assert_eq!(all, "the end");
    }

    #[test]
    fn what_the_peer_has_not_taken_is_known() {
        // Until nothing is left, or the time is over.
        fn settles(fd: std::os::fd::BorrowedFd<'_>) -> bool {
            let begun = Instant::now();
            while unacknowledged(fd) != Some(0) {
                if begun.elapsed() > LONG {
                    return false;
                }
                thread::sleep(Duration::from_millis(1));
            }
            true
        }
        fn check(near: std::os::fd::BorrowedFd<'_>, far: &mut impl Read) {
            assert_eq!(unacknowledged(near), Some(0));
            let mut left = fill(near);
            assert!(unacknowledged(near).unwrap() > 0);
            let mut buf = vec![0; 65536];
            while left > 0 {
                left -= far.read(&mut buf).unwrap();
            }
            assert!(settles(near));
        }
        let (near, mut far) = tcp_pair();
        check(near.as_fd(), &mut far);
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(settles(near.as_fd()), "the half-close is acknowledged");
        let (near, mut far) = UnixStream::pair().unwrap();
        check(near.as_fd(), &mut far);
        let (_reader, writer) = io::pipe().unwrap();
        assert_eq!(unacknowledged(writer.as_fd()), None);
    }
}

use std::io::{self, Write};
use std::net::Shutdown;
use std::thread;

use super::super::tests::{fill, late, soon, tcp_pair};
use super::super::{wait, AsFd, Doorbell, Ready, Woken, SLICE};
use super::*;
use crate::machine::Going;

#[test]
fn nothing_of_a_claimed_socket_waits() {
    let (near, far) = tcp_pair();
    let fd = near.as_fd();
    claim(fd).unwrap();
    bound_receives(fd).unwrap();
    let mut buf = [0; 8];
    for receive in [try_recv, recv_for_slice] {
        assert_eq!(receive(fd, &mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    assert!(fill(fd) > 0);
    unclaim(fd);
    let reader = thread::spawn(move || io::Read::read(&mut &near, &mut [0; 8]).unwrap());
    thread::sleep(2 * SLICE);
    assert!(!reader.is_finished(), "a socket that was given back blocks");
    (&far).write_all(b"x").unwrap();
    assert_eq!(reader.join().unwrap(), 1);
}

#[test]
fn a_half_close_of_the_peers_makes_no_room_and_no_spinning() {
    let bell = Doorbell::default();
    let (near, far) = tcp_pair();
    let fd = near.as_fd();
    claim(fd).unwrap();
    let sent = fill(fd);
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wait(&[(fd, Ready::READABLE)], &bell, late()), Woken::Ready(Ready::READABLE));
    assert_eq!(try_recv(fd, &mut [0]).unwrap(), 0);
    assert_eq!(wait(&[(fd, Ready::WRITABLE)], &bell, soon()), Woken::TimedOut);
    bell.ring();
    assert_eq!(wait(&[(fd, Ready::WRITABLE)], &bell, late()), Woken::Rung);
    // And there is room when the peer has taken something.
    let taker = thread::spawn(move || {
        let (mut taken, mut buf) = (0, vec![0; 65536]);
        while taken < sent {
            taken += io::Read::read(&mut &far, &mut buf).unwrap();
        }
        far
    });
    assert_eq!(wait(&[(fd, Ready::WRITABLE)], &bell, late()), Woken::Ready(Ready::WRITABLE));
    drop(taker.join().unwrap());
}

#[test]
fn behind_our_own_end_there_is_an_end_and_a_broken_pipe() {
    let (near, _far) = tcp_pair();
    near.shutdown(Shutdown::Both).unwrap();
    assert_eq!(try_recv(near.as_fd(), &mut [0]).unwrap(), 0);
    assert_eq!(try_send(near.as_fd(), b"x", Going::AsSet).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn halves_that_are_sockets_are_found() {
    let (near, _far) = tcp_pair();
    let fd = descriptor_of(&near).unwrap();
    let flags = Flags::of(fd).unwrap();
    assert!(!flags.are_nonblocking());
    flags.set_nonblocking(fd).unwrap();
    assert_eq!(near.peek(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    flags.restore(duplicate(fd).unwrap().as_fd()).unwrap();
    assert!(descriptor_of(&socket2::Socket::from(near)).is_some());
    assert!(descriptor_of(&io::pipe().unwrap().0).is_none());
    assert!(descriptor_of(&io::stdin()).is_none());
}

//! Nagle's algorithm keeps small writes until what was written before is acknowledged, for which a peer may take 40 ms and more. What
//! TLS says by itself is nobody's reason to wait.

use super::*;

const CONNECTIONS: usize = 9;
/// Less than Linux has a quiet peer's acknowledgement wait, and far more than an answer takes.
const SOON: Duration = Duration::from_millis(35);

/// The median, with a peer that sends at once: its acknowledgements come with what it says next, or late.
fn time_of_first_answer(net: &Net, has_question: bool) -> Duration {
    let mut times: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            thread::scope(|t| {
                let server = t.spawn(|| {
                    let server = net.accept();
                    if has_question {
                        (&server).read_exact(&mut [0; 64]).expect("question");
                    } else {
                        server.handshake().expect("handshake");
                    }
                    (&server).write_all(&[1; 64]).expect("answer");
                    server
                });
                let tcp = TcpStream::connect(net.addr).expect("connect");
                tcp.set_nodelay(true).expect("set_nodelay");
                let client = SslFile::client(tcp, &net.client, NAME).expect("client");
                let start = Instant::now();
                if has_question {
                    (&client).write_all(&[0; 64]).expect("question");
                }
                (&client).read_exact(&mut [0; 64]).expect("answer");
                let time = start.elapsed();
                let server = server.join().expect("server");
                assert!(!server.nodelay().expect("nodelay"), "it stays as it was");
                assert!(client.nodelay().expect("nodelay"), "it stays as it was");
                time
            })
        })
        .collect();
    times.sort();
    times[CONNECTIONS / 2]
}

/// A machine that is busy may take as long for a while; who waits for an acknowledgement always does.
fn check(net: &Net, has_question: bool) {
    let times = [(); 3].map(|()| time_of_first_answer(net, has_question));
    assert!(times.iter().any(|time| *time < SOON), "{:?}: {times:?}", net.engine);
}

#[test]
fn no_first_answer_waits_for_what_tls_says_by_itself() {
    each(|net| check(net, true));
}

#[test]
fn no_greeting_waits_for_what_tls_says_by_itself() {
    each(|net| check(net, false));
}

//! A process that is stopped and continued wakes from every system call it slept in. Nobody who waits may notice.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "SSLFILE_TEST_SIGNALS";

#[test]
fn stopping_and_continuing_the_process_disturbs_no_wait() {
    if std::env::var(CHILD).is_ok() {
        return each(wait_in_every_way);
    }
    let name = "deadlines::signals::stopping_and_continuing_the_process_disturbs_no_wait";
    let mut command = common::test_in_child(name, &[(CHILD, "1")]);
    within(2 * LONG, move || {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("child");
        let pid = child.id().to_string();
        let signal = |name: &str| {
            let script = format!("kill -{name} {pid}");
            assert!(Command::new("sh").args(["-c", &script]).status().expect("sh").success());
        };
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        for _ in engines() {
            lines.by_ref().map(|line| line.expect("line")).find(|line| line.ends_with(READY)).expect("ready");
            for _ in 0..10 {
                signal("STOP");
                thread::sleep(Duration::from_millis(20));
                signal("CONT");
                thread::sleep(Duration::from_millis(20));
            }
        }
        // Before the wait: a full pipe would stop it.
        lines.for_each(drop);
        let status = child.wait().expect("wait");
        assert!(status.success(), "{status}");
    });
}

const READY: &str = "all are waiting";

fn wait_in_every_way(engine: Engine) {
    let (client, server) = tls_pair(engine);
    let (_silent, tcp) = tcp_pair();
    let handshaking = lazy().server().open(tcp, &server_context(engine)).expect("open");
    let limited = client_context(engine);
    let (tcp, _silent) = tcp_pair();
    let limited = lazy().client(NAME).open(tcp, &limited).expect("open");
    let limit = 5 * LIMIT;
    limited.set_read_timeout(Some(limit)).expect("set");
    let data = pattern(10, 16 << 20);
    thread::scope(|t| {
        let reader = t.spawn(|| read_all(&client, 1));
        let writer = t.spawn(|| (&client).write_all(&data).expect("write_all"));
        let handshake = t.spawn(|| handshaking.handshake());
        let with_limit = t.spawn(|| times_out(limit, || (&limited).read(&mut [0])));
        [&client, &handshaking, &limited].into_iter().for_each(until_busy);
        println!("{READY}");
        with_limit.join().expect("reader with a time-out");
        assert!(!reader.is_finished() && !writer.is_finished() && !handshake.is_finished());
        (&server).write_all(&[1]).expect("write");
        assert_eq!(reader.join().expect("reader"), [1]);
        assert!(read_all(&server, data.len()) == data);
        writer.join().expect("writer");
        handshaking.interrupt();
        handshake.join().expect("thread").expect_err("interrupted");
    });
}

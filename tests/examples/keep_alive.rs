//! `keep_alive`: with curl, with Python's `http.client`, and with requests that are none.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use sslfile::SslFile;

use crate::common::{client_context, engines, LONG};
use crate::tool::{is_here, Files, Tool};

fn start(files: &Files) -> (Tool, String) {
    let server = Tool::example("keep_alive").args(&["127.0.0.1:0", "--cert", &files.chain, "--key", &files.key]).open();
    let port = server.stdout.line("listening on ").rsplit(':').next().expect("port").to_string();
    (server, port)
}

#[test]
fn keep_alive_serves_curl_many_requests_on_one_connection() {
    if !is_here("curl", &["--version"]) {
        return;
    }
    let files = Files::new();
    let (_server, port) = start(&files);
    let curl = |args: &[&str]| {
        let curl = Tool::new(Path::new("curl")).args(&["--silent", "--show-error", "--cacert", &files.ca]);
        let ended = curl.args(args).feed(b"").end();
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout().to_string()
    };
    // How many connections each transfer took goes to its output: only the first takes one.
    let got = curl(&["--write-out", "%{num_connects}\n", &format!("https://localhost:{port}/[1-4]")]);
    let expected = (1..5).map(|i| format!("You asked for /{i}\n{}\n", if i == 1 { 1 } else { 0 }));
    assert_eq!(got, expected.collect::<String>());

    // A body for which curl waits to be told to send it, and one that it sends at once.
    for size in [2_000_000, 100] {
        let body = files.write("body", &"0123456789".repeat(size / 10));
        let url = format!("https://localhost:{port}/up");
        let got = curl(&["--data-binary", &format!("@{body}"), "--write-out", " %{http_version}", &url, &url]);
        let expected = "0123456789".repeat(size / 10) + " 1.1";
        assert!(got == expected.repeat(2), "{} bytes", got.len());
    }
    let head = curl(&["--head", &format!("https://localhost:{port}/")]);
    assert!(head.contains("Content-Length: 16\r\n") && head.ends_with("\r\n\r\n"), "{head:?}");
    let old = curl(&["--http1.0", "--include", &format!("https://localhost:{port}/")]);
    assert!(old.contains("Connection: close\r\n"), "{old:?}");
}

#[test]
fn keep_alive_serves_pythons_http_client() {
    if !is_here("/usr/bin/python3", &["-c", "import ssl, http.client"]) {
        return;
    }
    let files = Files::new();
    let (_server, port) = start(&files);
    let script = "
import http.client, ssl, sys
connection = http.client.HTTPSConnection('localhost', int(sys.argv[1]), context=ssl.create_default_context(cafile=sys.argv[2]))
for i in range(3):
    connection.request('POST', '/', body=bytes([i]) * 300000)
    socket = connection.sock
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == bytes([i]) * 300000
    assert connection.sock is socket, 'another connection'
print('done')
";
    let ended = Tool::new(Path::new("/usr/bin/python3")).args(&["-c", script, &port, &files.ca]).feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (0, "done\n"), "{ended:?}");
}

#[test]
fn keep_alive_refuses_what_is_no_request_and_ends() {
    let files = Files::new();
    let (_server, port) = start(&files);
    let head = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n");
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000));
    let cases = [
        ("\u{1}\u{2}\r\n\r\n", "400 "),
        (&head("Content-Length: 1\r\nContent-Length: 2\r\n"), "400 "),
        (&head("Content-Length: +1\r\n"), "400 "),
        (&head("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), "411 "),
        (&head("Content-Length: 99999999999\r\n"), "413 "),
        (&head("Content-Length: 99999999999999999999999\r\n"), "400 "),
        (&long, "431 "),
    ];
    let context = client_context(engines()[0]);
    for (said, status) in cases {
        let tcp = TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect");
        let mut file = SslFile::client(tcp, &context, "localhost").expect("handshake");
        file.set_read_timeout(Some(LONG)).expect("time-out");
        file.write_all(b"GET /good HTTP/1.1\r\n\r\n").expect("write");
        file.write_all(said.as_bytes()).expect("write");
        let mut answers = String::new();
        file.read_to_string(&mut answers).expect("an end");
        let (good, bad) = answers.split_once("/good\n").unwrap_or_else(|| panic!("{answers:?} to {said:?}"));
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{answers:?}");
        assert!(bad.starts_with(&format!("HTTP/1.1 {status}")) && bad.ends_with("\r\n\r\n"), "{bad:?} to {said:?}");
    }
}

#[test]
fn keep_alive_shows_itself() {
    let ended = Tool::example("keep_alive").feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout().ends_with("\r\n\r\nthree"), "{ended:?}");
}

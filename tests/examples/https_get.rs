//! `https_get` against a web site of scripted answers, and nginx.

#[path = "https_get/bounds.rs"]
mod bounds;
#[cfg(unix)]
#[path = "https_get/continued.rs"]
mod continued;
#[cfg(unix)]
#[path = "https_get/output.rs"]
mod output;
#[path = "https_get/site.rs"]
mod site;
#[path = "https_get/ways.rs"]
mod ways;

use std::fs;
use std::io::{BufRead, BufReader, Write};

use sslfile::SslFile;

use self::site::{https_get, listing, Answers, Close, Cut, Site};
use crate::built::example;
use crate::common::{certs, engines, pattern, server_context, Pair};
use crate::tool::{is_here, on_a_terminal, Files, Server, Tool};

fn site(answers: Answers) -> String {
    Site::of(answers).address
}

#[test]
fn https_get_reads_each_kind_of_body() {
    let files = Files::new();
    let address = site(&[
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close),
        // The length is known: an unclean end behind it does no harm.
        ("/length-cut", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Cut),
        ("/empty", "HTTP/1.1 204 No Content\r\n\r\n", Close),
        ("/until-end", "HTTP/1.1 200 OK\r\n\r\nhello", Close),
        (
            "/chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            Close,
        ),
        ("/trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", Cut),
        (
            "/continue?a=b%20c",
            "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            Close,
        ),
    ]);
    let cases = [
        ("length", "hello"),
        ("length-cut", "hello"),
        ("empty", ""),
        ("until-end#place", "hello"),
        ("chunked", "hello"),
        ("trailer", "hello"),
        ("continue?a=b c", "hi"),
    ];
    for (path, body) in cases {
        let ended = https_get(&files, &format!("https://{address}/{path}")).feed(b"").end();
        assert_eq!((ended.code, ended.stdout(), ended.stderr()), (0, body, ""), "{path}: {ended:?}");
    }
}

#[test]
fn https_get_exits_5_for_a_body_that_is_not_all_there_and_leaves_no_file() {
    let files = Files::new();
    let address = site(&[
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Cut),
        ("/length-closed", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Close),
        ("/until-end", "HTTP/1.1 200 OK\r\n\r\nhello", Cut),
        ("/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhello", Cut),
        ("/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Close),
        ("/last-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Close),
        ("/headers", "HTTP/1.1 200 OK\r\nContent-Le", Cut),
        ("/nothing", "", Close),
    ]);
    let output = files.dir.path().join("output");
    let before = listing(&files);
    for path in ["length", "length-closed", "until-end", "chunk", "chunks", "last-chunk", "headers", "nothing"] {
        let args = ["-o", output.to_str().unwrap()];
        let ended = https_get(&files, &format!("https://{address}/{path}")).args(&args).feed(b"").end();
        assert_eq!(ended.code, 5, "{path}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{path}");
        assert_eq!(listing(&files), before, "{path}: left something");
    }
    // On stdout, what has come is out before the end is known; the exit code tells.
    let ended = https_get(&files, &format!("https://{address}/length")).feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (5, "hello"), "{ended:?}");
    assert!(ended.stderr().contains("5 of 10 bytes"), "{ended:?}");
}

#[test]
fn https_get_saves_a_large_file() {
    const LEN: usize = 5 << 20;
    let files = Files::new();
    let context = server_context(engines()[0]);
    let server = Server::start(move |tcp| {
        let mut file = SslFile::server(tcp, &context).unwrap();
        let mut line = String::new();
        BufReader::new(&file).read_line(&mut line).unwrap();
        write!(file, "HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").unwrap();
        file.write_all(&pattern(6, LEN)).unwrap();
        file.close().unwrap();
    });
    let output = files.write("output", "what was there before");
    let ended =
        https_get(&files, &format!("https://localhost:{}/", server.port)).args(&["-o", &output]).feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (0, ""), "{ended:?}");
    assert!(fs::read(&output).unwrap() == pattern(6, LEN), "wrong bytes in the file");
    server.join();
}

#[test]
fn https_get_shows_progress_on_a_terminal_and_not_in_a_pipe() {
    if !is_here("script", &["--version"]) {
        return;
    }
    let files = Files::new();
    let address = site(&[
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close),
        ("/until-end", "HTTP/1.1 200 OK\r\n\r\nhello", Close),
    ]);
    let output = files.write("output", "");
    for (path, shown) in [("length", "5 B/5 B"), ("until-end", "5 B")] {
        let get = format!("{} --ca {} https://{address}/{path}", example("https_get").display(), files.ca);
        let ended = on_a_terminal(&format!("{get} -o {output}")).open().end();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout().contains(shown), "{path}: {ended:?}");
        assert_eq!(fs::read(&output).unwrap(), b"hello", "{path}");
        // Where the body goes there is no place for a bar.
        let ended = on_a_terminal(&get).open().end();
        assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
    }
    let ended = https_get(&files, &format!("https://{address}/length")).args(&["-o", &output]).feed(b"").end();
    assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
}

#[test]
#[cfg(unix)]
fn https_get_writes_to_what_is_no_regular_file() {
    let files = Files::new();
    let address = site(&[("/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close)]);
    let ended = https_get(&files, &format!("https://{address}")).args(&["-o", "/dev/stderr"]).feed(b"").end();
    assert_eq!((ended.code, ended.stderr()), (0, "hello"), "{ended:?}");
    let nowhere = files.dir.path().join("no/such/folder");
    let args = ["-o", nowhere.to_str().unwrap()];
    let ended = https_get(&files, &format!("https://{address}")).args(&args).feed(b"").end();
    assert_eq!(ended.code, 6, "{ended:?}");
}

#[test]
fn https_get_follows_redirects_within_bounds() {
    let files = Files::new();
    let address = site(&[
        ("/a/start", "HTTP/1.1 302 Found\r\nLocation: next\r\n\r\n", Close),
        ("/a/next", "HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 4\r\n\r\nmove", Close),
        ("/b", "HTTP/1.1 308 Moved\r\nLocation: ?c\r\n\r\n", Close),
        ("/b?c", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Close),
        ("/loop", "HTTP/1.1 307 Again\r\nLocation: /loop\r\n\r\n", Close),
        ("/plain", "HTTP/1.1 302 Found\r\nLocation: http://localhost/\r\n\r\n", Close),
        ("/nowhere", "HTTP/1.1 302 Found\r\n\r\n", Close),
    ]);
    let ended = https_get(&files, &format!("https://{address}/a/start")).feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (0, "hi"), "{ended:?}");
    for (path, said) in [("loop", "more than 10 redirects"), ("plain", "http://localhost/"), ("nowhere", "location")] {
        let ended = https_get(&files, &format!("https://{address}/{path}")).feed(b"").end();
        assert_eq!(ended.code, 7, "{path}: {ended:?}");
        assert!(ended.stderr().contains(said), "{path}: {ended:?}");
    }
}

#[test]
fn https_get_exits_7_for_errors_and_for_what_is_no_http() {
    let files = Files::new();
    let address = site(&[
        ("/missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", Close),
        ("/smtp", "220 mail.example\r\n\r\n", Close),
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", Close),
        ("/lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", Close),
        ("/coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Close),
        ("/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n0\r\n\r\n", Close),
        ("/overlong", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n", Close),
    ]);
    for path in ["missing", "smtp", "length", "lengths", "coding", "chunk", "overlong"] {
        let ended = https_get(&files, &format!("https://{address}/{path}")).feed(b"").end();
        assert_eq!(ended.code, 7, "{path}: {ended:?}");
    }
    let ended = https_get(&files, &format!("https://{address}/missing")).feed(b"").end();
    assert!(ended.stdout.is_empty() && ended.stderr().contains("404 Not Found"), "{ended:?}");
}

#[test]
fn https_get_tells_usage_connection_tls_and_certificate_apart() {
    let files = Files::new();
    for args in [&[][..], &["http://localhost/"], &["https://"], &["https://localhost/", "--ca", "/no/such/file"]] {
        let ended = Tool::example("https_get").args(args).feed(b"").end();
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for host in [free.to_string(), "no-such-host.invalid".to_string()] {
        let ended = https_get(&files, &format!("https://{host}/")).feed(b"").end();
        assert_eq!(ended.code, 2, "{host}: {ended:?}");
        assert!(ended.stderr().contains(&host), "{ended:?}");
    }

    let server = Server::start(|mut tcp: std::net::TcpStream| tcp.write_all(b"220 mail.example\r\n").unwrap());
    let ended = https_get(&files, &format!("https://localhost:{}/", server.port)).feed(b"").end();
    assert_eq!(ended.code, 3, "{ended:?}");
    server.join();

    let serve = |pair: &Pair| {
        let context = sslfile::Context::server(pair.identity()).unwrap();
        Server::start(move |tcp| SslFile::server(tcp, &context).map(drop).is_ok())
    };
    for pair in [&certs().self_signed, &certs().other_name] {
        let server = serve(pair);
        let ended = https_get(&files, &format!("https://localhost:{}/", server.port)).feed(b"").end();
        assert_eq!(ended.code, 4, "{ended:?}");
        server.join();
    }
}

#[test]
fn https_get_exits_6_without_a_word_when_nobody_reads_its_output() {
    let files = Files::new();
    let context = server_context(engines()[0]);
    let server = Server::start(move |tcp| {
        let mut file = SslFile::server(tcp, &context).unwrap();
        let _ = file.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let mut tool = https_get(&files, &format!("https://localhost:{}/", server.port));
    tool.discard_stdout = true;
    let ended = tool.feed(b"").end();
    assert_eq!((ended.code, ended.stderr()), (6, ""), "{ended:?}");
    server.join();
}

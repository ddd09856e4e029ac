//! Through proxies: Debian's, and hostile ones that recite.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::SslFile;

use crate::common::{engines, server_context, LONG};
use crate::tool::{is_here, Files, Server, Tool};
use crate::{sslcat, tool_alone};

/// A process that listens on a port of its choosing here.
fn listening(port: u16, tool: Tool) -> Tool {
    let tool = tool.feed(b"");
    let deadline = Instant::now() + LONG;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the proxy does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    tool
}

/// One that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tinyproxy(files: &Files, port: u16, more: &str) -> Tool {
    let settings = format!("Port {port}\nListen 127.0.0.1\nMaxClients 20\n{more}\n");
    let settings = files.write(&format!("tinyproxy {port}.conf"), &settings);
    listening(port, Tool::new(Path::new("tinyproxy")).args(&["-d", "-c", &settings]))
}

fn microsocks(port: u16, more: &[&str]) -> Tool {
    let args = ["-i", "127.0.0.1", "-p", &port.to_string()];
    listening(port, Tool::new(Path::new("microsocks")).args(&args).args(more))
}

/// Answers in capitals.
fn shouting(engine: sslfile::Engine) -> Server<()> {
    let context = server_context(engine);
    Server::start(move |tcp| shout(tcp, &context))
}

fn shout(tcp: TcpStream, context: &sslfile::Context) {
    let mut file = SslFile::server(tcp, context).unwrap();
    let mut got = String::new();
    file.read_to_string(&mut got).unwrap();
    file.write_all(got.to_uppercase().as_bytes()).unwrap();
    file.close().unwrap();
}

fn has_microsocks() -> bool {
    // It has no option that ends well.
    is_here("sh", &["-c", "command -v microsocks"])
}

#[test]
fn goes_through_proxies_of_each_kind_on_every_engine() {
    if !is_here("tinyproxy", &["-v"]) || !has_microsocks() {
        return;
    }
    let files = Files::new();
    let (http, socks) = (free_port(), free_port());
    let _http = tinyproxy(&files, http, "");
    let _socks = microsocks(socks, &[]);
    for engine in engines() {
        for (proxy, host) in [
            (format!("http://127.0.0.1:{http}"), "localhost"),
            (format!("localhost:{http}/"), "127.0.0.1"),
            (format!("socks5://127.0.0.1:{socks}"), "localhost"),
            (format!("socks5h://localhost:{socks}"), "localhost"),
            (format!("socks5h://127.0.0.1:{socks}"), "127.0.0.1"),
        ] {
            let server = shouting(engine);
            let args = [host, &server.port, "--ca", &files.ca, "--proxy", &proxy, "-v"];
            let ended = sslcat(engine, &args).feed(b"hello").end();
            assert_eq!((ended.code, ended.stdout()), (0, "HELLO"), "{engine:?} {proxy}: {ended:?}");
            assert!(ended.stderr().contains("through the proxy"), "{ended:?}");
            server.join();
        }
    }
}

#[test]
fn logs_in_and_says_what_is_wrong_with_a_login() {
    if !is_here("tinyproxy", &["-v"]) || !has_microsocks() {
        return;
    }
    let files = Files::new();
    let (http, socks) = (free_port(), free_port());
    let _http = tinyproxy(&files, http, "BasicAuth joe s3cret");
    let _socks = microsocks(socks, &["-u", "joe", "-P", "s3cret"]);
    for place in [format!("127.0.0.1:{http}"), format!("127.0.0.1:{socks}")] {
        let scheme = if place.ends_with(&http.to_string()) { "http" } else { "socks5h" };
        for (login, said) in [("joe:s3%63ret@", ""), ("joe:wrong@", "this login"), ("", "wants a login")] {
            let server = shouting(engines()[0]);
            let proxy = format!("{scheme}://{login}{place}");
            let args = ["localhost", &server.port, "--ca", &files.ca, "--proxy", &proxy];
            let ended = tool_alone().args(&args).feed(b"hello").end();
            if said.is_empty() {
                assert_eq!((ended.code, ended.stdout(), ended.stderr()), (0, "HELLO", ""), "{proxy}: {ended:?}");
                server.join();
            } else {
                assert_eq!(ended.code, 2, "{proxy}: {ended:?}");
                assert!(ended.stderr().contains(said) && !ended.stderr().contains("wrong"), "{proxy}: {ended:?}");
            }
        }
    }
}

#[test]
fn says_whom_the_proxy_could_not_reach() {
    if !is_here("tinyproxy", &["-v"]) || !has_microsocks() {
        return;
    }
    let files = Files::new();
    let (http, socks, nobody) = (free_port(), free_port(), free_port().to_string());
    let _http = tinyproxy(&files, http, "");
    let _socks = microsocks(socks, &[]);
    for proxy in [format!("http://127.0.0.1:{http}"), format!("socks5h://127.0.0.1:{socks}")] {
        for host in ["127.0.0.1", "no-such-host.invalid"] {
            let ended = tool_alone().args(&[host, &nobody, "--proxy", &proxy]).feed(b"").end();
            assert_eq!(ended.code, 2, "{proxy}: {ended:?}");
            assert!(ended.stderr().contains(host) && ended.stderr().contains(&proxy), "{proxy}: {ended:?}");
        }
    }
    for gone in [format!("http://127.0.0.1:{nobody}"), "socks5://no-such-proxy.invalid".to_string()] {
        let ended = tool_alone().args(&["localhost", "1", "--proxy", &gone]).feed(b"").end();
        assert_eq!(ended.code, 2, "{gone}: {ended:?}");
        assert!(ended.stderr().contains("the proxy"), "{gone}: {ended:?}");
    }
}

/// Takes a request of CONNECT, and returns it.
fn request(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn loses_nothing_that_the_server_says_right_behind_the_proxys_answer() {
    let files = Files::new();
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200\nVia: bare\n\n",
        // Lengths say nothing here.
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Fine\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x05\x00\x05\x00\x00\x03\x04home\x12\x34",
    ];
    for answer in answers {
        let context = server_context(engines()[0]);
        let is_socks = answer[0] == 5;
        let server = Server::start(move |mut tcp: TcpStream| {
            let mut rest = answer;
            if is_socks {
                tcp.read_exact(&mut [0; 3]).unwrap();
                tcp.write_all(&answer[..2]).unwrap();
                rest = &answer[2..];
                let mut asked = [0; 4 + 1 + 12 + 2];
                tcp.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"\x05\x01\x00\x03\x0cmail.example\x00\x19");
            } else {
                let asked = request(&mut tcp);
                assert!(asked.starts_with("CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n"), "{asked}");
            }
            tcp.write_all(&[rest, b"220 hello\r\n"].concat()).unwrap();
            for answer in [&b"250-mail\r\n250 STARTTLS\r\n"[..], b"220 go ahead\r\n"] {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') {
                    let mut byte = [0];
                    tcp.read_exact(&mut byte).unwrap();
                    line.push(byte[0]);
                }
                tcp.write_all(answer).unwrap();
            }
            shout(tcp, &context);
        });
        let scheme = if is_socks { "socks5h" } else { "http" };
        let proxy = format!("{scheme}://127.0.0.1:{}", server.port);
        let args = ["mail.example", "25", "--starttls", "smtp", "--name", "localhost", "--ca", &files.ca];
        let ended = tool_alone().args(&args).args(&["--proxy", &proxy]).feed(b"hello").end();
        assert_eq!((ended.code, ended.stdout()), (0, "HELLO"), "{ended:?}");
        server.join();
    }
}

#[test]
fn exits_2_in_time_whatever_the_proxy_says() {
    type Recital = fn(&mut TcpStream);
    fn say_for_ever(tcp: &mut TcpStream, bytes: &[u8]) {
        while tcp.write_all(bytes).is_ok() {}
    }
    let cases: [(&str, Recital, &str); 22] = [
        ("http", |_| {}, "hung up"),
        ("http", |tcp| tcp.write_all(b"HTTP/1.1 200 Fine\r\nVia: ").unwrap(), "hung up"),
        ("http", |tcp| tcp.write_all(b"HTTP/1.1 403 Not you\r\n\r\n").unwrap(), "403 Not you"),
        ("http", |tcp| tcp.write_all(b"HTTP/1.1 101 Switching\r\n\r\n").unwrap(), "101 Switching"),
        ("http", |tcp| tcp.write_all(b"HTTP/1.1 302 \x1b[2J\r\nLocation: x\r\n\r\n").unwrap(), r"302 \u{1b}[2J"),
        ("http", |tcp| tcp.write_all(b"HTTP/1.1 two hundred\r\n\r\n").unwrap(), "no answer of HTTP"),
        ("http", |tcp| tcp.write_all(b"SSH-2.0-x\r\n").unwrap(), "does not speak HTTP"),
        // An alert of TLS, without an end of line, and it waits.
        (
            "http",
            |tcp| tcp.write_all(b"\x15\x03\x01\x00\x02\x02\x50").and_then(|()| wait(tcp)).unwrap(),
            "not speak HTTP",
        ),
        ("http", |tcp| wait(tcp).unwrap(), "in time"),
        ("http", |tcp| drip(tcp, b"HTTP/1.1 200 Fine\r\nVia: "), "in time"),
        ("http", |tcp| say_for_ever(tcp, b"HTTP/1.1 200 Fine and more"), "no end"),
        ("http", |tcp| say_for_ever(tcp, b"HTTP/1.1 100 Continue\r\n\r\n"), "no end"),
        ("socks5h", |_| {}, "hung up"),
        ("socks5h", |tcp| wait(tcp).unwrap(), "in time"),
        ("socks5h", |tcp| tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap(), "does not speak SOCKS5"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\x07").unwrap(), "method 7"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\xff").unwrap(), "wants a login"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\x00\x05\x02\x00\x01").unwrap(), "rules"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\x00\x05\x63\x00\x01").unwrap(), "reason 99"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\x00\x05\x00\x00\x07").unwrap(), "type 7"),
        ("socks5h", |tcp| tcp.write_all(b"\x05\x00\x05\x00\x00\x03\xffshort").unwrap(), "hung up"),
        ("socks5h", |tcp| drip(tcp, b"\x05\x00\x05\x00\x00\x03\xff"), "in time"),
    ];
    fn wait(tcp: &mut TcpStream) -> std::io::Result<()> {
        let _ = tcp.read_to_end(&mut Vec::new());
        Ok(())
    }
    /// Each byte alone is in time.
    fn drip(tcp: &mut TcpStream, start: &[u8]) {
        let _ = tcp.write_all(start);
        while tcp.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    for (scheme, recital, said) in cases {
        let server = Server::start(move |mut tcp: TcpStream| {
            let _ = tcp.set_nodelay(true);
            // What is not read yet would make a reset of the end.
            let mut head = [0; 3];
            tcp.read_exact(&mut head).unwrap();
            if head[0] == b'C' {
                request(&mut tcp);
            }
            recital(&mut tcp);
            let _ = tcp.shutdown(std::net::Shutdown::Write);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let proxy = format!("{scheme}://127.0.0.1:{}", server.port);
        let start = Instant::now();
        let timeout = if said == "in time" { "0.5" } else { "300" };
        let ended = tool_alone().args(&["box.example", "443", "-w", timeout, "--proxy", &proxy]).feed(b"").end();
        assert_eq!(ended.code, 2, "{said}: {ended:?}");
        assert!(ended.stderr().contains(said), "{said}: {ended:?}");
        assert!(ended.stderr().lines().count() == 1, "{said}: {ended:?}");
        assert!(said != "in time" || start.elapsed() >= Duration::from_millis(500), "{said}: too early");
        server.join();
    }
}

/// A request for CONNECT, as the environment has it or not; true if it came.
fn is_asked(variables: &[(&str, &str)], args: &[&str], host: &str) -> bool {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port().to_string();
    // Whoever is connected to hangs up at once.
    for (name, listener) in [("proxy", &proxy), ("target", &target)] {
        let listener = listener.try_clone().unwrap();
        thread::Builder::new().name(name.to_string()).spawn(move || drop(listener.accept())).unwrap();
    }
    let mut tool = tool_alone().args(&[host, &port]).args(args);
    for (name, value) in variables {
        tool.command.env(name, value.replace("PROXY", &url));
    }
    let ended = tool.feed(b"").end();
    // 2 is the proxy's, 3 the target's.
    assert!([2, 3].contains(&ended.code), "{variables:?} {args:?}: {ended:?}");
    ended.code == 2
}

#[test]
fn takes_the_proxy_from_the_environment_unless_told_otherwise() {
    for (variables, args, host, expected) in [
        (&[("https_proxy", "PROXY")][..], &[][..], "127.0.0.1", true),
        (&[("HTTPS_PROXY", "PROXY")], &[], "127.0.0.1", true),
        (&[("all_proxy", "PROXY")], &[], "127.0.0.1", true),
        (&[("ALL_PROXY", "PROXY")], &[], "127.0.0.1", true),
        // It is for http: only, and whoever sends a header to a CGI program can set it.
        (&[("HTTP_PROXY", "PROXY"), ("http_proxy", "PROXY")], &[], "127.0.0.1", false),
        (&[("https_proxy", ""), ("all_proxy", "PROXY")], &[], "127.0.0.1", false),
        (&[("https_proxy", "PROXY")], &["--no-proxy"], "127.0.0.1", false),
        (&[("https_proxy", "PROXY")], &["--proxy", ""], "127.0.0.1", false),
        (&[("https_proxy", "PROXY"), ("no_proxy", "localhost")], &[], "localhost", false),
        (&[("https_proxy", "PROXY"), ("NO_PROXY", "127.0.0.0/8")], &[], "127.0.0.1", false),
        (&[("https_proxy", "PROXY"), ("no_proxy", "127.0.0.0/8")], &[], "localhost", true),
    ] {
        assert_eq!(is_asked(variables, args, host), expected, "{variables:?} {args:?} {host}");
    }

    let mut tool = tool_alone().args(&["localhost", "1"]);
    tool.command.env("https_proxy", "socks4://joe:s3cret@proxy");
    let ended = tool.feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr().contains("https_proxy") && !ended.stderr().contains("s3cret"), "{ended:?}");
}

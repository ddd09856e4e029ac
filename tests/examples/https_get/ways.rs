//! The ways to an answer: redirects, who we are, proxies.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::site::{answer, free_port, https_get, nginx, serving, Close, Site};
use crate::tool::{is_here, Files, Server, Tool};

const USER_SECRET: &str = "Basic dXNlcjpzZWNyZXQ=";

fn with_user(url: &str, user: &str) -> String {
    url.replacen("://", &format!("://{user}@"), 1)
}

#[test]
fn https_get_sends_who_we_are_as_basic_or_says_why_not() {
    let files = Files::new();
    let site = Site::of(&[("/", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Close)]);
    let cases =
        [("user:secret", USER_SECRET), ("us%20er:p%40ss", "Basic dXMgZXI6cEBzcw=="), ("user", "Basic dXNlcjo=")];
    for (user, header) in cases {
        let ended = https_get(&files, &with_user(&site.url("/"), user)).args(&["-v"]).feed(b"").end();
        // It is not for everybody who sees the screen.
        assert!(ended.code == 7 && !ended.stderr().contains('@') && !ended.stderr().contains("secret"), "{ended:?}");
        let requests = site.requests();
        assert_eq!(requests[0].header("authorization"), Some(header));
        assert!(!requests[0].lines.iter().any(|line| line.contains('@')), "{requests:?}");
    }
    let ended = https_get(&files, &with_user(&site.url("/"), "us%3Aer:secret")).feed(b"").end();
    assert!(ended.code == 1 && ended.stderr().contains("colon") && site.requests().is_empty(), "{ended:?}");
    https_get(&files, &site.url("/")).feed(b"").end();
    assert_eq!(site.requests()[0].header("authorization"), None);
}

#[test]
fn https_get_tells_no_other_server_who_we_are_for_this_one() {
    let files = Files::new();
    let other = Site::start(|request, file| match request.path.strip_prefix("/back/") {
        Some(address) => answer(
            file,
            format!("HTTP/1.1 302 \r\nLocation: https://{address}/end\r\nContent-Length: 0\r\n\r\n"),
            Close,
        ),
        None => answer(file, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close),
    });
    let address = other.address.clone();
    let site = Site::start(move |request, file| {
        let to = match &*request.path {
            "/same" => "/end".to_string(),
            "/other" => format!("https://{address}/end"),
            "/known" => format!("https://other:word@{address}/end"),
            // Another name for the same place.
            "/name" => format!("https://{}/end", request.header("host").unwrap().replace("localhost", "127.0.0.1")),
            "/there-and-back" => format!("https://{address}/back/{}", request.header("host").unwrap()),
            _ => return answer(file, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close),
        };
        answer(file, format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"), Close)
    });
    let cases = [
        ("/same", Some(USER_SECRET)),
        ("/other", None),
        ("/known", Some("Basic b3RoZXI6d29yZA==")),
        ("/name", None),
        ("/there-and-back", None),
    ];
    for (path, expected) in cases {
        let ended = https_get(&files, &with_user(&site.url(path), "user:secret")).feed(b"").end();
        assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{path}: {ended:?}");
        let requests = [site.requests(), other.requests()].concat();
        assert_eq!(requests[0].header("authorization"), Some(USER_SECRET), "{path}");
        let end = requests.iter().find(|request| request.path == "/end").expect("the last request");
        assert_eq!(end.header("authorization"), expected, "{path}");
    }
}

#[test]
fn https_get_and_nginx_understand_each_other() {
    let files = Files::new();
    fs::create_dir_all(files.dir.path().join("www/folder")).unwrap();
    let page = "<p>hello</p>\n".repeat(1000);
    fs::write(files.dir.path().join("www/folder/index.html"), &page).unwrap();
    let users = files.write("users", "user:{PLAIN}secret\n");
    let settings = format!(
        "gzip on; gzip_types *; location /folder {{ }}
         location /private {{ auth_basic p; auth_basic_user_file {users}; alias {}/www/folder; }}",
        files.dir.path().display()
    );
    let Some((_nginx, port)) = nginx(&files, &settings) else { return };
    let url = format!("https://localhost:{port}");
    for (path, args) in [("/folder/", &[][..]), ("/folder", &[]), ("/folder/", &["--gzip"])] {
        let ended = https_get(&files, &format!("{url}{path}")).args(args).args(&["-v"]).feed(b"").end();
        assert!(ended.code == 0 && ended.stdout() == page, "{path} {args:?}: {ended:?}");
        // Here the number of bytes that came is that in gzip.
        let len = format!("https_get: {} of", page.len());
        assert_eq!(ended.stderr().contains(&len), args.is_empty(), "{path} {args:?}: {ended:?}");
    }
    for (user, code) in [("user:secret", 0), ("user:wrong", 7)] {
        let ended = https_get(&files, &with_user(&format!("{url}/private/index.html"), user)).feed(b"").end();
        assert_eq!(ended.code, code, "{ended:?}");
    }
    let ended = https_get(&files, &format!("{url}/missing")).feed(b"").end();
    assert!(ended.code == 7 && ended.stderr().contains("404 Not Found"), "{ended:?}");
}

/// tinyproxy, for all or for those with a password.
fn tinyproxy(files: &Files, settings: &str) -> Option<(Tool, String)> {
    if !is_here("tinyproxy", &["-v"]) {
        return None;
    }
    let port = free_port();
    let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\n{settings}\n");
    let config = files.write("tinyproxy.conf", &text);
    Some((serving("tinyproxy", &["-d", "-c", &config], port), format!("127.0.0.1:{port}")))
}

#[test]
fn https_get_goes_through_a_proxy() {
    let files = Files::new();
    let site = Site::of(&[("/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close)]);
    let Some((proxy, address)) = tinyproxy(&files, "") else { return };
    for (name, value) in [("https_proxy", format!("http://{address}")), ("HTTPS_PROXY", address)] {
        let mut tool = https_get(&files, &site.url("/")).args(&["-v"]);
        tool.command.env(name, value);
        let ended = tool.feed(b"").end();
        assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
        assert!(ended.stderr().contains("the proxy 127.0.0.1:"), "{ended:?}");
    }
    proxy.stdout.wait_for(&format!("CONNECT {}", site.address));

    let Some((_proxy, address)) = tinyproxy(&files, "BasicAuth user secret") else { return };
    for (user, code) in [("user:secret@", 0), ("user:wrong@", 2), ("", 2)] {
        let mut tool = https_get(&files, &site.url("/"));
        tool.command.env("https_proxy", format!("http://{user}{address}"));
        let ended = tool.feed(b"").end();
        assert_eq!(ended.code, code, "{user}: {ended:?}");
        assert!(code == 0 || ended.stderr().contains(" 40") && !ended.stderr().contains("wrong"), "{user}: {ended:?}");
    }
}

#[test]
fn https_get_knows_whom_not_to_go_to_through_a_proxy() {
    let files = Files::new();
    let site = Site::of(&[("/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close)]);
    // Nobody is there: who goes that way gets nowhere.
    let nowhere = format!("127.0.0.1:{}", free_port());
    let port = site.address.rsplit(':').next().unwrap().to_string();
    let cases = [
        ("localhost", "*", true),
        ("localhost", "example.com, localhost", true),
        ("localhost", "example.com LOCALHOST", true),
        ("localhost", ".localhost", true),
        ("localhost", "host", false),
        ("localhost", "localhost.example.com", false),
        ("localhost", "", false),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "0.0.1", false),
        ("127.0.0.1", "127.0.0.11", false),
    ];
    for (host, list, is_direct) in cases {
        let mut tool = https_get(&files, &format!("https://{host}:{port}/"));
        tool.command.env("https_proxy", &nowhere).env("no_proxy", list);
        let ended = tool.feed(b"").end();
        // The scripted site knows itself as localhost only.
        let got = if host == "localhost" { 0 } else { 5 };
        assert_eq!(ended.code, if is_direct { got } else { 2 }, "{host} {list:?}: {ended:?}");
        assert_eq!(ended.stderr().contains("proxy"), !is_direct, "{host} {list:?}: {ended:?}");
    }
    // That nobody is there either does not matter.
    for list in ["::1", "[::1]", "0::1"] {
        let mut tool = https_get(&files, "https://[::1]:1/");
        tool.command.env("https_proxy", &nowhere).env("no_proxy", list);
        let ended = tool.feed(b"").end();
        assert!(ended.code == 2 && !ended.stderr().contains("proxy"), "{list:?}: {ended:?}");
    }
    for proxy in ["https://127.0.0.1:1", "socks5://127.0.0.1:1", "http://", "http://127.0.0.1:99999"] {
        let mut tool = https_get(&files, &site.url("/"));
        tool.command.env("https_proxy", proxy);
        let ended = tool.feed(b"").end();
        assert!(ended.code == 1 && ended.stderr().contains("https_proxy"), "{proxy}: {ended:?}");
    }
}

#[test]
fn https_get_waits_for_no_proxy_for_ever() {
    let files = Files::new();
    let get = |server: &Server<()>, seconds: &str| {
        let mut tool = https_get(&files, "https://localhost:1/").args(&["-w", seconds]);
        tool.command.env("https_proxy", format!("127.0.0.1:{}", server.port));
        tool.feed(b"").end()
    };
    let silent = Server::start(|mut tcp| drop(tcp.read_to_end(&mut Vec::new())));
    let ended = get(&silent, "1");
    assert!(ended.code == 2 && ended.stderr().contains("proxy"), "{ended:?}");
    let endless = Server::start(|mut tcp| {
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n");
        while tcp.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let ended = get(&endless, "30");
    assert!(ended.code == 2 && ended.stderr().contains("headers have no end"), "{ended:?}");
    // No proxy at all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(|mut tcp| drop(tcp.write_all(b"220 mail\r\n\r\n"))));
    let mut tool = https_get(&files, "https://localhost:1/");
    tool.command.env("https_proxy", address);
    let ended = tool.feed(b"").end();
    assert!(ended.code == 2 && ended.stderr().contains("not HTTP"), "{ended:?}");
}

//! `http_redirect`: HTTPS, and plain HTTP on the same port, with curl.

use crate::tool::{is_here, Files, Tool};

/// The server, and its port.
fn start(files: &Files) -> (Tool, String) {
    let server =
        Tool::example("http_redirect").args(&["127.0.0.1:0", "--cert", &files.chain, "--key", &files.key]).open();
    let port = server.stdout.line("listening on ").rsplit(':').next().expect("port").to_string();
    (server, port)
}

fn curl(files: &Files, args: &[&str], url: &str) -> String {
    let curl = Tool::new(std::path::Path::new("curl")).args(&["--silent", "--show-error", "--cacert", &files.ca]);
    let ended = curl.args(args).args(&[url]).feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.stdout().to_string()
}

#[test]
fn http_redirect_sends_plain_http_to_https_on_the_same_port() {
    if !is_here("curl", &["--version"]) {
        return;
    }
    let files = Files::new();
    let (server, port) = start(&files);
    let at = |scheme: &str| format!("{scheme}://localhost:{port}/greeting?a=b");
    let told = curl(&files, &["--include"], &at("http"));
    assert!(told.starts_with("HTTP/1.1 301 "), "{told:?}");
    assert!(told.contains(&format!("\r\nLocation: {}\r\n", at("https"))), "{told:?}");
    // Nothing else was sent: no alert before, no reset behind.
    assert!(told.ends_with("\r\n\r\n"), "{told:?}");
    server.stdout.line("no TLS, but \"GET /greeting");

    let hello = "Hello, and thank you for /greeting?a=b\n";
    assert_eq!(curl(&files, &[], &at("https")), hello);
    assert_eq!(curl(&files, &["--location"], &at("http")), hello);
    // A body that nobody reads.
    let told = curl(&files, &["--include", "--data-binary", &"x".repeat(8000)], &at("http"));
    assert!(told.contains("HTTP/1.1 301 "), "{told:?}");
}

#[test]
fn http_redirect_has_no_target_for_who_names_none() {
    if !is_here("curl", &["--version"]) {
        return;
    }
    let files = Files::new();
    let (_server, port) = start(&files);
    let url = format!("http://localhost:{port}/");
    for no_host in [&["--include", "--header", "Host:"][..], &["--include", "--header", "Host: a b"][..]] {
        let told = curl(&files, no_host, &url);
        assert!(told.starts_with("HTTP/1.1 400 "), "{told:?}");
    }
}

#[test]
fn http_redirect_shows_itself() {
    let ended = Tool::example("http_redirect").feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout().contains("redirected: localhost:"), "{ended:?}");
    assert!(ended.stdout().ends_with("Hello, and thank you for /greeting\n"), "{ended:?}");
}

//! HTTP/1.1 servers of one thread with connections that stay open: a small one on `Backend`, hyper on tokio, and nginx with
//! one worker, each in a process on a processor of its own, loaded by wrk from the other one.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::Response;
use hyper_util::rt::TokioIo;
use sslfile::{Backend, Engine, SslFile, SslListener};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::ours;
#[cfg(feature = "openssl")]
use crate::raw_openssl;
use crate::raw_rustls;
use crate::servers::{built, tokio_server, Kind};

/// What every server answers.
pub const ANSWER: &[u8] = &[b'x'; 1024];

const KINDS: &[Kind] = &[
    #[cfg(feature = "openssl")]
    Kind::peer("hyper-openssl", hyper_openssl),
    Kind::ours("http-openssl", "hyper-openssl", Engine::OpenSsl, |listener, _| on_backend(listener, Engine::OpenSsl)),
    Kind::peer("hyper-rustls", hyper_rustls),
    Kind::ours("http-rustls", "hyper-rustls", Engine::Rustls, |listener, _| on_backend(listener, Engine::Rustls)),
];

/// But for nginx.
pub fn kinds() -> Vec<&'static Kind> {
    built(KINDS)
}

/// The smallest server that is one: requests may come in pieces or several at once, and connections stay open.
fn on_backend(listener: TcpListener, engine: Engine) -> io::Result<()> {
    let backend = Backend::new()?;
    let listener = SslListener::from_tcp(listener, &ours::server(engine, true)?)?;
    listener.set_accept_callback(&backend, |file, _| {
        // A client that has gone already is its own affair.
        let _ = file.set_nodelay(true);
        let mut unread = Vec::new();
        file.set_read_callback(move |file, data| serve(file, &mut unread, data));
        file.keep();
    })?;
    backend.run()
}

/// `unread`: the part of a request that came before this data.
fn serve(file: &SslFile, unread: &mut Vec<u8>, data: &[u8]) {
    thread_local! {
        static ANSWERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    ANSWERS.with_borrow_mut(|answers| {
        answers.clear();
        // As a rule a request comes whole and alone, and nothing is copied.
        let rest = match unread.is_empty() {
            true => answer(data, answers).map(|used| data.get(used..).unwrap_or_default().to_vec()),
            false => {
                unread.extend_from_slice(data);
                answer(unread, answers).map(|used| unread.split_off(used))
            }
        };
        // What is sent is gone from here; more of it than a client reads is not kept for it.
        let sent = if answers.is_empty() { Ok(()) } else { file.send(answers) };
        match (rest, sent) {
            (Some(rest), Ok(())) => *unread = rest,
            // `close` in a callback does not wait.
            _ => drop(file.close()),
        }
    });
}

/// Answers to all requests that are complete, and how long these are. `None`: what comes is no HTTP, or the client asks
/// for the end behind this answer.
fn answer(data: &[u8], answers: &mut Vec<u8>) -> Option<usize> {
    let mut used = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&data[used..]) {
            Ok(httparse::Status::Complete(length)) => used += length,
            Ok(httparse::Status::Partial) => return Some(used),
            Err(_) => {
                answers
                    .extend_from_slice(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                return None;
            }
        }
        let ends = request.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
        });
        answers.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\ndate: ");
        push_date(answers);
        answers.extend_from_slice(b"\r\n\r\n");
        answers.extend_from_slice(ANSWER);
        if ends {
            return None;
        }
    }
}

/// As hyper and nginx do, it is made once a second.
fn push_date(answers: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    DATE.with_borrow_mut(|(made, text)| {
        if *made != second {
            *made = second;
            text.clear();
            // Writing to memory does not fail.
            let _ = write!(text, "{}", httpdate::HttpDate::from(now));
        }
        answers.extend_from_slice(text);
    });
}

#[cfg(feature = "openssl")]
fn hyper_openssl(listener: TcpListener, _: usize) -> io::Result<()> {
    let acceptor = raw_openssl::acceptor()?;
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { with_hyper(raw_openssl::accept(&acceptor, tcp).await?).await }
    })
}

fn hyper_rustls(listener: TcpListener, _: usize) -> io::Result<()> {
    let acceptor = tokio_rustls::TlsAcceptor::from(raw_rustls::server_config()?);
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { with_hyper(acceptor.accept(tcp).await?).await }
    })
}

async fn with_hyper(tls: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
    let answer = |_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(response)
    };
    // Without a timer, and so without a time-out, which the others have none of either, but for nginx.
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(tls), service_fn(answer)).await.map_err(io::Error::other)
}

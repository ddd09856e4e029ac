//! Programs that must compile as they stand, whatever a linter says of their style.
#![allow(dead_code, clippy::needless_borrow, clippy::needless_borrows_for_generic_args)]
use sslfile::*;
use std::io::{self, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;
fn one() -> io::Result<()> {
    use sslfile::SslFile as TcpStream;
    let mut s = TcpStream::connect("example.com:443")?;
    let _ = TcpStream::connect(("localhost", 3))?;
    let _ = TcpStream::connect(&("localhost", 3))?;
    let addr: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let _ = TcpStream::connect(&addr)?;
    s.set_read_timeout(Some(Duration::from_secs(5)))?;
    s.write_all(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")?;
    io::copy(&mut s, &mut io::stdout())?;
    Ok(())
}
fn two(host: &str, port: u16, ctx: &Context) -> io::Result<()> {
    let ssl = SslFile::client(std::net::TcpStream::connect((host, port))?, &ctx, host)?;
    thread::scope(|t| {
        t.spawn(|| io::copy(&mut &ssl, &mut io::stdout()));
        io::copy(&mut io::stdin(), &mut &ssl)?;
        ssl.shutdown(Shutdown::Write)
    })
}
fn three(ctx: &Context) -> io::Result<()> {
    let backend = Backend::new()?;
    let listener = SslListener::bind("127.0.0.1:8443", &ctx)?;
    listener.set_accept_callback(&backend, |file, addr| {
        file.set_callbacks(
            Callbacks::new()
                .on_read(|f: &SslFile, data| {
                    let _ = f.send(data);
                    f.pause_reading(f.unsent() > 64 << 10);
                })
                .on_write(|f| f.pause_reading(false))
                .on_close(move |_, why| println!("{addr}: {why:?}")),
        );
        file.keep();
    })?;
    backend.run()
}
fn four(addr: &str, ctx: &Context) -> io::Result<()> {
    let plain = PlainFile::new(std::net::TcpStream::connect(addr)?);
    (&plain).write_all(b"STARTTLS\r\n")?;
    let ssl = SslFile::client(plain, &ctx, "mail.example.com")?;
    ssl.close_clean()?;
    let (plain, _unread) = ssl.release()?;
    (&plain).write_all(b"QUIT\r\n")
}
fn wait_for<S: Stream>(_: &SslFile<S>, _: Interest) -> io::Result<()> {
    Ok(())
}
fn five(tcp: std::net::TcpStream, ctx: &Context) -> io::Result<()> {
    let ssl = SslFile::options().client("host").nonblocking(true).open(tcp, &ctx)?;
    while let Err(e) = ssl.handshake() {
        if e.kind() != io::ErrorKind::WouldBlock {
            return Err(e);
        }
        wait_for(&ssl, ssl.interest())?;
    }
    Ok(())
}
fn send_sync<T: Send + Sync>() {}
#[test]
fn bounds() {
    send_sync::<SslFile>();
    send_sync::<SslFile<PlainFile>>();
    send_sync::<SslFile<SslFile>>();
    send_sync::<Context>();
    send_sync::<Backend>();
    send_sync::<SslSocket>();
}

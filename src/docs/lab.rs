// For the examples in this folder, which run: both ends of a TLS connection, with a certificate made on the spot.

/// A client's context and a server's, for the name "localhost".
fn contexts() -> std::io::Result<(sslfile::Context, sslfile::Context)> {
    let (root, server) = root_and_server()?;
    Ok((sslfile::Context::builder().system_roots(false).add_root(root).build()?, server))
}

/// What a client must trust, and a server's context. From here on an example has a minute: to hang is to fail.
fn root_and_server() -> std::io::Result<(sslfile::Certificate, sslfile::Context)> {
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_secs(60));
        eprintln!("not done after a minute");
        std::process::exit(1);
    });
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(std::io::Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = sslfile::Identity::from_pem(chain.as_bytes(), key.as_bytes())?;
    Ok((sslfile::Certificate::from_pem(chain.as_bytes())?, sslfile::Context::server(identity)?))
}

/// Both ends of a TCP connection over loopback.
fn tcp_pair() -> std::io::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

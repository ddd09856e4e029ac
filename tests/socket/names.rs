//! Whom the certificate must be for.

use super::*;
use crate::common::has_ipv6;

#[test]
fn the_link_of_an_address_is_no_part_of_the_name() {
    if !has_ipv6() {
        return;
    }
    within(LONG, || {
        for engine in engines() {
            for host in ["::1%1", "[::1%1]", "[::1]", "::1"] {
                let listener = TcpListener::bind("[::1]:0").expect("bind");
                let port = listener.local_addr().expect("address").port();
                let server = thread::spawn(move || {
                    let (tcp, _) = listener.accept().expect("accept");
                    let file = SslFile::server(tcp, &server_context(engine)).expect("server");
                    file.close().expect("close");
                });
                let probe = Probe::new(&backend());
                probe.socket.connect_encrypted(host, port, &client_context(engine)).expect(host);
                probe.end().unwrap_or_else(|e| panic!("{engine:?}, {host}: {e}"));
                assert!(probe.has("encrypted"), "{host}");
                server.join().expect("server");
            }
        }
    });
}

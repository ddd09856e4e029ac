//! Certificates of clients. Whom a server asks and how it judges is in tests/peers/trust.rs; here is what else goes over the wire.

use sslfile::{Certificate, ClientAuth, Context, ErrorKind, Version};

use super::rig::{at, context, flag, s_client, s_server, serve, squeezed, visit, with_openssl, Own, VERSIONS};
use crate::authority::{leaf_params, Authority};
use crate::common::{ca, certs, client_builder, engines, Pair};

/// A leaf under an intermediate, and the root.
fn deep() -> (Pair, Authority, Authority) {
    let root = Authority::new("client root");
    let middle = root.intermediate("client intermediate");
    let leaf = middle.sign(leaf_params());
    (Pair { chain: format!("{}{}", leaf.chain, middle.pem), key: leaf.key }, middle, root)
}

#[test]
fn a_server_names_the_authorities_it_takes_and_sees_the_whole_chain() {
    with_openssl(|bench| {
        let (pair, middle, root) = deep();
        let own = Own::new(bench, "client", &pair);
        for engine in engines() {
            for version in VERSIONS {
                let builder = Context::builder().identity(certs().ecdsa.identity());
                let builder = builder.add_root(root.certificate()).client_auth(ClientAuth::Require);
                let Some(server) = context(engine, "client_auth", at(version, builder)) else { continue };
                let client = |port| {
                    let mut command = s_client(port);
                    own.show(command.arg(flag(version)));
                    command
                };
                let look = |file: &sslfile::SslFile| (file.peer_certificates(), file.verified_chain());
                let ((sent, verified), said) = serve(bench, &server, client, look).expect();
                let acceptable = said.split("Acceptable client certificate CA names").nth(1).unwrap_or_default();
                assert!(squeezed(acceptable).starts_with("CN=clientroot"), "{said}");
                let leaf = Certificate::from_pem(pair.chain.as_bytes()).expect("leaf");
                assert_eq!(sent, Some(vec![leaf.clone(), middle.certificate()]), "{engine:?} {version}");
                assert_eq!(
                    verified,
                    Some(vec![leaf, middle.certificate(), root.certificate()]),
                    "{engine:?} {version}"
                );
            }
        }
    });
}

#[test]
fn a_client_shows_its_whole_chain() {
    with_openssl(|bench| {
        let (pair, _, root) = deep();
        let server = Own::new(bench, "server", &certs().ecdsa);
        let roots = super::rig::write(bench, "client-root.pem", &root.pem);
        for engine in engines() {
            for version in VERSIONS {
                let client = client_builder(engine).identity(pair.identity()).build().expect("context");
                let peer = |port| {
                    let mut command = s_server(port, 1, &server);
                    command.args([flag(version), "-Verify", "3", "-verify_return_error", "-CAfile"]).arg(&roots);
                    command
                };
                let (_, said) = visit(bench, &client, peer, |_| ()).expect();
                for depth in ["depth=0", "depth=1", "depth=2"] {
                    assert!(said.contains(depth), "{engine:?} {version}: {said}");
                }
            }
        }
    });
}

#[test]
fn a_client_of_a_wrong_authority_hears_unknown_ca() {
    with_openssl(|bench| {
        let (pair, ..) = deep();
        let own = Own::new(bench, "client", &pair);
        for engine in engines() {
            for version in VERSIONS {
                for policy in [ClientAuth::Request, ClientAuth::Require] {
                    let builder = Context::builder().identity(certs().ecdsa.identity()).add_root(ca());
                    let builder = at(version, builder.client_auth(policy));
                    let Some(server) = context(engine, "client_auth", builder) else { continue };
                    let client = |port| {
                        let mut command = s_client(port);
                        own.show(&mut command);
                        command
                    };
                    let met = serve(bench, &server, client, |_| ());
                    met.refused(ErrorKind::Certificate, "alert number 48");
                }
            }
        }
    });
}

#[test]
fn a_client_without_one_is_told_what_its_version_has_for_that() {
    with_openssl(|bench| {
        for engine in engines() {
            for (version, alert) in [(Version::Tls1_2, "alert number 40"), (Version::Tls1_3, "alert number 116")] {
                let builder = Context::builder().identity(certs().ecdsa.identity()).add_root(ca());
                let require = at(version, builder.clone().client_auth(ClientAuth::Require));
                let Some(server) = context(engine, "client_auth", require) else { continue };
                let met = serve(bench, &server, s_client, |_| ());
                let (error, said) = met.expect_err();
                assert!(said.contains(alert), "{engine:?} {version}: {error}; {said}");
                let request = at(version, builder.client_auth(ClientAuth::Request));
                let server = request.engine(engine).build().expect("context");
                let (shown, _) = serve(bench, &server, s_client, |file| file.peer_certificate()).expect();
                assert_eq!(shown, None);
            }
        }
    });
}

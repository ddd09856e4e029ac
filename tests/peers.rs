//! Real peers at the other end: OpenSSL's and GnuTLS' command line tools, Python's `ssl`, Pike's `SSL.File`, curl. Each as client
//! and as server where it can be, on every engine, TLS 1.2 and 1.3, blocking and non-blocking.
//!
//! A peer that is not installed skips its tests with a line that says so; with `SSLFILE_NO_SKIP=1` it fails them.
//! `.ci/install tests` installs all of them on Debian.
#![cfg(unix)]

mod common;

mod peers {
    mod alpn;
    mod curl;
    mod data;
    mod ends;
    mod ftp;
    mod ftp_server;
    mod harness;
    mod ours;
    mod tools;
    mod trust;

    /// What every tool is put through.
    macro_rules! put_through {
        ($($module:ident: $tool:expr;)*) => {$(
            mod $module {
                use super::super::peers::{alpn, data, ends, harness, tools, trust};

                #[test]
                fn carries_data_both_ways_at_once() {
                    harness::run($tool, data::carries_data_both_ways_at_once);
                }

                #[test]
                fn sees_our_end_for_what_it_is() {
                    harness::run($tool, ends::sees_our_end_for_what_it_is);
                }

                #[test]
                fn killed_is_a_cut_after_all_its_data() {
                    harness::run($tool, ends::killed_is_a_cut_after_all_its_data);
                }

                #[test]
                fn with_no_common_protocol_alpn_is_settled_as_documented() {
                    harness::run($tool, alpn::nothing_in_common);
                }

                #[test]
                fn a_bad_server_certificate_is_refused_with_an_alert() {
                    harness::run($tool, trust::a_bad_server_certificate_is_refused_with_an_alert);
                }

                #[test]
                fn a_client_certificate_is_asked_for_and_judged() {
                    harness::run($tool, trust::a_client_certificate_is_asked_for_and_judged);
                }
            }
        )*};
    }

    put_through! {
        openssl_client: tools::openssl_client();
        openssl_server: tools::openssl_server();
        gnutls_client: tools::gnutls_client();
        gnutls_server: tools::gnutls_server();
        debian_python_client: tools::python_client(tools::debian_python());
        debian_python_server: tools::python_server(tools::debian_python());
        python_client: tools::python_client(tools::python_in_path());
        python_server: tools::python_server(tools::python_in_path());
        pike_client: tools::pike_client();
        pike_server: tools::pike_server();
    }
}

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{self, NameType, ShutdownState, Ssl, SslRef, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::X509VerifyResult;

use super::resumption::Client;
use super::{certificate, group, judge, setup_error, Judgement};
use crate::certificate::Certificate;
use crate::engine::alert::{of_openssl, Report, Verdict};
use crate::engine::{end_point, verdict, Resumable, Session, Stop, Wire};
use crate::error::{reasons, Error};
use crate::role::Role;
use crate::version::Version;

pub(super) struct OpenSslSession {
    stream: SslStream<Wire>,
    /// The last read was filled: its record may have more.
    may_have_more: bool,
    /// Whom a client expects.
    expected: String,
    /// Unless any certificate will do.
    heeds_verdict: bool,
    /// Of no use to a server.
    client: Client,
}

impl OpenSslSession {
    pub fn open(
        mut ssl: Ssl,
        role: Role,
        expected: &str,
        heeds_verdict: bool,
        client: Client,
    ) -> Result<Box<dyn Session>, Error> {
        match role {
            Role::Client => ssl.set_connect_state(),
            Role::Server => ssl.set_accept_state(),
        }
        let stream = SslStream::new(ssl, Wire::default()).map_err(|e| setup_error("OpenSSL", e))?;
        let expected = expected.to_string();
        Ok(Box::new(OpenSslSession { stream, may_have_more: false, expected, heeds_verdict, client }))
    }

    /// Lends the wire to the library for one call.
    fn call<T>(
        &mut self,
        wire: &mut Wire,
        f: impl FnOnce(&mut SslStream<Wire>) -> Result<T, ssl::Error>,
    ) -> Result<T, Stop> {
        std::mem::swap(self.stream.get_mut(), wire);
        let result = f(&mut self.stream);
        std::mem::swap(self.stream.get_mut(), wire);
        self.client.look(self.stream.ssl());
        result.map_err(|e| match e.code() {
            ssl::ErrorCode::WANT_READ => Stop::NeedsInput,
            _ => {
                self.client.fail();
                Stop::Failed(self.failure(e, wire))
            }
        })
    }

    fn failure(&self, e: ssl::Error, wire: &Wire) -> Error {
        let stack = e.ssl_error();
        let ssl = self.stream.ssl();
        let reason = match e.code() {
            ssl::ErrorCode::ZERO_RETURN => Some(Report::PEER_CLOSED),
            _ => stack.and_then(ssl_reason),
        };
        let result = ssl.verify_result();
        // Taken in any case: it is about this call.
        let refused = judge::refused(ssl);
        // A callback of a context made elsewhere may have accepted what stands there as the result.
        let is_refused = reason == Some(Report::CERTIFICATE_VERIFY_FAILED);
        let verdict = match Judgement::refusal(ssl) {
            Some(why) => Some(Verdict::Refused(why)),
            None => Some(result).filter(|r| is_refused && *r != X509VerifyResult::OK).map(|result| {
                let fault = of_openssl(result.error_string());
                verdict::verdict(fault, &refused, &self.expected)
            }),
        };
        let report = Report {
            reason,
            alert_sent: wire.alert_sent,
            is_tls13: self.version().map(|v| v == Version::Tls1_3),
            verdict_alert: verdict.is_some().then(|| verdict_alert(result)),
            verdict,
            refused,
            is_mute: wire.is_mute(),
            wrong_version_alert: Some(wrong_version_alert(wire)),
            text: reasons(&stack.map_or_else(|| e.to_string(), ErrorStack::to_string)),
        };
        report.judge().with_source(e)
    }

    /// Whether what OpenSSL says about the peer's certificate counts.
    fn verifies(&self) -> bool {
        self.heeds_verdict && self.stream.ssl().verify_mode() != SslVerifyMode::NONE
    }
}

impl Drop for OpenSslSession {
    /// A connection that ends without our close_notify has not failed (RFC 5246, section 7.2.1): OpenSSL would refuse to resume
    /// its session. Where an alert has ended it OpenSSL has seen to that before.
    fn drop(&mut self) {
        self.stream.set_shutdown(ShutdownState::SENT);
    }
}

/// In TLS 1.3; before OpenSSL 3.2 another where the version in the record's header is none of TLS at all.
fn wrong_version_alert(wire: &Wire) -> u8 {
    const OPENSSL_3_2: i64 = 0x3020_0000;
    match wire.record_version() {
        [3, _] => 50,
        _ if openssl::version::number() < OPENSSL_3_2 => 70,
        _ => 50,
    }
}

/// The reason of the first error that is the TLS layer's own; the stack may begin with one of the cipher below it.
fn ssl_reason(stack: &ErrorStack) -> Option<u32> {
    const SSL_LIBRARY: i32 = 20;
    stack.errors().iter().find(|e| e.library_code() == SSL_LIBRARY).map(|e| e.reason_code() as u32)
}

/// The alert that OpenSSL sends for a verdict (ssl_x509err2alert), for when it went out encrypted and could not be seen.
fn verdict_alert(result: X509VerifyResult) -> u8 {
    match result.as_raw() {
        // APPLICATION_VERIFICATION
        50 => 40,
        // UNABLE_TO_DECRYPT_CERT_SIGNATURE, UNABLE_TO_DECRYPT_CRL_SIGNATURE, UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY,
        // CERT_NOT_YET_VALID, CRL_NOT_YET_VALID, ERROR_IN_…_FIELD, UNABLE_TO_VERIFY_LEAF_SIGNATURE, CERT_UNTRUSTED,
        // CERT_REJECTED, SUBJECT_ISSUER_MISMATCH, SUITE_B_…, HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH,
        // DANE_NO_MATCH, EE_KEY_TOO_SMALL, CA_KEY_TOO_SMALL, CA_MD_TOO_WEAK, EC_KEY_EXPLICIT_PARAMS
        4..=6 | 9 | 11 | 13..=16 | 21 | 27..=29 | 56..=68 | 94 => 42,
        // INVALID_PURPOSE
        26 => 43,
        // CERT_REVOKED
        23 => 44,
        // CERT_HAS_EXPIRED, CRL_HAS_EXPIRED
        10 | 12 => 45,
        // UNABLE_TO_GET_ISSUER_CERT, UNABLE_TO_GET_CRL, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN,
        // UNABLE_TO_GET_ISSUER_CERT_LOCALLY, CERT_CHAIN_TOO_LONG, PATH_LENGTH_EXCEEDED, UNABLE_TO_GET_CRL_ISSUER, INVALID_CA
        2 | 3 | 18..=20 | 22 | 25 | 33 | 79 => 48,
        // CERT_SIGNATURE_FAILURE, CRL_SIGNATURE_FAILURE
        7 | 8 => 51,
        // UNSPECIFIED, OUT_OF_MEM, INVALID_CALL, STORE_LOOKUP
        1 | 17 | 69 | 70 => 80,
        _ => 46,
    }
}

impl Session for OpenSslSession {
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.call(wire, |s| s.do_handshake())?;
        self.client.shaken(self.stream.ssl());
        Ok(())
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        let n = self.call(wire, |s| match s.ssl_read(buf) {
            Err(e) if e.code() == ssl::ErrorCode::ZERO_RETURN => Ok(0),
            other => other,
        })?;
        self.may_have_more = n == buf.len();
        Ok(n)
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        self.call(wire, |s| s.ssl_write(data))
    }

    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.call(wire, |s| s.shutdown().map(drop))
    }

    fn pending(&self) -> usize {
        match self.may_have_more {
            true => self.stream.ssl().pending(),
            false => 0,
        }
    }

    fn resumable(&mut self, _wire: &mut Wire) -> Option<Resumable> {
        let ssl = self.stream.ssl();
        (!ssl.is_server()).then(|| self.client.share(ssl))
    }

    fn kept(&self) -> Option<Vec<u8>> {
        let ssl = self.stream.ssl();
        if ssl.is_server() {
            None
        } else {
            self.client.kept(ssl)
        }
    }

    fn version(&self) -> Option<Version> {
        Some(match self.stream.ssl().version2()? {
            SslVersion::TLS1 => Version::Tls1_0,
            SslVersion::TLS1_1 => Version::Tls1_1,
            SslVersion::TLS1_2 => Version::Tls1_2,
            SslVersion::TLS1_3 => Version::Tls1_3,
            _ => return None,
        })
    }

    fn cipher(&self) -> Option<String> {
        Some(self.stream.ssl().current_cipher()?.name().to_string())
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.stream.ssl().selected_alpn_protocol().map(<[u8]>::to_vec)
    }

    fn server_name(&self) -> Option<String> {
        self.stream.ssl().servername(NameType::HOST_NAME).map(str::to_string)
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        certificate(&*self.stream.ssl().peer_certificate()?)
    }

    fn peer_certificates(&self) -> Option<Vec<Certificate>> {
        let ssl = self.stream.ssl();
        let leaf = self.peer_certificate()?;
        // On a server OpenSSL leaves the leaf out of the chain.
        let rest = ssl.peer_cert_chain().into_iter().flatten().filter_map(certificate).filter(|c| *c != leaf);
        Some(std::iter::once(leaf.clone()).chain(rest).collect())
    }

    fn verified_chain(&self) -> Option<Vec<Certificate>> {
        let ssl = self.stream.ssl();
        if !self.verifies() || ssl.session_reused() || ssl.verify_result() != X509VerifyResult::OK {
            return None;
        }
        Some(ssl.verified_chain()?.iter().filter_map(certificate).collect())
    }

    fn group(&self) -> Option<String> {
        group::of(self.stream.ssl(), self.version() == Some(Version::Tls1_3))
    }

    fn ocsp_response(&self) -> Option<Vec<u8>> {
        let ssl = self.stream.ssl();
        if ssl.is_server() {
            return None;
        }
        ssl.ocsp_status().filter(|response| !response.is_empty()).map(<[u8]>::to_vec)
    }

    fn is_resumed(&self) -> Option<bool> {
        Some(self.stream.ssl().session_reused())
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        let ssl: &SslRef = self.stream.ssl();
        let peer = ssl.peer_certificate();
        let certificate = if ssl.is_server() { ssl.certificate()? } else { peer.as_deref()? };
        // RFC 5929, section 4.1: the signature's hash, but SHA-256 for the broken ones.
        let digest = match certificate.signature_algorithm().object().nid().signature_algorithms()?.digest {
            // Its name does not say it: RSASSA-PSS.
            Nid::UNDEF => return end_point(&certificate.to_der().ok()?),
            Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
            digest => MessageDigest::from_nid(digest)?,
        };
        certificate.digest(digest).ok().map(|d| d.to_vec())
    }

    fn has_extended_master_secret(&self) -> Option<bool> {
        self.stream.ssl().extms_support()
    }

    fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> Result<(), Error> {
        let exported = self.stream.ssl().export_keying_material(out, label, context);
        exported.map_err(|e| setup_error("export_keying_material", e))
    }
}

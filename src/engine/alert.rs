//! What a library's errors mean, in OpenSSL's terms: alerts and verdicts. `native-tls` needs it where it is OpenSSL.

use super::verdict::Fault;
use crate::alert::alert_name;
use crate::certificate::Certificate;
use crate::error::{Error, ErrorKind};

/// What an error of the library tells.
#[derive(Default)]
pub(super) struct Report {
    /// OpenSSL's reason code.
    pub reason: Option<u32>,
    /// The alert our side put on the wire, where it could be seen.
    pub alert_sent: Option<u8>,
    /// The certificate check's verdict: a name that does not fit, or another fault.
    pub verdict: Option<Verdict>,
    /// What it is about, as the peer sent it, its own certificate first; empty where the library does not show it.
    pub refused: Vec<Certificate>,
    /// The alert that goes with it, if that is known.
    pub verdict_alert: Option<u8>,
    /// Whether TLS 1.3 is spoken, if that is known: some reasons then mean another alert.
    pub is_tls13: Option<bool>,
    /// Which alert a record gets in TLS 1.3 whose version is none, if that is known: it has changed.
    pub wrong_version_alert: Option<u8>,
    /// Whether no alert can have gone out, as our close_notify has.
    pub is_mute: bool,
    /// The library's own words.
    pub text: String,
}

pub(super) enum Verdict {
    WrongName(String),
    Refused(String),
}

const HANDSHAKE_FAILURE: u8 = 40;
const CERTIFICATE_REQUIRED: u8 = 116;

impl Report {
    /// Reasons from here on are alerts of the peer: the number is added (SSL_AD_REASON_OFFSET).
    pub const PEER_ALERT: u32 = 1000;
    /// In a handshake OpenSSL has no reason for it.
    #[allow(dead_code, reason = "without OpenSSL nobody asks")]
    pub const PEER_CLOSED: u32 = Report::PEER_ALERT;
    pub const PEER_DID_NOT_RETURN_A_CERTIFICATE: u32 = 199;
    pub const CERTIFICATE_VERIFY_FAILED: u32 = 134;

    /// The kind, the alert, and a text for a person.
    pub fn judge(self) -> Error {
        let alert_for_reason = self.reason.and_then(|reason| self.alert_for(reason));
        let sent = |alert: Option<u8>| self.alert_sent.or(alert).filter(|_| !self.is_mute);
        let certificate = |kind, text: String, alert| {
            let chain = self.refused.iter().map(Certificate::to_der);
            Error::new(kind, text).with_alert(sent(alert)).with_refused(chain)
        };
        match (&self.verdict, self.reason) {
            (_, Some(reason @ Report::PEER_ALERT..=1255)) => {
                let alert = (reason - Report::PEER_ALERT) as u8;
                let text = format!("the peer sent the alert {} ({alert})", alert_name(alert));
                Error::new(ErrorKind::PeerAlert(alert), text)
            }
            (Some(Verdict::WrongName(why)), _) => {
                let text = format!("the peer's certificate is for another name: {why}");
                certificate(ErrorKind::HostnameMismatch, text, self.verdict_alert)
            }
            (Some(Verdict::Refused(why)), _) => {
                let text = format!("the peer's certificate is not acceptable: {why}");
                certificate(ErrorKind::Certificate, text, self.verdict_alert)
            }
            (None, Some(Report::CERTIFICATE_VERIFY_FAILED)) => {
                let text = "the peer's certificate is not acceptable".to_string();
                certificate(ErrorKind::Certificate, text, self.verdict_alert)
            }
            (None, Some(Report::PEER_DID_NOT_RETURN_A_CERTIFICATE)) => {
                let text = "the peer sent no certificate and one is required".to_string();
                let alert =
                    self.is_tls13.map(|is_tls13| if is_tls13 { CERTIFICATE_REQUIRED } else { HANDSHAKE_FAILURE });
                certificate(ErrorKind::Certificate, text, alert)
            }
            (None, _) => match sent(alert_for_reason) {
                Some(alert) => {
                    let text = format!("{}; ended with the alert {} ({alert})", self.text, alert_name(alert));
                    Error::new(ErrorKind::LocalAlert(alert), text)
                }
                None => Error::new(ErrorKind::Protocol, self.text),
            },
        }
    }

    /// The alert that OpenSSL sends for a reason (sslerr.h), for when it went out encrypted and could not be seen.
    fn alert_for(&self, reason: u32) -> Option<u8> {
        Some(match reason {
            // WRONG_VERSION_NUMBER, in the header of a record
            267 if self.is_tls13 == Some(false) => 70,
            267 => self.wrong_version_alert?,
            // UNEXPECTED_MESSAGE, UNEXPECTED_RECORD, APP_DATA_IN_HANDSHAKE, CCS_RECEIVED_EARLY, BAD_RECORD_TYPE,
            // NOT_ON_RECORD_BOUNDARY, TOO_MANY_WARN_ALERTS, INVALID_ALERT, RECORD_TOO_SMALL: too many empty ones,
            // BAD_LENGTH: an empty one that may not be
            244 | 245 | 100 | 133 | 443 | 182 | 409 | 205 | 298 | 271 => 10,
            // DECRYPTION_FAILED_OR_BAD_RECORD_MAC, DECRYPTION_FAILED
            281 | 147 => 20,
            // DATA_LENGTH_TOO_LONG, ENCRYPTED_LENGTH_TOO_LONG, PACKET_LENGTH_TOO_LONG
            146 | 150 | 198 => 22,
            // NO_SHARED_CIPHER, NO_SUITABLE_SIGNATURE_ALGORITHM, NO_SHARED_SIGNATURE_ALGORITHMS, NO_SUITABLE_KEY_SHARE,
            // NO_SUITABLE_GROUPS, NO_SHARED_GROUPS, UNSAFE_LEGACY_RENEGOTIATION_DISABLED, NO_RENEGOTIATION
            193 | 118 | 376 | 101 | 295 | 410 | 338 | 339 => 40,
            // TOO_MANY_KEY_UPDATES, BAD_KEY_UPDATE, EXCESSIVE_MESSAGE_SIZE, UNKNOWN_ALERT_TYPE
            132 | 122 | 152 | 246 => 47,
            // LENGTH_MISMATCH, BAD_EXTENSION, LENGTH_TOO_SHORT
            159 | 110 | 160 => 50,
            // BAD_SIGNATURE, DIGEST_CHECK_FAILED
            123 | 149 => 51,
            // UNSUPPORTED_PROTOCOL, UNKNOWN_PROTOCOL, VERSION_TOO_LOW, WRONG_SSL_VERSION
            258 | 252 | 396 | 266 => 70,
            // INAPPROPRIATE_FALLBACK
            373 => 86,
            // NO_APPLICATION_PROTOCOL
            235 => 120,
            _ => return None,
        })
    }
}

/// What OpenSSL has against a certificate, from its words for it (X509_verify_cert_error_string), which `native-tls` has nothing
/// beyond. They differ a little from version to version.
#[allow(dead_code, reason = "not every library has them")]
pub(super) fn of_openssl(words: &str) -> Fault {
    let lower = words.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    match () {
        () if says(&["hostname mismatch", "ip address mismatch"]) => Fault::WrongName(Vec::new()),
        () if lower == "certificate has expired" => Fault::Expired(None),
        () if lower == "certificate is not yet valid" => Fault::NotYetValid(None),
        () if says(&["self-signed", "self signed", "verify the first certificate"]) => Fault::UnknownIssuer,
        () if ["unable to get issuer certificate", "unable to get local issuer certificate"]
            .contains(&lower.as_str()) =>
        {
            Fault::UnknownIssuer
        }
        () if lower == "certificate signature failure" => Fault::BadSignature,
        () if lower == "certificate revoked" => Fault::Revoked,
        () if says(&["certificate purpose"]) => Fault::WrongPurpose,
        () if says(&["invalid ca certificate", "invalid non-ca certificate"]) => Fault::IssuerIsNone,
        () if says(&["permitted subtree", "excluded subtree", "path length constraint"]) => Fault::NotPermitted,
        () => Fault::Other(words.to_string()),
    }
}

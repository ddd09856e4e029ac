use crate::role::Role;

/// An alert that one end of a connection sent to the other (RFC 8446, section 6), for
/// [`ContextBuilder::on_alert`](crate::ContextBuilder::on_alert).
#[derive(Clone, Debug)]
pub struct Alert {
    pub(crate) number: u8,
    pub(crate) is_ours: bool,
    pub(crate) role: Role,
    pub(crate) peer: String,
    pub(crate) not_tls: Option<Vec<u8>>,
}

impl Alert {
    /// Its number: 0 is close_notify.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its name in RFC 8446: "close_notify".
    pub fn name(&self) -> &'static str {
        alert_name(self.number)
    }

    /// Whether it is ours; else the peer sent it.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Which end of the handshake we are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The peer, as errors name it: the server's name, the address. Empty for a bare [`Connection`](crate::Connection).
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// What had come from a client that speaks no TLS, when that is what this alert is about. It has not been sent: the stream
    /// can be taken back, with these bytes, and answered in plain.
    pub fn not_tls(&self) -> Option<&[u8]> {
        self.not_tls.as_deref()
    }
}

/// The name of an alert (RFC 8446, section 6, and the registry it started), for texts.
pub(crate) fn alert_name(number: u8) -> &'static str {
    match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "an alert without a name",
    }
}

//! What rustls' constants are called elsewhere: in OpenSSL's lists and in the RFCs.

use rustls::{CipherSuite, NamedGroup, SignatureScheme};

/// OpenSSL's name, which for TLS 1.3 is the RFC's: "TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256".
pub(super) fn suite(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or("unknown");
    if let Some(rest) = name.strip_prefix("TLS13_") {
        return format!("TLS_{rest}");
    }
    let name = name.trim_start_matches("TLS_").replace("_WITH_", "_").replace("AES_", "AES").replace('_', "-");
    match name.strip_suffix("-POLY1305-SHA256") {
        Some(chacha) => format!("{chacha}-POLY1305"),
        None => name,
    }
}

/// The name in the registry of IANA, which RFC 8446, section 4.2.7, began.
pub(super) fn group(group: NamedGroup) -> String {
    match group {
        NamedGroup::X25519 => "x25519".to_string(),
        NamedGroup::X448 => "x448".to_string(),
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768".to_string(),
        group => group.as_str().map_or_else(|| format!("{group:?}"), str::to_string),
    }
}

/// Whether this is a name of the group: the RFC's, OpenSSL's or NIST's, in any case of letters.
pub(super) fn is_group(name: &str, wanted: NamedGroup) -> bool {
    let other = match wanted {
        NamedGroup::secp256r1 => &["P-256", "prime256v1"][..],
        NamedGroup::secp384r1 => &["P-384"],
        NamedGroup::secp521r1 => &["P-521"],
        _ => &[],
    };
    let canonical = group(wanted);
    std::iter::once(canonical.as_str()).chain(other.iter().copied()).any(|known| known.eq_ignore_ascii_case(name))
}

/// By the name in RFC 8446, section 4.2.3.
pub(super) fn signature_scheme(name: &str) -> Option<SignatureScheme> {
    Some(match name.to_ascii_lowercase().as_str() {
        "rsa_pkcs1_sha256" => SignatureScheme::RSA_PKCS1_SHA256,
        "rsa_pkcs1_sha384" => SignatureScheme::RSA_PKCS1_SHA384,
        "rsa_pkcs1_sha512" => SignatureScheme::RSA_PKCS1_SHA512,
        "rsa_pss_rsae_sha256" => SignatureScheme::RSA_PSS_SHA256,
        "rsa_pss_rsae_sha384" => SignatureScheme::RSA_PSS_SHA384,
        "rsa_pss_rsae_sha512" => SignatureScheme::RSA_PSS_SHA512,
        "ecdsa_secp256r1_sha256" => SignatureScheme::ECDSA_NISTP256_SHA256,
        "ecdsa_secp384r1_sha384" => SignatureScheme::ECDSA_NISTP384_SHA384,
        "ecdsa_secp521r1_sha512" => SignatureScheme::ECDSA_NISTP521_SHA512,
        "ed25519" => SignatureScheme::ED25519,
        "ed448" => SignatureScheme::ED448,
        _ => return None,
    })
}

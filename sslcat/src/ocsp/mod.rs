//! The OCSP response that a server has stapled to its certificate (RFC 6066, section 8; RFC 6960). The library hands it over as it
//! came; here it is read and judged.

mod certificate;
mod der;

use std::time::{Duration, SystemTime};

use ring::digest;
use serde_json::{json, Value};
use sslfile::{Certificate, SslFile};

use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{chain, date};
use certificate::{Parts, Signed};
use der::Elements;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Good,
    Revoked,
    Unknown,
}

/// What was stapled.
#[derive(Debug, Default)]
pub struct Stapled {
    status: Option<Status>,
    this_update: Option<SystemTime>,
    next_update: Option<SystemTime>,
    revoked_at: Option<SystemTime>,
    /// Why it proves nothing.
    fault: Option<String>,
}

/// None: nothing was.
pub fn of(file: &SslFile) -> Option<Stapled> {
    let response = file.ocsp_response()?;
    let chain = chain::of(file);
    let known = file.verified_chain().unwrap_or_default().into_iter().chain(chain.iter().skip(1).cloned());
    Some(judge(&response, chain.first(), &known.collect::<Vec<_>>(), SystemTime::now()))
}

/// `--ocsp`: it is there, in order, and says that all is well. Without it: what is in order does not say otherwise.
pub fn check(args: &Args, file: &SslFile) -> Result<(), Failure> {
    let fail = |text: String| Err(Failure::new(exit::CERTIFICATE, text));
    let stapled = match of(file) {
        Some(stapled) => stapled,
        None if args.certificates.ocsp => return fail("the server has stapled no OCSP response".to_string()),
        None => return Ok(()),
    };
    match (&stapled.fault, stapled.status) {
        (None, Some(Status::Good)) => Ok(()),
        (None, Some(Status::Revoked)) => fail(format!("the certificate is {}", stapled.verdict())),
        _ if !args.certificates.ocsp => Ok(()),
        (Some(fault), _) => fail(format!("the OCSP response that the server has stapled proves nothing: {fault}")),
        _ => fail("the issuer's OCSP responder does not know the certificate".to_string()),
    }
}

impl Stapled {
    fn verdict(&self) -> String {
        match self.status {
            None => "not told".to_string(),
            Some(Status::Good) => "good".to_string(),
            Some(Status::Unknown) => "unknown to the responder".to_string(),
            Some(Status::Revoked) => {
                format!("REVOKED since {}", self.revoked_at.map_or("an unknown day".to_string(), date::utc))
            }
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let until = self.next_update.map(|time| format!(", until {}", date::utc(time))).unwrap_or_default();
        let from = self.this_update.map(|time| format!(", as of {}", date::utc(time))).unwrap_or_default();
        let fault = self.fault.as_ref().map(|fault| format!("; it proves NOTHING: {fault}")).unwrap_or_default();
        format!("stapled OCSP response: {}{from}{until}{fault}", self.verdict())
    }

    pub fn json(&self) -> Value {
        let status = self.status.map(|status| match status {
            Status::Good => "good",
            Status::Revoked => "revoked",
            Status::Unknown => "unknown",
        });
        json!({
            "status": status,
            "this_update": self.this_update.map(date::iso),
            "next_update": self.next_update.map(date::iso),
            "revoked_at": self.revoked_at.map(date::iso),
            "fault": self.fault,
        })
    }

    fn faulty(fault: impl ToString) -> Stapled {
        Stapled { fault: Some(fault.to_string()), ..Stapled::default() }
    }
}

/// Clocks differ.
const SKEW: Duration = Duration::from_secs(300);

fn judge(response: &[u8], leaf: Option<&Certificate>, known: &[Certificate], now: SystemTime) -> Stapled {
    let Some(leaf) = leaf.map(Certificate::to_der) else { return Stapled::faulty("there is no certificate") };
    let known: Vec<Vec<u8>> = known.iter().map(Certificate::to_der).collect();
    let Some(leaf) = Parts::of(&leaf) else { return Stapled::faulty("the certificate can't be read") };
    let mut issuers = known.iter().filter_map(|certificate| Parts::of(certificate));
    let issuer = issuers.find(|issuer| leaf.is_issued_by(issuer));
    let basic = match basic(response) {
        Ok(basic) => basic,
        Err(fault) => return Stapled::faulty(fault),
    };
    let Some((signed, certificates)) = parts(basic) else { return Stapled::faulty("it can't be read") };
    let Some(single) = single(&signed, &leaf, issuer.as_ref()) else {
        return Stapled::faulty("it is about other certificates");
    };
    let Some(mut stapled) = read(single) else { return Stapled::faulty("it can't be read") };
    stapled.fault = fault(&stapled, now).or_else(|| {
        let Some(issuer) = issuer else { return Some("the certificate's issuer is not known".to_string()) };
        let certificates: Vec<_> = certificates.into_iter().flatten().collect();
        (!is_signed(&signed, &certificates, &issuer, now)).then(|| "its signature is not the issuer's".to_string())
    });
    stapled
}

fn fault(stapled: &Stapled, now: SystemTime) -> Option<String> {
    // Without an end there is always a newer one (RFC 6960, section 2.4).
    const WITHOUT_END: Duration = Duration::from_secs(86400);
    let from = stapled.this_update?;
    match stapled.next_update.unwrap_or(from + WITHOUT_END) {
        _ if from > now + SKEW => Some("it is from the future".to_string()),
        until if until + SKEW < now => Some("it is past its date".to_string()),
        _ => None,
    }
}

/// By the issuer, or by whom the issuer lets sign for it (RFC 6960, section 4.2.2.2).
fn is_signed(signed: &Signed<'_>, certificates: &[&[u8]], issuer: &Parts<'_>, now: SystemTime) -> bool {
    let is_valid = |der: &&&[u8]| {
        let info = Certificate::from_der(der).and_then(|certificate| certificate.info());
        info.is_ok_and(|info| info.is_valid_at(now))
    };
    let delegates = certificates.iter().filter(|der| is_valid(der)).filter_map(|der| Parts::of(der));
    signed.is_signed_by(issuer)
        || delegates.filter(|one| one.is_responder_of(issuer)).any(|one| signed.is_signed_by(&one))
}

/// The BasicOCSPResponse, in DER.
fn basic(response: &[u8]) -> Result<&[u8], String> {
    const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let unreadable = || "it can't be read".to_string();
    let mut parts = Elements(response).tagged(der::SEQUENCE).ok_or_else(unreadable)?.parts();
    match parts.tagged(der::ENUMERATED).ok_or_else(unreadable)?.body {
        [0] => {}
        [number] => return Err(format!("the responder gave none (status {number})")),
        _ => return Err(unreadable()),
    }
    let bytes = parts.tagged(0xa0).and_then(|bytes| bytes.parts().tagged(der::SEQUENCE)).ok_or_else(unreadable)?;
    let mut bytes = bytes.parts();
    let kind = bytes.tagged(der::OBJECT_IDENTIFIER).ok_or_else(unreadable)?.body;
    let basic = bytes.tagged(der::OCTET_STRING).filter(|_| kind == BASIC);
    basic.map(|basic| basic.body).ok_or_else(|| "it is of an unknown kind".to_string())
}

/// What is signed, and the certificates beside it.
fn parts(basic: &[u8]) -> Option<(Signed<'_>, Option<impl Iterator<Item = &[u8]>>)> {
    let mut parts = Elements(basic).tagged(der::SEQUENCE)?.parts();
    let signed = Signed::take(&mut parts)?;
    let certificates = parts.tagged(0xa0).and_then(|list| list.parts().tagged(der::SEQUENCE));
    Some((signed, certificates.map(|list| list.parts().map(|one| one.whole))))
}

/// The part about this certificate.
fn single<'a>(signed: &Signed<'a>, leaf: &Parts<'_>, issuer: Option<&Parts<'_>>) -> Option<Elements<'a>> {
    let mut data = signed.content();
    data.tagged(0xa0);
    // The responder, and when.
    data.next()?;
    data.tagged(der::GENERALIZED_TIME)?;
    let mut all = data.tagged(der::SEQUENCE)?.parts();
    all.find_map(|one| {
        let mut parts = one.parts();
        let mut id = parts.tagged(der::SEQUENCE)?.parts();
        let hash = id.tagged(der::SEQUENCE)?.parts().tagged(der::OBJECT_IDENTIFIER)?.body;
        let name = id.tagged(der::OCTET_STRING)?.body;
        let key = id.tagged(der::OCTET_STRING)?.body;
        let is_it = id.tagged(der::INTEGER)?.body == leaf.serial;
        let hash = match hash {
            [0x2b, 0x0e, 3, 2, 0x1a] => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => &digest::SHA256,
            _ => return None,
        };
        let fits = |text: &[u8], hashed: &[u8]| digest::digest(hash, text).as_ref() == hashed;
        let is_it = is_it && fits(leaf.issuer, name) && issuer.is_none_or(|issuer| fits(issuer.key, key));
        is_it.then_some(parts)
    })
}

fn read(mut single: Elements<'_>) -> Option<Stapled> {
    let mut stapled = Stapled::default();
    let status = single.next()?;
    stapled.status = Some(match status.tag {
        0x80 => Status::Good,
        0xa1 => {
            stapled.revoked_at = Some(time(status.parts())?);
            Status::Revoked
        }
        0x82 => Status::Unknown,
        _ => return None,
    });
    stapled.this_update = Some(time(single)?);
    single.next();
    if let Some(until) = single.tagged(0xa0) {
        stapled.next_update = Some(time(until.parts())?);
    }
    Some(stapled)
}

/// `20261130235959Z` (RFC 5280, section 4.1.2.5.2).
fn time(mut parts: Elements<'_>) -> Option<SystemTime> {
    let text = std::str::from_utf8(parts.tagged(der::GENERALIZED_TIME)?.body).ok()?;
    date::from_digits(text.strip_suffix('Z')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::from_base64;

    // Made by `openssl ocsp`: a root, a certificate that it has signed, and its word on that, from 2026-11-30 for three days.
    const ROOT: &str = "MIIBbDCCAROgAwIBAgIUUoqQe046OKqM/1mCqRssV1U1eMwwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBUjAeFw0yNjExMzAwODUzMTJaFw0yNjEyMTAwODUz\
         MTJaMAwxCjAIBgNVBAMMAVIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ6eW3sM2OdMKcxBLSTtmlKOXM4MboInPf6TJbZgqUAVfR8LiKojUlz+9ppjFH1\
         xOs6TK1pQrNTg1xieGcypAX9o1MwUTAdBgNVHQ4EFgQUNlD81XoKNroJWokHej0X7vkQ3oswHwYDVR0jBBgwFoAUNlD81XoKNroJWokHej0X7vkQ3oswDwYD\
         VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBizvYLC6jnYINtqt9gEgCFxFMAUgRlqJISjALvbAP+AwIgT4GtXYjUklwUWlULftKPg2H81s0ADPZv\
         Uif8TyWHQWE=";
    const LEAF: &str = "MIH+MIGmAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAVIwHhcNMjYxMTMwMDg1MzEyWhcNMjYxMjEwMDg1MzEyWjAMMQowCAYDVQQDDAFMMFkwEwYHKoZI\
         zj0CAQYIKoZIzj0DAQcDQgAEsll253s+zbkPIvdQq9QI0lmo+02cQRxgGmKnr1lMEX7fLFG3yxuzE4bSqG2k/Gb/E3/LbBEh1jBZ2PSZQIwH8zAKBggqhkjO\
         PQQDAgNHADBEAiBq6wpToDEqxsQhPW63eGZwRQHxKbVAvconIWhkLjI5cwIgRuw+lHBda0XzIPg5YRWM3puoQ8dAOkEqkKyC1gXBD6Y=";
    const RESPONSE: &str = "MIIBIgoBAKCCARswggEXBgkrBgEFBQcwAQEEggEIMIIBBDCBrKEOMAwxCjAIBgNVBAMMAVIYDzIwMjYxMTMwMDg1MzEyWjBkMGIwOjAJBgUrDgMCGgUABBRA\
         c9lLCKvjoYTSonyXZAlAuuEfkQQUNlD81XoKNroJWokHej0X7vkQ3osCAQGAABgPMjAyNjExMzAwODUzMTJaoBEYDzIwMjYxMjAzMDg1MzEyWqEjMCEwHwYJ\
         KwYBBQUHMAECBBIEEGUz1p2Q6uBeav+Pz2Cpo1EwCgYIKoZIzj0EAwIDRwAwRAIgabwwDiKmSG+dYStcXA9WVjBOoZ9se+LbD5GvWtW1GqICIErS30CDUXKJ\
         CsnOkyfjwvrW0qfY8rfg5KySm5Unb+OC";

    fn bytes(text: &str) -> Vec<u8> {
        from_base64(text).expect("BASE64")
    }

    fn at(digits: &str) -> SystemTime {
        date::from_digits(digits).expect("a date")
    }

    fn judged(response: &[u8], now: &str) -> Stapled {
        let [leaf, root] = [LEAF, ROOT].map(|der| Certificate::from_der(&bytes(der)).expect("a certificate"));
        judge(response, Some(&leaf), &[leaf.clone(), root], at(now))
    }

    #[test]
    fn a_response_counts_as_long_as_it_says() {
        for (now, fault) in [
            ("20261130084000", Some("it is from the future")),
            ("20261130085312", None),
            ("20261203085312", None),
            ("20261203090000", Some("it is past its date")),
        ] {
            let stapled = judged(&bytes(RESPONSE), now);
            assert_eq!((stapled.status, stapled.fault.as_deref()), (Some(Status::Good), fault), "{now}");
        }
        let root = Certificate::from_der(&bytes(ROOT)).expect("a certificate");
        let other = judge(&bytes(RESPONSE), Some(&root), std::slice::from_ref(&root), at("20261201000000"));
        assert_eq!(other.fault.as_deref(), Some("it is about other certificates"));
    }

    #[test]
    fn no_byte_of_it_can_be_another() {
        let response = bytes(RESPONSE);
        for place in 0..response.len() {
            for change in [1, 0x20, 0x80, 0xff] {
                let mut forged = response.clone();
                forged[place] ^= change;
                let stapled = judged(&forged, "20261201000000");
                // Its length may be written in another way, and a signature's numbers; nothing else is left as it was.
                let is_same = stapled.status == Some(Status::Good) && stapled.next_update == Some(at("20261203085312"));
                assert!(stapled.fault.is_some() || is_same, "{place}: {stapled:?}");
            }
            assert!(judged(&response[..place], "20261201000000").fault.is_some(), "{place}");
        }
        let mut noise = 1_u32;
        for _ in 0..2000 {
            let mut forged = response.clone();
            for _ in 0..4 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = noise as usize % forged.len();
                forged[place] = (noise >> 24) as u8;
            }
            let _ = judged(&forged, "20261201000000");
        }
    }
}

//! The little that errors tell of a certificate (RFC 5280, section 4.1), read without any library.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use super::name::name_text;
use crate::der;

/// A certificate's own words.
pub(crate) struct Brief<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    /// As [`moment`] writes it.
    pub not_before: String,
    pub not_after: String,
    /// Whom it is for, as far as hosts can be: names and addresses.
    pub hosts: Vec<String>,
}

impl<'a> Brief<'a> {
    /// `None` if it cannot be read.
    pub fn of(certificate: &'a [u8]) -> Option<Brief<'a>> {
        let (.., rest) = der::element(der::certificate_fields(certificate)?)?;
        let (issuer, rest) = der::whole(rest)?;
        let (der::SEQUENCE, validity, rest) = der::element(rest)? else { return None };
        let (subject, _) = der::whole(rest)?;
        let (first, from, until) = der::element(validity)?;
        let (last, until, _) = der::element(until)?;
        Some(Brief {
            issuer,
            subject,
            not_before: moment(first, from)?,
            not_after: moment(last, until)?,
            hosts: hosts(certificate),
        })
    }

    pub fn subject(&self) -> String {
        told(self.subject)
    }

    pub fn issuer(&self) -> String {
        told(self.issuer)
    }

    pub fn is_issued_by(&self, other: &Brief<'_>) -> bool {
        self.issuer == other.subject
    }

    pub fn is_self_issued(&self) -> bool {
        self.is_issued_by(self)
    }
}

fn told(name: &[u8]) -> String {
    match name_text(name) {
        text if text.is_empty() => "(without a name)".to_string(),
        text => shortened(&text),
    }
}

/// What a peer has made up must not fill a log.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// The subject alternative names (section 4.2.1.6) that are a host's, as text without characters that move a cursor.
fn hosts(certificate: &[u8]) -> Vec<String> {
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    const DNS_NAME: u8 = 0x82;
    const IP_ADDRESS: u8 = 0x87;
    let names = der::extension(certificate, SUBJECT_ALT_NAME).and_then(der::element);
    let Some((der::SEQUENCE, names, _)) = names else { return Vec::new() };
    let host = |(tag, body, _): (u8, &[u8], &[u8])| match (tag, body.len()) {
        (DNS_NAME, _) => {
            let name = shortened(&String::from_utf8_lossy(body).escape_debug().to_string());
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            Some(if is_address { format!("{name} (as a DNS name)") } else { name })
        }
        (IP_ADDRESS, 4) => <[u8; 4]>::try_from(body).ok().map(|b| Ipv4Addr::from(b).to_string()),
        (IP_ADDRESS, 16) => <[u8; 16]>::try_from(body).ok().map(|b| Ipv6Addr::from(b).to_string()),
        _ => None,
    };
    der::elements(names).filter_map(host).collect()
}

/// A time of a certificate (section 4.1.2.5) as people write it: of two, the later is the greater as text.
fn moment(tag: u8, body: &[u8]) -> Option<String> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = std::str::from_utf8(body).ok()?;
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_string(),
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|t| t.len() == 14 && t.bytes().all(|b| b.is_ascii_digit()))?;
    let [date, time] = [&digits[..8], &digits[8..]];
    Some(format!("{}-{}-{} {}:{}:{} UTC", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]))
}

/// The same of the system's clock.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    at(since.as_secs())
}

/// The same of a moment in seconds since 1970.
pub(crate) fn at(seconds: u64) -> String {
    let (mut days, second) = (seconds / 86400, seconds % 86400);
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // Whole cycles of the calendar first.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(at(seconds), text);
        }
        assert_eq!(moment(0x17, b"491231235959Z").as_deref(), Some("2049-12-31 23:59:59 UTC"));
        assert_eq!(moment(0x17, b"500101000000Z").as_deref(), Some("1950-01-01 00:00:00 UTC"));
        assert_eq!(moment(0x18, b"20500101000000Z").as_deref(), Some("2050-01-01 00:00:00 UTC"));
        for bad in [&b""[..], b"Z", b"4\xff", b"20500101000000", b"205001010000+1Z"] {
            assert_eq!((moment(0x17, bad), moment(0x18, bad)), (None, None), "{bad:?}");
        }
    }

    /// What it is given has often been read by nobody before.
    #[test]
    fn garbage_is_no_certificate_and_no_panic() {
        for byte in 0..=255 {
            for length in 0..40 {
                assert!(Brief::of(&vec![byte; length]).is_none());
            }
        }
    }
}

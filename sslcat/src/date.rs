//! Moments and spans, as certificates have them: in UTC, in days.

use std::time::{Duration, SystemTime};

const DAY: i64 = 86400;

/// `2026-11-30 23:59:59 UTC`.
pub fn utc(time: SystemTime) -> String {
    iso(time).replace('T', " ").replace('Z', " UTC")
}

/// `2026-11-30T23:59:59Z` (RFC 3339).
pub fn iso(time: SystemTime) -> String {
    let seconds = since_1970(time);
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Counted from the first of March of the year 0, so that a leap day is a year's last; in cycles of 400 years.
    let day = day + 719_468;
    let (cycle, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + cycle * 400 + next_year;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// `20261130235959`, as certificates and OCSP responses have it.
pub fn from_digits(text: &str) -> Option<SystemTime> {
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |place: std::ops::Range<usize>| text[place].parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    // As in `iso`, the other way.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (153 * month + 2) / 5 + day - 1 - 719_468;
    let time = SystemTime::UNIX_EPOCH;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    let time = match u64::try_from(seconds) {
        Ok(seconds) => time.checked_add(Duration::from_secs(seconds))?,
        Err(_) => time.checked_sub(Duration::from_secs(seconds.unsigned_abs()))?,
    };
    // Neither a 30th of February nor a 25th hour.
    let is_a_date = iso(time).chars().filter(char::is_ascii_digit).eq(text.chars());
    is_a_date.then_some(time)
}

/// Whole days from one to the other; below zero if that lies behind.
pub fn days(from: SystemTime, to: SystemTime) -> i64 {
    (since_1970(to) - since_1970(from)).div_euclid(DAY)
}

fn since_1970(time: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX / 4);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(span) => seconds(span),
        Err(before) => -seconds(before.duration()),
    }
}

/// `14d`, `36h`, `2w`.
pub fn span(text: &str) -> Result<Duration, String> {
    let units = [("h", 3600), ("d", 86400), ("w", 7 * 86400)];
    let found = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds).filter(|seconds| *seconds < 1 << 40)
    });
    found.map(Duration::from_secs).ok_or("not a span as 14d, 36h or 2w".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: i64| match u64::try_from(seconds) {
            Ok(seconds) => iso(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            Err(_) => iso(SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs())),
        };
        // As `date --utc --date=@N` has them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(at(seconds), text);
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            assert_eq!(from_digits(&digits).map(iso).as_deref(), Some(text));
        }
        for wrong in ["", "2026113023595", "20260230000000", "20261301000000", "20261130240000", "2026113023595é"] {
            assert_eq!(from_digits(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(span("14d"), Ok(Duration::from_secs(14 * 86400)));
        assert_eq!(span("2w"), span("14d"));
        assert_eq!(span("48h"), span("2d"));
        for wrong in ["", "14", "d", "-1d", "1.5d", "99999999999999999w", "1y"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}

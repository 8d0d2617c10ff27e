//! Numbers and times as people write and read them. Pure.

use std::time::Duration;

use fleet_contract::needs::unit_bytes;
use fleet_contract::time::Time;

/// A span as a person writes it: `30s`, `10m`, `1h 30m`, `250ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write it like 30s, 10m, 1h30m or 250ms");
    if text.trim().is_empty() || text.trim().bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    humantime::parse_duration(text.trim()).map_err(|_| wrong())
}

/// A span as it is written in configuration: `5s`, `1h 30m`.
pub(crate) fn duration(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// A size as a person writes it or [`bytes`] shows it: `512`, `64 KiB`, `1.5 GiB`, `10 MB`. Bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write it like 512 KiB, 256 MiB or 1.5 GiB");
    let text_trimmed = text.trim();
    let digits = text_trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(digits);
    let unit = match unit.trim() {
        "" => 1,
        unit => unit_bytes(unit).ok_or_else(wrong)?,
    };
    let (whole, thousandths): (&str, u16) = match number.split_once('.') {
        None => (number, 0),
        Some((whole, part)) if unit > 1 && (1..=3).contains(&part.len()) => {
            (whole, format!("{part:0<3}").parse().map_err(|_| wrong())?)
        }
        Some(_) => return Err(wrong()),
    };
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part = u128::from(unit) * u128::from(thousandths) / 1000;
    u128::from(whole)
        .checked_mul(u128::from(unit))
        .and_then(|bytes| u64::try_from(bytes + part).ok())
        .ok_or_else(wrong)
}

/// A size for a table: at most four digits and a unit of 1024.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut left = size;
    let mut tenths = 0;
    while left >= 1024 && unit + 1 < UNITS.len() {
        tenths = (left % 1024) * 10 / 1024;
        left /= 1024;
        unit += 1;
    }
    if unit > 0 && left < 10 {
        format!("{left}.{tenths} {}", UNITS[unit])
    } else {
        format!("{left} {}", UNITS[unit])
    }
}

/// So many of something: `1 job`, `2 jobs`.
pub(crate) fn count(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// How long something took, coarse enough for a table: `0.4 s`, `12 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}.{} s", seconds, span.subsec_millis() / 100),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago `then` was: `now`, `12 s ago`, `3 min ago`.
pub(crate) fn ago(now: Time, then: Time) -> String {
    let passed = now.since(then);
    if passed < Duration::from_secs(1) {
        "now".to_owned()
    } else {
        format!("{} ago", span(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [count(0, "job"), count(1, "job"), count(2, "job")],
            ["0 jobs", "1 job", "2 jobs"]
        );
    }

    #[test]
    fn durations_are_read_with_their_unit_only() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in [
            "",
            " ",
            "5",
            "five",
            "-1s",
            "1.5",
            "10 parsecs",
            "99999999999999999999y",
        ] {
            let error = parse_duration(bad).unwrap_err();
            assert!(error.contains("write it like 30s"), "{bad}: {error}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse_bytes("512"), Ok(512));
        assert_eq!(parse_bytes("64 KiB"), Ok(65_536));
        assert_eq!(parse_bytes("10MB"), Ok(10_000_000));
        // As it is shown, it can be written.
        assert_eq!(parse_bytes("1.0 TiB"), Ok(1 << 40));
        assert_eq!(parse_bytes("1.5 KiB"), Ok(1536));
        assert_eq!(
            parse_bytes(&bytes(u64::MAX)).map(bytes),
            Ok(bytes(u64::MAX))
        );
        for bad in [
            "",
            "MiB",
            "-1",
            "1.5",
            ".5 GiB",
            "1. GiB",
            "1.2345 GiB",
            "1.2.3 GiB",
            "3 bits",
            "99999999999 TiB",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(16 << 30), "16 GiB");
        assert_eq!(bytes(u64::MAX), "16383 PiB");
    }

    #[test]
    fn ages_are_relative_and_never_negative() {
        let now = Time::from_micros(1_000_000_000_000);
        let before = |s: i64| Time::from_micros(1_000_000_000_000 - s * 1_000_000);
        assert_eq!(ago(now, now), "now");
        assert_eq!(ago(now, before(-5)), "now");
        assert_eq!(ago(now, before(12)), "12 s ago");
        assert_eq!(ago(now, before(200)), "3 min ago");
        assert_eq!(ago(now, before(7300)), "2 h ago");
        assert_eq!(ago(now, before(86_400 * 5)), "5 d ago");
        assert_eq!(span(Duration::from_millis(430)), "0.4 s");
    }
}

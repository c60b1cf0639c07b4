//! Reads the time at the start of a log line: Kafka's `[yyyy-MM-dd
//! HH:mm:ss,SSS]`, ISO 8601 with `T`, dots, `Z` or offset, and epoch seconds
//! to nanoseconds. In: the line and the zone for times without offset. Out:
//! nanoseconds since 1970 and the rest of the line. No clock.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Whether a line can be the first of a record, by its shape alone.
pub(crate) fn starts_record(line: &str) -> bool {
    split_time(line).is_some()
}

/// The time field of a line and the rest behind it.
fn split_time(line: &str) -> Option<(&str, &str)> {
    if let Some(inner) = line.strip_prefix('[') {
        let (field, rest) = inner.split_at(find_within(inner, ']', 48)?);
        return is_time(field).then(|| (field, &rest[1..]));
    }
    // Without brackets the field ends at the first blank, or at the second
    // where date and time are two words.
    let first = find_within(line, ' ', 48)?;
    if is_time(&line[..first]) && !is_date(&line[..first]) {
        return Some((&line[..first], &line[first..]));
    }
    if !is_date(&line[..first]) {
        return None;
    }
    let second = first + 1 + find_within(&line[first + 1..], ' ', 48)?;
    is_time(&line[..second]).then(|| (&line[..second], &line[second..]))
}

fn find_within(text: &str, wanted: char, max: usize) -> Option<usize> {
    text.bytes().take(max).position(|byte| byte == wanted as u8)
}

fn is_date(field: &str) -> bool {
    let bytes = field.as_bytes();
    bytes.len() == 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| at == 4 || at == 7 || byte.is_ascii_digit())
}

fn is_time(field: &str) -> bool {
    is_epoch(field)
        || (field.len() >= 19
            && field.is_ascii()
            && is_date(&field[..10])
            && matches!(field.as_bytes()[10], b' ' | b'T')
            && field.as_bytes()[11].is_ascii_digit()
            && field.as_bytes()[13] == b':'
            && field.as_bytes()[16] == b':')
}

fn is_epoch(field: &str) -> bool {
    let (whole, fraction) = field.split_once(['.', ',']).unwrap_or((field, ""));
    matches!(whole.len(), 10 | 13 | 16 | 19)
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit())
}

/// Splits `line` into its time and the rest. The outer option says whether
/// the line starts like a record at all, the inner whether the time is real.
pub(crate) fn parse_time<'a>(line: &'a str, tz: &TimeZone) -> Option<(Option<i64>, &'a str)> {
    let (field, rest) = split_time(line)?;
    let time_ns = if is_epoch(field) {
        parse_epoch(field)
    } else {
        parse_civil(field, tz)
    };
    Some((time_ns, rest))
}

fn parse_epoch(field: &str) -> Option<i64> {
    let (whole, fraction) = field.split_once(['.', ',']).unwrap_or((field, ""));
    let unit: i64 = match whole.len() {
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        _ => 1,
    };
    let base = whole.parse::<i64>().ok()?.checked_mul(unit)?;
    if unit == 1_000_000_000 {
        base.checked_add(parse_fraction(fraction)?)
    } else {
        Some(base)
    }
}

/// Digits behind the point as nanoseconds; more than nine are cut.
fn parse_fraction(digits: &str) -> Option<i64> {
    let digits = &digits[..digits.len().min(9)];
    if digits.is_empty() {
        return Some(0);
    }
    let value = digits.parse::<i64>().ok()?;
    Some(value * 10i64.pow(9 - u32::try_from(digits.len()).ok()?))
}

fn parse_civil(field: &str, tz: &TimeZone) -> Option<i64> {
    let two = |at: usize| field.get(at..at + 2)?.parse::<i8>().ok();
    let year = field.get(..4)?.parse::<i16>().ok()?;
    let mut rest = field.get(19..)?;
    let mut nanos = 0;
    if let Some(tail) = rest.strip_prefix([',', '.', ':']) {
        let end = tail
            .bytes()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(tail.len());
        nanos = parse_fraction(&tail[..end])?;
        rest = &tail[end..];
    }
    let civil = DateTime::new(
        year,
        two(5)?,
        two(8)?,
        two(11)?,
        two(14)?,
        two(17)?,
        i32::try_from(nanos).ok()?,
    )
    .ok()?;
    let zone = match rest.trim() {
        "" => tz.clone(),
        "Z" | "UTC" | "GMT" => TimeZone::UTC,
        offset => TimeZone::fixed(parse_offset(offset)?),
    };
    let timestamp = civil.to_zoned(zone).ok()?.timestamp();
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// `+01`, `+0100`, `+01:00`.
fn parse_offset(text: &str) -> Option<jiff::tz::Offset> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours = digits[..2].parse::<i32>().ok()?;
    let minutes = digits
        .get(2..4)
        .map_or(Some(0), |text| text.parse::<i32>().ok())?;
    jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(line: &str) -> Option<i64> {
        parse_time(line, &TimeZone::UTC)?.0
    }

    const AT: i64 = 1_795_473_450_827_000_000;

    #[test]
    fn every_known_spelling_gives_the_same_moment() {
        for line in [
            "[2026-11-23 22:37:30,827] ERROR x",
            "2026-11-23 22:37:30,827 ERROR x",
            "[2026-11-23 22:37:30.827] ERROR x",
            "[2026-11-23T22:37:30.827Z] ERROR x",
            "2026-11-23T22:37:30,827Z ERROR x",
            "[2026-11-23T23:37:30.827+01:00] ERROR x",
            "2026-11-23T17:37:30.827000-0500 ERROR x",
            "[2026-11-23T23:37:30.827+01] ERROR x",
            "[1795473450827] ERROR x",
            "1795473450827 ERROR x",
            "1795473450.827 ERROR x",
            "1795473450827000 ERROR x",
            "1795473450827000000 ERROR x",
        ] {
            assert_eq!(time(line), Some(AT), "{line}");
        }
    }

    #[test]
    fn zone_applies_where_the_line_has_none() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let (time_ns, rest) = parse_time("[2026-11-24 00:37:30,827] WARN x", &zone).unwrap();
        assert_eq!((time_ns, rest), (Some(AT), " WARN x"));
    }

    #[test]
    fn other_lines_do_not_start_a_record() {
        for line in [
            "",
            "[",
            "\tat java.base/x",
            "java.io.IOException: x",
            "Caused by: y",
            "[ReplicaManager broker=1] x",
            "2026-11-23",
            "12345 x",
            "[2026-11-23 22:37:30,827 ERROR never closed",
            "é[2026-11-23 22:37:30,827] ERROR",
        ] {
            assert!(!starts_record(line), "{line}");
        }
    }

    #[test]
    fn impossible_dates_have_no_time() {
        assert_eq!(
            parse_time("[2026-13-40 22:37:30,827] ERROR x", &TimeZone::UTC),
            Some((None, " ERROR x"))
        );
    }
}

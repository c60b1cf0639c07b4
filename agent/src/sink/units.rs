//! Numbers to words for people: durations, bytes, rates, times. In: base units
//! and ns. Out: short text, the same on every host. No clock.

use jiff::{Timestamp, tz::TimeZone};

/// `1.52 s`, `240 ms`, `0.6 ms`, `52 µs`.
#[must_use]
pub fn show_ns(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..100_000 => format!("{} µs", ns / 1_000),
        100_000..10_000_000 => format!("{:.1} ms", seconds * 1e3),
        10_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..10_000_000_000 => format!("{seconds:.2} s"),
        10_000_000_000..120_000_000_000 => format!("{seconds:.1} s"),
        _ => format!("{} min {} s", ns / 60_000_000_000, ns / 1_000_000_000 % 60),
    }
}

/// As [`show_ns`], but to the millisecond: `1.498 s`.
#[must_use]
pub fn show_ns_exactly(ns: u64) -> String {
    match ns {
        1_000_000_000..120_000_000_000 => format!("{:.3} s", ns as f64 / 1e9),
        _ => show_ns(ns),
    }
}

/// `4.0 KiB`, `512 B`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 100.0 && value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `104 MB/s`; rates in powers of ten, as disks are sold.
#[must_use]
pub fn show_rate(bytes_per_second: u64) -> String {
    match bytes_per_second {
        0..1_000_000 => format!("{} kB/s", bytes_per_second / 1_000),
        1_000_000..10_000_000 => format!("{:.1} MB/s", bytes_per_second as f64 / 1e6),
        _ => format!("{} MB/s", bytes_per_second / 1_000_000),
    }
}

/// Nanoseconds since 1970 as RFC 3339 with nanoseconds, UTC.
#[must_use]
pub fn rfc3339(realtime_ns: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(realtime_ns)) {
        Ok(timestamp) => format!("{timestamp:.9}"),
        Err(_) => format!("{realtime_ns} ns"),
    }
}

/// An RFC 3339 time in `zone` with offset, to the millisecond.
#[must_use]
pub fn show_time(text: &str, zone: &TimeZone) -> String {
    match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S.%3f%:z")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Only the time of day.
#[must_use]
pub fn show_clock(text: &str, zone: &TimeZone) -> String {
    match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp
            .to_zoned(zone.clone())
            .strftime("%H:%M:%S.%3f")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The zone that a capture names: an IANA name or an offset; UTC if neither.
#[must_use]
pub fn parse_zone(name: &str) -> TimeZone {
    if let Some(seconds) = parse_offset(name)
        && let Ok(offset) = jiff::tz::Offset::from_seconds(seconds)
    {
        return TimeZone::fixed(offset);
    }
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn parse_offset(text: &str) -> Option<i32> {
    let sign = if text.starts_with('+') { 1 } else { -1 };
    let (hours, minutes) = text.strip_prefix(['+', '-'])?.split_once(':')?;
    Some(sign * (hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_or_three_digits() {
        for (ns, text) in [
            (999, "999 ns"),
            (52_000, "52 µs"),
            (640_000, "0.6 ms"),
            (24_000_000, "24 ms"),
            (1_520_000_000, "1.52 s"),
            (37_000_000_000, "37.0 s"),
            (125_000_000_000, "2 min 5 s"),
        ] {
            assert_eq!(show_ns(ns), text);
        }
    }

    #[test]
    fn bytes_and_rates() {
        assert_eq!(show_bytes(512), "512 B");
        assert_eq!(show_bytes(4096), "4 KiB");
        assert_eq!(show_bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(show_rate(104_000_000), "104 MB/s");
        assert_eq!(show_rate(40_960), "40 kB/s");
    }

    #[test]
    fn times_are_shown_in_the_zone_with_its_offset() {
        let text = rfc3339(1_795_473_450_827_000_123);
        assert_eq!(text, "2026-11-23T22:37:30.827000123Z");
        assert_eq!(
            show_time(&text, &parse_zone("+02:00")),
            "2026-11-24 00:37:30.827+02:00"
        );
        assert_eq!(
            show_time(&text, &parse_zone("Europe/Berlin")),
            "2026-11-23 23:37:30.827+01:00"
        );
        assert_eq!(
            show_time(&text, &parse_zone("no/where")),
            "2026-11-23 22:37:30.827+00:00"
        );
        assert_eq!(show_clock(&text, &TimeZone::UTC), "22:37:30.827");
    }
}

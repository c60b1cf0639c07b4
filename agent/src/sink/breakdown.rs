//! Where a sync's time went, in words. In: a [`Breakdown`]. Out: the line of
//! `watch`, the share that a verdict cites. Not here: how it was divided.

use super::units::{show_ns, show_ns_exactly};
use crate::incident::Breakdown;

/// A part with its name for a list and for a sentence.
struct Part {
    name: &'static str,
    phrase: &'static str,
    ns: u64,
    queue_ns: u64,
    device_ns: u64,
    cpu_ns: u64,
}

fn parts(of: &Breakdown) -> [Part; 6] {
    let part = |name, phrase, ns, queue_ns, device_ns| Part {
        name,
        phrase,
        ns,
        queue_ns,
        device_ns,
        cpu_ns: 0,
    };
    [
        part(
            "flush",
            "the device's flush",
            of.flush_ns,
            of.flush_queue_ns,
            of.flush_device_ns,
        ),
        part(
            "journal",
            "the file system's journal",
            of.journal_ns,
            of.journal_queue_ns,
            of.journal_device_ns,
        ),
        part(
            "own data",
            "its own data being written",
            of.own_data_ns,
            of.own_data_queue_ns,
            of.own_data_device_ns,
        ),
        part(
            "others' data",
            "other requests on the disk",
            of.others_data_ns,
            of.others_data_queue_ns,
            of.others_data_device_ns,
        ),
        part("lock", "a contended lock", of.lock_ns, 0, 0),
        Part {
            cpu_ns: of.other_cpu_ns,
            ..part("other", "tied to nothing", of.other_ns, 0, 0)
        },
    ]
}

/// Parts that are any, but the rest, in order of priority.
pub(crate) fn name_parts(of: &Breakdown) -> Vec<(u64, &'static str)> {
    parts(of)
        .into_iter()
        .take(5)
        .filter(|part| part.ns > 0)
        .map(|part| (part.ns, part.name))
        .collect()
}

/// `flush 1.498 s (device 1.497 s) · journal 20 ms · other 2.0 ms`
pub(crate) fn show_breakdown(of: &Breakdown) -> String {
    let shown = parts(of)
        .into_iter()
        .filter(|part| part.ns > 0 || part.name == "other");
    let words = shown.map(|part| {
        let mut of_which = Vec::new();
        for (ns, name) in [
            (part.queue_ns, "queue"),
            (part.device_ns, "device"),
            (part.cpu_ns, "waiting for a CPU"),
        ] {
            // The other one of the two says nothing new.
            if ns > 0 && ns * 1_000 >= part.ns {
                of_which.push(format!("{name} {}", show_ns_exactly(ns)));
            }
        }
        let of_which = if of_which.is_empty() {
            String::new()
        } else {
            format!(" ({})", of_which.join(", "))
        };
        format!("{} {}{of_which}", part.name, show_ns_exactly(part.ns))
    });
    words.collect::<Vec<_>>().join(" · ")
}

/// `99 % of it was the device's flush, 4.0 ms tied to nothing`; the largest
/// part, and what else is a twentieth of the whole or more.
pub(crate) fn tell_breakdown(of: &Breakdown, is_over: bool) -> String {
    let mut parts = parts(of);
    let total_ns: u64 = parts.iter().map(|part| part.ns).sum();
    // Stable: of equal ones the first of the order speaks.
    parts.sort_by_key(|part| std::cmp::Reverse(part.ns));
    let Some(largest) = parts.first().filter(|part| part.ns > 0) else {
        return String::new();
    };
    let percent = u128::from(largest.ns) * 100 / u128::from(total_ns);
    let is = if is_over { "was" } else { "is" };
    let mut text = format!("{percent} % of it {is} {}", largest.phrase);
    if largest.queue_ns * 2 > largest.ns {
        text += ", mostly queued";
    }
    for part in &parts[1..] {
        if u128::from(part.ns) * 20 >= u128::from(total_ns) {
            text += &format!(", {} {}", show_ns(part.ns), part.phrase);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn flushed() -> Breakdown {
        Breakdown {
            flush_ns: 1_498 * MS,
            flush_queue_ns: MS,
            flush_device_ns: 1_497 * MS,
            other_ns: 2 * MS,
            ..Breakdown::default()
        }
    }

    #[test]
    fn a_line_names_the_parts_that_are_any_and_always_the_rest() {
        assert_eq!(
            show_breakdown(&flushed()),
            "flush 1.498 s (device 1.497 s) · other 2.0 ms"
        );
        assert_eq!(show_breakdown(&Breakdown::default()), "other 0 ns");
        let waited = Breakdown {
            other_cpu_ns: MS,
            ..flushed()
        };
        assert_eq!(
            show_breakdown(&waited),
            "flush 1.498 s (device 1.497 s) · other 2.0 ms (waiting for a CPU 1.0 ms)"
        );
    }

    #[test]
    fn a_sentence_names_the_largest_part_first() {
        assert_eq!(
            tell_breakdown(&flushed(), true),
            "99 % of it was the device's flush"
        );
        let waits = Breakdown {
            others_data_ns: 600 * MS,
            others_data_queue_ns: 600 * MS,
            other_ns: 900 * MS,
            ..Breakdown::default()
        };
        assert_eq!(
            tell_breakdown(&waits, false),
            "60 % of it is tied to nothing, 600 ms other requests on the disk"
        );
        assert_eq!(tell_breakdown(&Breakdown::default(), true), "");
    }
}

//! Arithmetic of time spans: how much of a sync do some spans cover. In: pairs
//! of start and end, ns. Out: disjoint spans and their length. Pure.

/// Start and end, ns; the end is not part of it.
pub(crate) type Span = (u64, u64);

/// The spans cut to `within`, sorted and merged.
pub(crate) fn union_within(spans: impl IntoIterator<Item = Span>, within: Span) -> Vec<Span> {
    let mut cut: Vec<Span> = spans
        .into_iter()
        .map(|(start, end)| (start.max(within.0), end.min(within.1)))
        .filter(|(start, end)| start < end)
        .collect();
    cut.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(cut.len());
    for (start, end) in cut {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Their length; of merged spans.
pub(crate) fn length(merged: &[Span]) -> u64 {
    merged.iter().map(|(start, end)| end - start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_spans_count_once_and_only_inside() {
        let merged = union_within([(0, 10), (5, 20), (30, 40), (90, 200), (50, 50)], (5, 100));
        assert_eq!(merged, [(5, 20), (30, 40), (90, 100)]);
        assert_eq!(length(&merged), 35);
    }
}

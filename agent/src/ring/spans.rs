//! Reads what is new in the flight recorder: per-CPU arrays of pages that the
//! kernel goes on overwriting. In: heads and pages; out: each span once, by end.
//! What was overwritten unread is counted, what is being written is read next
//! time. Looks at a span's number and end only.

use std::collections::BTreeSet;

use fsyncscope_abi::span::{RequestSpan, SPANS_PER_PAGE, WaitSpan};

const PER_PAGE: u64 = SPANS_PER_PAGE as u64;

/// What the reader needs to know of a span.
pub trait Span: Copy {
    /// Its number on its CPU, from 1 on.
    fn number(&self) -> u64;
    /// When it ended.
    fn end_ns(&self) -> u64;
}

impl Span for RequestSpan {
    fn number(&self) -> u64 {
        self.number
    }
    fn end_ns(&self) -> u64 {
        self.complete_ns
    }
}

impl Span for WaitSpan {
    fn number(&self) -> u64 {
        self.number
    }
    fn end_ns(&self) -> u64 {
        self.end_ns
    }
}

/// Where the spans are; a trait for tests.
pub trait Pages {
    /// Kind of span.
    type Span: Span;
    /// Pages a CPU.
    fn nr_pages(&self) -> u32;
    /// Spans that each CPU has begun to write so far.
    fn heads(&self) -> Vec<u64>;
    /// That page of each CPU; empty if it cannot be read.
    fn page(&self, index: u32) -> Vec<[Self::Span; SPANS_PER_PAGE]>;
}

/// A CPU's part.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    /// Spans read, or given up.
    read: u64,
    /// Last read stopped there, at a span that was being written.
    stopped_at: Option<u64>,
}

/// See the module's comment.
#[derive(Debug, Default)]
pub struct SpanReader {
    cpus: Vec<Cpu>,
    /// Spans overwritten unread since start.
    pub overwritten: u64,
    /// End of the first span that was left when some had been overwritten.
    pub whole_since_ns: u64,
}

impl SpanReader {
    /// What is new.
    pub fn read<P: Pages>(&mut self, pages: &P) -> Vec<P::Span> {
        let capacity = u64::from(pages.nr_pages()) * PER_PAGE;
        let heads = pages.heads();
        self.cpus.resize(heads.len(), Cpu::default());
        let mut wanted = BTreeSet::new();
        let mut ranges = Vec::with_capacity(heads.len());
        for (cpu, &head) in self.cpus.iter().zip(&heads) {
            let from = cpu.read.max(head.saturating_sub(capacity));
            ranges.push(from..head);
            if from < head {
                let (first, last) = (from / PER_PAGE, (head - 1) / PER_PAGE);
                wanted
                    .extend((first..=last).map(|page| (page % u64::from(pages.nr_pages())) as u32));
            }
        }
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<Vec<P::Span>> = vec![Vec::new(); heads.len()];
        for index in wanted {
            let page = pages.page(index);
            for ((spans, range), found) in page.iter().zip(&ranges).zip(&mut found) {
                let is_new = |span: &&P::Span| range.contains(&span.number().wrapping_sub(1));
                found.extend(spans.iter().filter(is_new));
            }
        }
        // What has been overwritten meanwhile may be half the one, half the other.
        let later = pages.heads();
        let mut all = Vec::new();
        for (index, mut spans) in found.into_iter().enumerate() {
            let head = later.get(index).copied().unwrap_or(heads[index]);
            let safe_from = head.saturating_sub(capacity);
            self.keep(index, &mut spans, ranges[index].clone(), safe_from);
            all.append(&mut spans);
        }
        all.sort_by_key(Span::end_ns);
        all
    }

    /// Cuts what was read down to the last `max`; the rest counts as overwritten.
    pub fn cut<S: Span>(&mut self, spans: &mut Vec<S>, max: usize) {
        let surplus = spans.len().saturating_sub(max);
        spans.drain(..surplus);
        if surplus > 0
            && let Some(first) = spans.first()
        {
            self.overwritten += surplus as u64;
            self.whole_since_ns = self.whole_since_ns.max(first.end_ns());
        }
    }

    /// Keeps of one CPU's spans those that are whole and in a row, and moves on.
    fn keep<S: Span>(
        &mut self,
        index: usize,
        spans: &mut Vec<S>,
        range: std::ops::Range<u64>,
        safe_from: u64,
    ) {
        let cpu = &mut self.cpus[index];
        spans.retain(|span| span.number() > safe_from);
        spans.sort_by_key(Span::number);
        let from = range.start.max(safe_from);
        let lost = from.saturating_sub(cpu.read);
        let mut next = from.min(range.end);
        let mut given_up = 0;
        let mut stopped_at = None;
        for span in spans.iter() {
            let at = span.number() - 1;
            if at > next {
                // One that is being written; if it was so the last time, it
                // never will be: two writers had one place.
                if cpu.stopped_at != Some(next) {
                    stopped_at = Some(next);
                    break;
                }
                given_up += at - next;
            }
            next = at + 1;
        }
        if stopped_at.is_none() && next < range.end {
            if cpu.stopped_at == Some(next) {
                given_up += range.end - next;
                next = range.end;
            } else {
                stopped_at = Some(next);
            }
        }
        spans.retain(|span| span.number() <= next);
        if lost > 0
            && let Some(first) = spans.first()
        {
            self.whole_since_ns = self.whole_since_ns.max(first.end_ns());
        }
        self.overwritten += lost + given_up;
        cpu.read = next;
        cpu.stopped_at = stopped_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pages a CPU, written as the kernel does.
    struct Fake {
        cpus: Vec<(u64, Vec<[RequestSpan; SPANS_PER_PAGE]>)>,
    }

    const PAGES: u64 = 2;
    const CAPACITY: u64 = PAGES * PER_PAGE;

    impl Fake {
        fn new(nr_cpus: usize) -> Self {
            let empty = [RequestSpan::default(); SPANS_PER_PAGE];
            Fake {
                cpus: vec![(0, vec![empty; PAGES as usize]); nr_cpus],
            }
        }

        fn place(&mut self, cpu: usize, at: u64) -> &mut RequestSpan {
            &mut self.cpus[cpu].1[(at / PER_PAGE % PAGES) as usize][(at % PER_PAGE) as usize]
        }

        fn write(&mut self, cpu: usize, end_ns: u64) {
            let at = self.claim(cpu);
            *self.place(cpu, at) = RequestSpan {
                number: at + 1,
                complete_ns: end_ns,
                ..RequestSpan::default()
            };
        }

        fn claim(&mut self, cpu: usize) -> u64 {
            let at = self.cpus[cpu].0;
            self.cpus[cpu].0 += 1;
            self.place(cpu, at).number = 0;
            at
        }
    }

    impl Pages for Fake {
        type Span = RequestSpan;
        fn nr_pages(&self) -> u32 {
            PAGES as u32
        }
        fn heads(&self) -> Vec<u64> {
            self.cpus.iter().map(|(head, _)| *head).collect()
        }
        fn page(&self, index: u32) -> Vec<[RequestSpan; SPANS_PER_PAGE]> {
            self.cpus
                .iter()
                .map(|(_, pages)| pages[index as usize])
                .collect()
        }
    }

    fn ends(spans: &[RequestSpan]) -> Vec<u64> {
        spans.iter().map(|span| span.complete_ns).collect()
    }

    #[test]
    fn each_span_is_read_once_and_by_end() {
        let mut fake = Fake::new(2);
        let mut reader = SpanReader::default();
        assert_eq!(ends(&reader.read(&fake)), [0_u64; 0]);
        fake.write(0, 10);
        fake.write(1, 5);
        fake.write(0, 20);
        assert_eq!(ends(&reader.read(&fake)), [5, 10, 20]);
        assert_eq!(ends(&reader.read(&fake)), [0_u64; 0]);
        for end_ns in 30..60 {
            fake.write(1, end_ns);
        }
        assert_eq!(
            ends(&reader.read(&fake)),
            (30..60).collect::<Vec<u64>>(),
            "over both pages and around the end"
        );
        assert_eq!(reader.overwritten, 0);
    }

    #[test]
    fn what_was_overwritten_unread_is_counted_and_dated() {
        let mut fake = Fake::new(1);
        let mut reader = SpanReader::default();
        for end_ns in 1..=CAPACITY + 5 {
            fake.write(0, end_ns);
        }
        let read = reader.read(&fake);
        assert_eq!(read.len() as u64, CAPACITY);
        assert_eq!((reader.overwritten, reader.whole_since_ns), (5, 6));
    }

    #[test]
    fn what_is_cut_off_counts_as_overwritten() {
        let mut fake = Fake::new(1);
        let mut reader = SpanReader::default();
        for end_ns in 1..=9 {
            fake.write(0, end_ns);
        }
        let mut read = reader.read(&fake);
        reader.cut(&mut read, 20);
        assert_eq!((read.len(), reader.overwritten), (9, 0));
        reader.cut(&mut read, 4);
        assert_eq!(ends(&read), [6, 7, 8, 9]);
        assert_eq!((reader.overwritten, reader.whole_since_ns), (5, 6));
    }

    #[test]
    fn a_span_that_is_being_written_is_read_the_next_time() {
        let mut fake = Fake::new(1);
        let mut reader = SpanReader::default();
        fake.write(0, 1);
        let at = fake.claim(0);
        fake.write(0, 3);
        assert_eq!(ends(&reader.read(&fake)), [1]);
        *fake.place(0, at) = RequestSpan {
            number: at + 1,
            complete_ns: 2,
            ..RequestSpan::default()
        };
        assert_eq!(ends(&reader.read(&fake)), [2, 3]);
        assert_eq!(reader.overwritten, 0);
    }

    #[test]
    fn a_span_that_never_comes_is_given_up() {
        let mut fake = Fake::new(1);
        let mut reader = SpanReader::default();
        fake.claim(0);
        fake.write(0, 2);
        assert_eq!(ends(&reader.read(&fake)), [0_u64; 0]);
        assert_eq!(ends(&reader.read(&fake)), [2]);
        fake.claim(0);
        assert_eq!(ends(&reader.read(&fake)), [0_u64; 0]);
        assert_eq!(ends(&reader.read(&fake)), [0_u64; 0]);
        assert_eq!(reader.overwritten, 2);
        fake.write(0, 4);
        assert_eq!(ends(&reader.read(&fake)), [4]);
    }

    /// The kernel writes on while the pages are read.
    struct Racing(std::cell::RefCell<Fake>);

    impl Pages for Racing {
        type Span = RequestSpan;
        fn nr_pages(&self) -> u32 {
            PAGES as u32
        }
        fn heads(&self) -> Vec<u64> {
            self.0.borrow().heads()
        }
        fn page(&self, index: u32) -> Vec<[RequestSpan; SPANS_PER_PAGE]> {
            let page = self.0.borrow().page(index);
            for end_ns in 1_000..1_003 {
                self.0.borrow_mut().write(0, end_ns);
            }
            page
        }
    }

    #[test]
    fn spans_overwritten_while_reading_are_not_trusted() {
        let mut fake = Fake::new(1);
        for end_ns in 1..=CAPACITY {
            fake.write(0, end_ns);
        }
        let racing = Racing(fake.into());
        let mut reader = SpanReader::default();
        let read = ends(&reader.read(&racing));
        assert_eq!(read, (7..=CAPACITY).collect::<Vec<u64>>());
        assert_eq!(reader.overwritten, 6);
        let next = ends(&reader.read(&racing));
        assert_eq!(next, [1_000, 1_000, 1_001, 1_001, 1_002, 1_002]);
    }
}

//! The clock of a faultdisk: answers that are due later, and the queue of a
//! disk with a limited rate. One thread serves any number of held answers, so
//! a request held for 30 s keeps no other waiting.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

type Answer = Box<dyn FnOnce() + Send>;

struct Due {
    at: Instant,
    seq: u64,
    answer: Answer,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// Reversed: the heap's greatest is the earliest, and arrival breaks ties.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

#[derive(Default)]
struct State {
    due: BinaryHeap<Due>,
    next_seq: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Answers that wait for their time.
#[derive(Clone, Default)]
pub struct HeldAnswers {
    shared: Arc<Shared>,
}

impl HeldAnswers {
    /// Starts the thread that gives the answers.
    pub fn start() -> std::io::Result<Self> {
        let held = HeldAnswers::default();
        let shared = Arc::clone(&held.shared);
        thread::Builder::new()
            .name("held-answers".into())
            .spawn(move || give_answers(&shared))?;
        Ok(held)
    }

    /// Gives an answer at a later time.
    pub fn hold(&self, at: Instant, answer: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        let seq = state.next_seq;
        state.next_seq += 1;
        state.due.push(Due {
            at,
            seq,
            answer: Box::new(answer),
        });
        self.shared.changed.notify_one();
    }

    /// Makes all held answers due now.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let due = std::mem::take(&mut state.due);
        state.due = due.into_iter().map(|due| Due { at: now, ..due }).collect();
        self.shared.changed.notify_one();
    }

    /// How many answers are held.
    pub fn len(&self) -> usize {
        self.shared.lock().due.len()
    }

    /// Whether no answer is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn give_answers(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        match state.due.peek().map(|due| due.at) {
            Some(at) if at <= now => {
                let due = state.due.pop().expect("just peeked");
                drop(state);
                (due.answer)();
                state = shared.lock();
            }
            Some(at) => {
                let wait = shared.changed.wait_timeout(state, at - now);
                state = wait.unwrap_or_else(|e| e.into_inner()).0;
            }
            None => {
                let wait = shared.changed.wait(state);
                state = wait.unwrap_or_else(|e| e.into_inner());
            }
        }
    }
}

/// A disk that moves so many bytes a second, one request after the other.
#[derive(Debug, Default)]
pub struct Bandwidth {
    bytes_per_s: u64,
    busy_until: Option<Instant>,
}

impl Bandwidth {
    /// Sets the rate, 0 for no limit.
    pub fn set(&mut self, bytes_per_s: u64) {
        *self = Bandwidth {
            bytes_per_s,
            busy_until: None,
        };
    }

    /// When a request that arrives now is done moving its bytes. A flush moves
    /// none, but waits its turn behind the requests before it.
    pub fn done_at(&mut self, now: Instant, bytes: u64) -> Instant {
        if self.bytes_per_s == 0 {
            return now;
        }
        let start = self.busy_until.map_or(now, |until| until.max(now));
        let move_ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let done = start + Duration::from_nanos(move_ns as u64);
        self.busy_until = Some(done);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn answers_come_in_the_order_of_their_times() {
        let held = HeldAnswers::start().unwrap();
        let (sender, got) = mpsc::channel();
        let now = Instant::now();
        for (ms, name) in [(60, "late"), (20, "early")] {
            let sender = sender.clone();
            held.hold(now + Duration::from_millis(ms), move || {
                sender.send(name).unwrap();
            });
        }
        assert_eq!(
            [got.recv().unwrap(), got.recv().unwrap()],
            ["early", "late"]
        );
        assert!(now.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn release_does_not_wait() {
        let held = HeldAnswers::start().unwrap();
        let (sender, got) = mpsc::channel();
        let start = Instant::now();
        held.hold(start + Duration::from_secs(60), move || {
            sender.send(()).unwrap();
        });
        held.release();
        got.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(held.is_empty());
    }

    #[test]
    fn a_limited_disk_queues_requests() {
        let mut disk = Bandwidth::default();
        let now = Instant::now();
        assert_eq!(disk.done_at(now, 1 << 30), now);
        disk.set(100_000_000);
        let ms = |n| now + Duration::from_millis(n);
        assert_eq!(disk.done_at(now, 1_000_000), ms(10));
        assert_eq!(disk.done_at(now, 1_000_000), ms(20));
        assert_eq!(disk.done_at(ms(15), 0), ms(20));
        assert_eq!(disk.done_at(ms(100), 500_000), ms(105));
    }
}

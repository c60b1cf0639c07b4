//! The two clocks that stamp what a helper reads. Only helpers and the event
//! loop may ask for the time; the pure stages get it with each event.

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec, and the call writes nothing else.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time
}

/// CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Realtime minus monotonic, ns. Both are read back to back, the narrowest of a
/// few tries, so that a preemption in between does not shift every time shown.
#[must_use]
pub fn offset_ns() -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..5 {
        let before = monotonic_ns();
        let realtime = realtime_ns();
        let width = monotonic_ns().saturating_sub(before);
        if width < best.0 {
            best = (width, realtime - (before + width / 2) as i64);
        }
    }
    best.1
}

/// CLOCK_REALTIME, nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> i64 {
    let time = read(libc::CLOCK_REALTIME);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

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

/// CLOCK_REALTIME, nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> i64 {
    let time = read(libc::CLOCK_REALTIME);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

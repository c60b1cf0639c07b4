//! What an init owes its machine: file systems of the kernel, modules, the end.
//! In: the initramfs. Out: a machine on which programs run. Only for process 1.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::protocol::{MODULES_DIR, Stage, modules_order};

/// Source, target, type; in this order.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
];

/// Mounts what the kernel offers. A kernel without one of the last two is left
/// without.
pub fn mount_all() -> anyhow::Result<()> {
    for (source, target, kind) in MOUNTS {
        // Those of sysfs are there already.
        let _ = fs::create_dir_all(target);
        let mounted = mount(source, Path::new(target), kind);
        match mounted {
            // Some kernels mount devtmpfs by themselves.
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {}
            Err(err) if matches!(kind, "tracefs" | "debugfs") => {
                eprintln!("guest: mount {target}: {err}");
            }
            mounted => mounted.with_context(|| format!("mount {target}"))?,
        }
    }
    Ok(())
}

/// Mounts a file system.
pub fn mount(source: &str, target: &Path, kind: &str) -> io::Result<()> {
    mount_with(source, target, kind, 0)
}

/// The same, of a device that cannot be written.
pub fn mount_read_only(source: &str, target: &Path, kind: &str) -> io::Result<()> {
    mount_with(source, target, kind, libc::MS_RDONLY)
}

fn mount_with(source: &str, target: &Path, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let source = CString::new(source)?;
    let target = CString::new(target.as_os_str().as_encoded_bytes())?;
    let kind = CString::new(kind)?;
    // SAFETY: all three are strings that end in a zero; no data is given.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes 127.0.0.1 answer.
pub fn bring_up_loopback() -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("open a socket")?;
    // SAFETY: an interface's request is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and names an interface.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if done == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error()).context("bring up lo")
}

/// Unmounts, waiting a little for processes that are just ending.
pub fn unmount(target: &Path) -> io::Result<()> {
    let path = CString::new(target.as_os_str().as_encoded_bytes())?;
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        // SAFETY: the path ends in a zero.
        if unsafe { libc::umount2(path.as_ptr(), 0) } == 0 {
            return Ok(());
        }
        let err = io::Error::last_os_error();
        match err.raw_os_error() {
            Some(libc::EINVAL | libc::ENOENT) => return Ok(()),
            Some(libc::EBUSY) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(50));
            }
            _ => return Err(err),
        }
    }
}

/// Sends what is printed to the console: an init is started with nothing open
/// where the initramfs has no device node.
pub fn open_console() {
    let Ok(console) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
    else {
        return;
    };
    for fd in 0..3 {
        // SAFETY: plain calls on an open descriptor.
        unsafe { libc::dup2(console.as_raw_fd(), fd) };
    }
}

/// Loads the modules of a stage in their order.
pub fn load_stage(stage: Stage) -> anyhow::Result<()> {
    let path = modules_order(stage);
    let order = match fs::read_to_string(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        order => order.with_context(|| format!("read {path}"))?,
    };
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        load_module(name)?;
    }
    Ok(())
}

/// Loads one; one that is there already is no error.
pub fn load_module(name: &str) -> anyhow::Result<()> {
    let path = Path::new(MODULES_DIR).join(name);
    let what = || format!("load {}", path.display());
    let file = File::open(&path).with_context(what)?;
    // SAFETY: an open descriptor, an empty string of arguments, no flags.
    let done = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            c"".as_ptr(),
            0 as libc::c_int,
        )
    };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        err if err.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        err => Err(err).with_context(what),
    }
}

/// `uname`: release and machine.
pub fn uname() -> (String, String) {
    let read = |name: &str| {
        let path = format!("/proc/sys/kernel/{name}");
        fs::read_to_string(path).map(|text| text.trim().to_owned())
    };
    // `arch` is there from 6.1 on.
    let arch = read("arch").unwrap_or_else(|_| std::env::consts::ARCH.to_owned());
    (read("osrelease").unwrap_or_default(), arch)
}

/// Whether the kernel preempts its own code, by what it shows of the model that is in
/// force (`none voluntary (full) lazy`), or by its name where it has one model only.
pub fn preempts() -> bool {
    let shown = fs::read_to_string("/sys/kernel/debug/sched/preempt");
    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    is_preempting(shown.ok().as_deref(), &version)
}

fn is_preempting(shown: Option<&str>, version: &str) -> bool {
    match shown {
        Some(models) => models.contains("(full)") || models.contains("(lazy)"),
        None => (version.split_whitespace())
            .any(|word| matches!(word, "PREEMPT" | "PREEMPT_RT" | "PREEMPT_LAZY")),
    }
}

/// The device node of the virtio-serial port of that name.
pub fn find_port(sys: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let ports = sys.join("class/virtio-ports");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        for port in fs::read_dir(&ports).into_iter().flatten().flatten() {
            let found = fs::read_to_string(port.path().join("name")).unwrap_or_default();
            if found.trim() == name {
                return Ok(Path::new("/dev").join(port.file_name()));
            }
        }
        anyhow::ensure!(
            Instant::now() < until,
            "no port {name} under {}",
            ports.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something exists.
pub fn wait_for_path(path: &Path, limit: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + limit;
    while !path.exists() {
        anyhow::ensure!(
            Instant::now() < until,
            "{} is not there after {limit:?}",
            path.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Switches the machine off. What is not on the disk by now may hang, and is of
/// no use to anybody: nothing is synced.
pub fn power_off() -> ! {
    // SAFETY: ends the machine.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_that_is_in_force_counts() {
        let dynamic = "Linux version 7.3.4 (x) #1 SMP PREEMPT_DYNAMIC Debian";
        assert!(is_preempting(Some("none voluntary (full) lazy\n"), dynamic));
        assert!(is_preempting(Some("full (lazy)\n"), dynamic));
        assert!(!is_preempting(Some("none (voluntary) full\n"), dynamic));
        assert!(!is_preempting(
            None,
            "Linux version 5.10.0 (x) #1 SMP Debian"
        ));
        assert!(is_preempting(
            None,
            "Linux version 6.1.0 (x) #1 SMP PREEMPT Debian"
        ));
    }
}

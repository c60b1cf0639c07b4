//! Whether a fault was really made, by what the machine itself shows beside the disk's
//! log: a reset that came back, a disk that is gone, a driver that gave up, a file
//! system that takes no write. In: the machine. Out: nothing, or what is amiss.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::cells::DATA_DIR;
use super::fault::Fault;

/// What the machine itself shows of a fault.
struct Effect {
    /// What is looked at.
    name: &'static str,
    /// How it must be.
    wanted: &'static str,
    /// How it is.
    got: String,
}

/// From the moment at which no sync waits any more. A driver may wait for a minute before
/// it gives up its own command.
const LIMIT: Duration = Duration::from_secs(120);

/// A reset of a controller: the write that asks for it returns when it is done.
#[derive(Debug)]
pub struct Reset(Receiver<io::Result<()>>);

impl Reset {
    /// Asks for it. In: `reset_controller` of sysfs.
    pub fn begin(path: PathBuf) -> Self {
        let (sender, done) = mpsc::channel();
        thread::spawn(move || sender.send(fs::write(path, "1")));
        Reset(done)
    }

    fn wait(&self) -> String {
        match self.0.recv_timeout(LIMIT) {
            Ok(Ok(())) => "done".to_owned(),
            Ok(Err(err)) => err.to_string(),
            Err(_) => format!("not over after {} s", LIMIT.as_secs()),
        }
    }
}

/// Whether the fault was made, where the disk's log does not tell it all.
///
/// # Errors
/// It was not: the lab's failure, whatever was said.
pub fn prove(fault: Fault, disk: &str, reset: Option<&Reset>) -> anyhow::Result<()> {
    match look_at(fault, disk, reset) {
        Some(effect) if effect.got != effect.wanted => bail!(
            "the fault was not made: {} is {} instead of {}",
            effect.name,
            effect.got,
            effect.wanted
        ),
        _ => Ok(()),
    }
}

fn look_at(fault: Fault, disk: &str, reset: Option<&Reset>) -> Option<Effect> {
    let effect = |name, wanted, got| Some(Effect { name, wanted, got });
    match fault {
        Fault::Reset => {
            let got = reset.map_or("not asked for".to_owned(), Reset::wait);
            effect("reset of the controller", "done", got)
        }
        Fault::JournalError => effect(
            "a write to the file system",
            "refused",
            try_to_write(Path::new(DATA_DIR)),
        ),
        Fault::Removed => effect("the disk", "gone", wait_until_gone(disk)),
        Fault::Timeout => {
            let said = match read_kernel_log() {
                Ok(log) => find_timeout(&log),
                Err(err) => format!("read /dev/kmsg: {err}"),
            };
            effect("the driver on the command", "timed out", said)
        }
        _ => None,
    }
}

/// A file system that is read-only or shut down makes no file.
fn try_to_write(dir: &Path) -> String {
    let path = dir.join("effect");
    let done = File::create(&path).and_then(|mut file| file.write_all(b"x"));
    match done {
        Ok(()) => "done".to_owned(),
        // Of another cell, and no journal's doing.
        Err(err) if err.raw_os_error() == Some(libc::ENOSPC) => err.to_string(),
        Err(_) => "refused".to_owned(),
    }
}

/// Old kernels keep a disk that is mounted in sysfs; its controller is dead, or gone.
fn wait_until_gone(disk: &str) -> String {
    let controller = disk
        .rsplit_once('n')
        .map_or(disk, |(controller, _)| controller);
    let path = Path::new("/sys/class/nvme").join(controller).join("state");
    let until = Instant::now() + LIMIT;
    loop {
        let state = fs::read_to_string(&path).unwrap_or_default();
        let state = state.trim();
        if state.is_empty() || state.starts_with("deleting") || state == "dead" {
            return "gone".to_owned();
        }
        if Instant::now() > until {
            return format!("{state} after {} s", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// All records of the kernel's log, one a read.
pub(super) fn read_kernel_log() -> io::Result<String> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = options.open("/dev/kmsg")?;
    let mut log = String::new();
    let mut record = vec![0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(len) => {
                log.push_str(&String::from_utf8_lossy(&record[..len]));
                log.push('\n');
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(log),
            // Overwritten meanwhile: the next read goes on behind it.
            Err(err) if err.raw_os_error() == Some(libc::EPIPE) => {}
            Err(err) => return Err(err),
        }
    }
}

/// `nvme nvme0: I/O 12 QID 1 timeout, aborting`, in the words of all kernels since 5.10.
fn find_timeout(log: &str) -> String {
    let is_of_driver = |line: &&str| line.contains("nvme ") && line.contains(" timeout,");
    match log.lines().find(is_of_driver) {
        Some(_) => "timed out".to_owned(),
        None => "said nothing of it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_over_when_its_write_has_returned() {
        let dir = std::env::temp_dir().join(format!("fsyncscope-effect-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let reset = Reset::begin(dir.join("reset_controller"));
        prove(Fault::Reset, "", Some(&reset)).unwrap();
        let refused = Reset::begin(dir.join("no/reset_controller"));
        assert!(refused.wait().contains("No such file"));
        let err = prove(Fault::Reset, "", None).unwrap_err().to_string();
        assert!(err.contains("not asked for instead of done"), "{err}");
        assert_eq!(try_to_write(&dir), "done");
        assert_eq!(try_to_write(&dir.join("no")), "refused");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_timeout_is_what_the_driver_calls_one() {
        let old = "4,700,1,-;nvme nvme0: I/O 12 QID 1 timeout, aborting";
        let new = "4,700,1,-;nvme nvme0: I/O tag 12 (1002) QID 2 timeout, aborting req_op:WRITE(1)";
        for log in [old, new] {
            assert_eq!(find_timeout(&format!("6,1,1,-;x\n{log}\n")), "timed out");
        }
        let other = "6,1,1,-;nvme nvme0: Shutdown timeout set to 10 seconds";
        assert_eq!(find_timeout(other), "said nothing of it");
    }
}

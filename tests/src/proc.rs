//! Child processes of the lab: started so that they end with their owner, told
//! apart from recycled pids by their start time, ended by pid and with a limit.
//! In: a `Command`. Out: a `Child`. No process of anybody else is touched.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child that is killed when this process dies, however it dies.
///
/// `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, so one thread
/// that lives as long as the process does all the forking.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let owner = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe, and nothing is allocated
    // between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The owner may have died before the line above took effect.
            if libc::getppid() as u32 != owner {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("lab-spawner".into())
            .spawn(move || {
                for (mut command, reply) in jobs {
                    // A caller that gave up has dropped its child with the channel.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("the lab needs one more thread");
        sender
    });
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the lab's spawner thread is gone");
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// The start time of a process in clock ticks since boot (field 22 of its
/// stat), which with the pid names a process for good. `None`: no such process,
/// or only its zombie is left.
pub fn read_start_time(proc_root: &Path, pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(proc_root.join(pid.to_string()).join("stat")).ok()?;
    parse_start_time(&stat)
}

/// See [`read_start_time`]. The command name may hold blanks and parentheses,
/// so the fields are counted from the last parenthesis.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sends a signal to one process; a process that is already gone is no error.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no memory effects; the pid is positive, so it names one
    // process and never a group.
    if unsafe { libc::kill(pid as i32, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        err if err.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        err => Err(err),
    }
}

/// Waits for a child, at most this long.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks a child to end with `first`, and kills it when the limit is over.
pub fn end(child: &mut Child, first: i32, limit: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    signal(child.id(), first)?;
    if let Some(status) = wait(child, limit)? {
        return Ok(Some(status));
    }
    signal(child.id(), libc::SIGKILL)?;
    wait(child, Duration::from_secs(10))
}

/// Runs a short command to its end; a failure carries what it printed.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|err| anyhow::anyhow!("run {name}: {err}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("run {name}: {}: {}", output.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_hostile_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(&format!("7 (a) b) {tail}")), Some(4711));
    }

    #[test]
    fn a_zombie_has_no_start_time() {
        let tail = "Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(&format!("7 (a) {tail}")), None);
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(read_start_time(Path::new("/proc"), std::process::id()).is_some());
    }
}

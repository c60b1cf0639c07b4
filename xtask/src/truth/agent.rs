//! One run of the agent beside the workload: a capture of its own, and all that
//! it printed, each line with the moment at which it was read. In: the binary,
//! whom to watch. Out: [`Said`].

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::Stamp;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;

use super::said::Said;

/// What it prints on stderr when all hooks are in place.
const ATTACHED: &str = "fsyncscope: attached";
/// BPF programs are verified meanwhile, on a busy machine slowly.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Whom to watch, and how.
#[derive(Clone, Debug)]
pub struct Watch<'a> {
    /// The binary.
    pub binary: &'a Path,
    /// The workload's process.
    pub pid: u32,
    /// Its directory.
    pub log_dir: &'a Path,
    /// `--slow`.
    pub slow: &'static str,
    /// `--stall`.
    pub stall: &'static str,
    /// Where the capture and what was printed go.
    pub folder: &'a Path,
}

#[derive(Debug, Default)]
struct Heard {
    said: Said,
    has_broker: bool,
}

/// See the module's comment.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stderr: PathBuf,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts it, and returns when it is attached and has found the workload.
    pub fn start(lab: &Lab, watch: &Watch) -> anyhow::Result<Agent> {
        let stderr = watch.folder.join("agent.err");
        let mut command = lab.command(watch.binary);
        command
            .args(["watch", "--json", "--pid", &watch.pid.to_string()])
            .arg("--log-dir")
            .arg(watch.log_dir)
            .args(["--slow", watch.slow, "--stall", watch.stall, "--record"])
            .arg(watch.folder.join("capture.ndjson.zst"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?);
        let mut child =
            proc::spawn(command).with_context(|| format!("start {}", watch.binary.display()))?;
        let stdout = child.stdout.take().context("no pipe from the agent")?;
        let mut copy = File::create(watch.folder.join("agent.ndjson"))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::clone(&heard);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at_ns = Stamp::now().monotonic_ns;
                // Only for people who look into a miss.
                let _ = writeln!(copy, "{line}");
                let mut heard = lock(&shared);
                heard.has_broker |= line.contains(r#""type":"broker""#);
                heard.said.add(&line, at_ns);
            }
        });
        let mut agent = Agent {
            child,
            stderr,
            heard,
            reader: Some(reader),
        };
        agent.wait_until_it_watches()?;
        Ok(agent)
    }

    fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.stderr).unwrap_or_default();
        text.trim().to_owned()
    }

    fn wait_until_it_watches(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !(lock(&self.heard).has_broker && self.complaint().contains(ATTACHED)) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended early, {status}: {}", self.complaint());
            }
            if begin.elapsed() > START_LIMIT {
                bail!("the agent does not watch yet: {}", self.complaint());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does. Out: all that it printed.
    pub fn stop(mut self) -> anyhow::Result<Said> {
        let status = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(20))?;
        if let Some(reader) = self.reader.take() {
            // The pipe is closed with the process.
            let _ = reader.join();
        }
        let said = lock(&self.heard).said.clone();
        if !said.is_whole {
            bail!(
                "the agent did not end in order, {status:?}: {}",
                self.complaint()
            );
        }
        Ok(said)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(5));
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(|e| e.into_inner())
}

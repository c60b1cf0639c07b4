//! A real Kafka broker: one node, KRaft, broker and controller in one process,
//! run as the distribution's scripts run it, so that whoever looks for brokers
//! on this host finds it the way a production one is found.
//!
//! `config` says what to run, `files` renders what it reads, `jars` fetches,
//! `tools` are Kafka's own commands, `noise` makes it log a client's text,
//! [`Broker`] is the process.

mod config;
mod files;
mod jars;
mod noise;
mod tools;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

pub use config::{BrokerConfig, Flush};
pub use jars::{CACHE_VARIABLE, KafkaVersion, cache_dir, ensure as ensure_jars, find_program};
pub use noise::LOOKALIKE;
pub use tools::{ProduceConfig, Producer};

use crate::lab::Lab;
use crate::proc;
use files::Ports;

/// Why there is no broker. The first three are a machine that cannot run one,
/// where a caller may fall back to the built-in writer.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No JVM.
    #[error("find java: not on the search path (install a JRE, 17 or later)")]
    NoJava,
    /// Nothing to fetch the jars with.
    #[error("find mvn: not on the search path (install maven)")]
    NoMaven,
    /// The jars could not be fetched.
    #[error("fetch kafka's jars: {0:#}")]
    Download(anyhow::Error),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// A running broker, ended when dropped.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    lab_member: (OsString, OsString),
    ports: Ports,
    class_path: OsString,
    process: Option<Child>,
}

impl Broker {
    /// Formats the directories where needed, starts the broker and waits until
    /// it says that it is up.
    pub fn start(lab: &Lab, config: BrokerConfig) -> Result<Self, BrokerError> {
        let jars = ensure_jars(config.version)?;
        let class_path = std::env::join_paths(jars).context("join the class path")?;
        let ports = free_ports().context("find free ports")?;
        let mut broker = Broker {
            lab_member: lab.membership(),
            config,
            ports,
            class_path,
            process: None,
        };
        broker.prepare()?;
        broker.launch()?;
        Ok(broker)
    }

    fn prepare(&self) -> anyhow::Result<()> {
        let config = &self.config;
        let plain = [&config.meta_dir, &config.app_log_dir, &config.work_dir];
        for dir in config.log_dirs.iter().chain(plain) {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let properties = self.properties_path();
        fs::write(
            &properties,
            files::render_server_properties(config, self.ports),
        )?;
        let (file, _, text) = files::render_logging(config.version);
        fs::write(config.work_dir.join(file), text)?;
        self.format_storage(&properties)
    }

    /// Java with nothing but the membership set.
    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.env(&self.lab_member.0, &self.lab_member.1);
        command
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let config = &self.config;
        let mut command = self.java();
        // The order and the options of kafka-run-class.sh.
        let heap = &config.heap;
        command.args([format!("-Xmx{heap}"), format!("-Xms{heap}")]);
        command.args(["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
        command.args([
            "-XX:+ExplicitGCInvokesConcurrent",
            "-Djava.awt.headless=true",
        ]);
        command.arg(format!("-Dkafka.logs.dir={}", config.app_log_dir.display()));
        let (file, property, _) = files::render_logging(config.version);
        let logging = config.work_dir.join(file);
        command.arg(format!("-D{property}=file:{}", logging.display()));
        command.arg("-cp").arg(&self.class_path);
        command.arg("kafka.Kafka").arg(self.properties_path());
        let console = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.console_path())
            .context("open the broker's console log")?;
        command
            .process_group(0)
            .current_dir(&config.work_dir)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        let console_bytes = fs::metadata(self.console_path()).map_or(0, |meta| meta.len());
        self.process = Some(proc::spawn(command).context("start the broker")?);
        self.wait_until_up(console_bytes)
    }

    /// Reads the console, which has all lines of server.log: that one is rolled
    /// at each full hour, and an offset into it then means nothing.
    fn wait_until_up(&mut self, console_bytes: u64) -> anyhow::Result<()> {
        let limit = self.config.start_limit;
        let until = Instant::now() + limit;
        loop {
            let text = read_from(&self.console_path(), console_bytes).unwrap_or_default();
            if text.contains("Kafka Server started (") {
                return Ok(());
            }
            let exited = match &mut self.process {
                Some(process) => process.try_wait()?,
                None => None,
            };
            if exited.is_some() || Instant::now() > until {
                let how = match exited {
                    Some(status) => format!("ended with {status}"),
                    None => format!("not up after {limit:?}"),
                };
                self.kill9()?;
                anyhow::bail!("start the broker: {how}\n{}", last_lines(&text, 15));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whether the process is alive.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Where clients connect, `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plaintext)
    }

    /// Its server.log.
    pub fn server_log(&self) -> PathBuf {
        self.config.app_log_dir.join("server.log")
    }

    /// Its server.properties.
    pub fn properties_path(&self) -> PathBuf {
        self.config.work_dir.join("server.properties")
    }

    fn console_path(&self) -> PathBuf {
        self.config.work_dir.join("kafkaServer.out")
    }

    /// Where its configuration and the outputs of the tools are.
    pub fn work_dir(&self) -> &Path {
        &self.config.work_dir
    }

    /// Which log.dir each partition is in, read from the directories. Do not
    /// ask while a log.dir hangs.
    pub fn partition_dirs(&self) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        read_partition_dirs(&self.config.log_dirs)
    }

    /// The directory of a partition (`orders-0`), found in the `log.dirs`: its
    /// parent is the log.dir. Do not ask while a log.dir hangs.
    pub fn partition_dir(&self, topic_partition: &str) -> Option<PathBuf> {
        let dirs = self.config.log_dirs.iter();
        dirs.map(|dir| dir.join(topic_partition))
            .find(|dir| dir.is_dir())
    }

    /// Kills it, as a crash would.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.end(libc::SIGKILL, Duration::from_secs(10))
    }

    /// Stops it in order; after a minute, kills it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end(libc::SIGTERM, Duration::from_secs(60))
    }

    /// Starts it again, after [`Broker::kill9`] or [`Broker::stop`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill9()?;
        self.launch()
    }

    fn end(&mut self, signal: i32, limit: Duration) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        proc::end(&mut process, signal, limit)?.context("end the broker: it does not go")?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Short: with a dead or held disk an orderly stop does not come.
        if let Err(err) = self.end(libc::SIGTERM, Duration::from_secs(3)) {
            eprintln!("broker {}: {err:#}", self.config.node_id);
        }
    }
}

/// Which log.dir each partition is in: directories named `topic-number`.
pub fn read_partition_dirs(log_dirs: &[PathBuf]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for log_dir in log_dirs {
        let what = || format!("list {}", log_dir.display());
        for entry in fs::read_dir(log_dir).with_context(what)? {
            let name = entry.with_context(what)?.file_name();
            let name = name.to_string_lossy();
            let number = name.rsplit_once('-').map(|(_, number)| number);
            if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                found.insert(name.into_owned(), log_dir.clone());
            }
        }
    }
    Ok(found)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The part of a file behind an offset, as text.
pub fn read_from(path: &Path, offset: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Two ports that nobody listens on. Another process may take them meanwhile:
/// the broker then fails to start, which is said.
fn free_ports() -> std::io::Result<Ports> {
    let (one, two) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    Ok(Ports {
        plaintext: one.local_addr()?.port(),
        controller: two.local_addr()?.port(),
    })
}

//! What was typed. Comes in: argv; goes out: [`Cli`], which `config` turns into
//! what is true.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::detail::Detail;

/// Which fsync failed or hung, on which file and partition, because of which
/// block request on which disk, and which line of the broker's log that explains.
#[derive(Debug, Parser)]
#[command(
    name = "fsyncscope",
    version,
    after_help = "Exit codes: 0 nothing found, 1 findings, 2 could not run, 3 ran with a required hook missing.\n\
                  On a broker's host start with:  fsyncscope watch"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads argv. Help and version are printed here; what is wrong is said in
    /// one line.
    ///
    /// # Errors
    /// The exit code, where there is nothing to run.
    pub fn read() -> Result<Self, u8> {
        Cli::try_parse().map_err(|error| {
            let is_help = matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            if is_help {
                // Nobody may be there to read it.
                let _ = error.print();
            } else {
                crate::messages::say(&what_is_wrong(&error.to_string()));
            }
            u8::try_from(error.exit_code()).unwrap_or(2)
        })
    }
}

/// clap's paragraphs as one line: without usage, which `--help` prints.
fn what_is_wrong(text: &str) -> String {
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .map(|line| line.trim_start_matches("tip: "));
    let mut words = lines.collect::<Vec<_>>().join("; ").replace(":; ", ": ");
    words.push_str(" (see --help)");
    words
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Messages of the tool itself and of its kernel programs, on stderr.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn",
          value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    pub log_level: String,
    /// Do not use this form of a hook (fexit, typed_tracepoint); for tests of the others.
    #[arg(long, global = true, value_name = "FORM", hide = true)]
    pub avoid_form: Vec<String>,
    /// Believe this BTF instead of the running kernel's, to see that wrong facts are noticed
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "For tests only"
    )]
    pub test_btf: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Live: each sync that failed, is hanging or was slow, with its cause and the broker's log line
    Watch(Watch),
    /// Loads every hook, proves it with a sync of its own, and says what is lost without it
    Check(Check),
    /// Prometheus daemon: /metrics, /healthz, /readyz
    Export(Export),
}

/// What to watch, for watch and export.
#[derive(Debug, Args)]
pub struct Targets {
    /// Watch this process instead of every Kafka broker found (repeatable)
    #[arg(long, value_name = "PID", value_parser = parse_pid)]
    pub pid: Vec<u32>,
    /// Watch every process and every disk, not only Kafka's
    #[arg(long, conflicts_with = "pid")]
    pub all: bool,
    /// Treat this directory as a log.dir (repeatable); default: the broker's configuration
    #[arg(long, value_name = "DIR")]
    pub log_dir: Vec<PathBuf>,
    /// Follow this broker log; default: where the broker's logging configuration writes
    #[arg(long, value_name = "FILE")]
    pub follow_log: Option<PathBuf>,
    /// A sync this long is printed
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    pub slow: Duration,
    /// A sync this much longer than its bytes need is a finding
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub stall: Duration,
    /// How much to look at: less costs less and explains less
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub detail: Detail,
}

/// Options of watch.
#[derive(Debug, Args)]
pub struct Watch {
    /// What to watch.
    #[command(flatten)]
    pub targets: Targets,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
    /// Keep the evidence in FILE (zstd-compressed NDJSON, mode 0600)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Replay a capture instead of watching; needs no rights
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "pid", "log_dir", "follow_log"])]
    pub from: Option<PathBuf>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Print times in UTC, not in the host's zone
    #[arg(long)]
    pub utc: bool,
    /// Also print what is well: every hook, debug notices
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options of check.
#[derive(Debug, Args)]
pub struct Check {
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Attach what this level of watch and export attaches, and say what it leaves out
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub detail: Option<Detail>,
    /// Also print how many instructions the verifier walked, by program
    #[arg(short, long)]
    pub verbose: bool,
    /// Say what would work on a kernel that is not running, from its BTF: raw, or in a vmlinux or vmlinuz; may be compressed by zstd
    #[arg(long, value_name = "FILE", conflicts_with = "verbose")]
    pub btf: Option<PathBuf>,
    /// BTF of a module of that kernel, such as ext4=FILE (repeatable)
    #[arg(long, value_name = "NAME=FILE", requires = "btf", value_parser = parse_module)]
    pub btf_module: Vec<(String, PathBuf)>,
}

/// Options of export.
#[derive(Debug, Args)]
pub struct Export {
    /// What to watch.
    #[command(flatten)]
    pub targets: Targets,
    /// Address to serve on
    #[arg(long, value_name = "ADDR", default_value_t = crate::export::DEFAULT_LISTEN,
          value_parser = parse_listen)]
    pub listen: SocketAddr,
}

/// `ext4=FILE`.
fn parse_module(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        // A module's file is called nvme-core.ko, the module nvme_core.
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.replace('-', "_"), PathBuf::from(file)))
        }
        _ => Err("write it like ext4=FILE".to_owned()),
    }
}

fn parse_pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not the number of a process".to_owned()),
        Ok(pid) => Ok(pid),
    }
}

/// `127.0.0.1:9797`; without a port, ours.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let port = crate::export::DEFAULT_LISTEN.port();
    text.parse()
        .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)))
        .map_err(|_| format!("no address; write it like 127.0.0.1:{port} or [::1]:{port}"))
}

/// `100ms`, `1s`, `2m`, `1.5s`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("'{text}' is no time; write it like 100ms, 1s or 2m"))?;
    let seconds = match unit.trim() {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "" => {
            return Err(format!(
                "'{text}' has no unit; write it like 100ms, 1s or 2m"
            ));
        }
        other => {
            return Err(format!(
                "'{other}' is no unit of time; use us, ms, s, m or h"
            ));
        }
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("'{text}': {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("5").unwrap_err().contains("no unit"));
        assert!(parse_duration("5 parsecs").is_err());
        assert!(parse_duration("-1s").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let wrong =
            |words: &[&str]| what_is_wrong(&Cli::try_parse_from(words).unwrap_err().to_string());
        assert_eq!(
            wrong(&["fsyncscope", "wacht"]),
            "error: unrecognized subcommand 'wacht'; a similar subcommand exists: 'watch' (see --help)"
        );
        assert_eq!(
            wrong(&["fsyncscope", "watch", "--pid", "x"]),
            "error: invalid value 'x' for '--pid <PID>': not the number of a process (see --help)"
        );
        let line = wrong(&["fsyncscope", "export", "--listen", "here"]);
        assert!(line.contains("write it like 127.0.0.1:9797"), "{line}");
        let line = wrong(&["fsyncscope", "watch", "--from", "a", "--record", "b"]);
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn an_address_without_port_gets_ours() {
        let listen = parse_listen("0.0.0.0").unwrap();
        assert_eq!(listen.to_string(), "0.0.0.0:9797");
        assert_eq!(parse_listen("[::1]:80").unwrap().to_string(), "[::1]:80");
    }
}

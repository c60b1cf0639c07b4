//! The built-in writer by hand: `writer --dir DIR` makes two log.dirs below a
//! directory and writes until standard input ends, then prints its counts.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::writer::{SyncCall, Writer, WriterConfig};

#[derive(Parser)]
#[command(about = "Writes and syncs as a broker does")]
struct Args {
    /// Where log.dirs, configuration and server.log go
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    #[arg(long, default_value_t = 1)]
    handlers: u32,
    /// 0: as fast as possible
    #[arg(long, default_value_t = 20.0)]
    flushes_per_s: f64,
    /// Ends after so many; 0: with standard input
    #[arg(long, default_value_t = 0)]
    flushes: u64,
    /// Syncs nothing for so long
    #[arg(long, default_value_t = 3000)]
    hold_ms: u64,
    #[arg(long, value_enum, default_value = "fsync")]
    sync: SyncCall,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = fsyncscope_tests::dispatch(&args) {
        return ExitCode::from(code);
    }
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let lab = Lab::open()?;
    let log_dirs = vec![args.dir.join("a"), args.dir.join("b")];
    let mut config = WriterConfig::new(args.dir.join("work"), log_dirs);
    config.partitions = args.partitions;
    config.handlers = args.handlers;
    config.flushes_per_s = args.flushes_per_s;
    config.flushes = args.flushes;
    config.hold_before_first_sync_ms = args.hold_ms;
    config.sync = args.sync;
    let mut writer = Writer::start(&lab, config)?;
    eprintln!("writer {} in {}", writer.pid(), args.dir.display());
    if args.flushes > 0 {
        writer.wait(Duration::from_secs(3600))?;
    } else {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    println!("{}", serde_json::to_string(&writer.finish()?)?);
    Ok(())
}

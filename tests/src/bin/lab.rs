//! The lab by hand: make a disk, change its rules, see what it did.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use fsyncscope_tests::faultdisk::{Command, Control, FaultDisk, FsKind, Rule};
use fsyncscope_tests::lab::Lab;

#[derive(Parser)]
#[command(about = "Disks that fail on demand, by hand")]
struct Args {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Make and mount a disk; it goes when standard input ends
    Disk {
        #[arg(long, default_value = "a")]
        name: String,
        /// Size, in MiB
        #[arg(long, default_value_t = 512)]
        size: u64,
        #[arg(long, value_enum, default_value = "ext4")]
        fs: FsKind,
    },
    /// Put rules in force: a JSON list, e.g. '[{"op":"flush","delay_ms":1500}]'
    Set { socket: PathBuf, rules: String },
    /// Print the counts of a disk
    Stats { socket: PathBuf },
    /// List what dead runs have left, and remove it
    Sweep,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = fsyncscope_tests::dispatch(&args) {
        return ExitCode::from(code);
    }
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: LabCommand) -> anyhow::Result<()> {
    match command {
        LabCommand::Disk { name, size, fs } => {
            let lab = Lab::open()?;
            let disk = FaultDisk::create(&lab, &name, size << 20, fs)?;
            println!("mount   {}", disk.mountpoint().display());
            println!("device  {}", disk.loop_dev().display());
            println!("control {}/disks/{name}/control.sock", lab.dir().display());
            println!("truth   {}", disk.truth_path().display());
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        LabCommand::Set { socket, rules } => {
            let rules: Vec<Rule> = serde_json::from_str(&rules).context("parse rules")?;
            Control::new(socket).send(&Command::Set { rules })?;
        }
        LabCommand::Stats { socket } => {
            let stats = Control::new(socket).send(&Command::Stats)?;
            println!("{}", serde_json::to_string(&stats)?);
        }
        LabCommand::Sweep => {
            for left in Lab::leftovers_under(&Lab::base()) {
                println!("{left}");
            }
            drop(Lab::open()?);
        }
    }
    Ok(())
}

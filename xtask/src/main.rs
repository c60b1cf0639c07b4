//! `cargo xtask`: builds, tests, demonstrates and measures this repository.
//!
//! In: the command line. Out: progress on stderr, results on stdout, an exit
//! code: 0 all well, 1 the thing asked about is not so (a test failed, the tool
//! disagreed with the truth, tidy found something), 2 it could not be asked.
//! Not here: anything that the shipped agent needs at run time.

mod cli;
mod process;
mod arch;
mod setup;
mod remap;
mod build;
mod test;
mod tidy;
mod dist;
mod bench;
mod demo;
mod truth;
mod kernels;

use std::process::ExitCode;

use clap::Parser;
use fsyncscope_tests::incident;

fn main() -> ExitCode {
    // The lab starts its disk servers by running this binary again.
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = fsyncscope_tests::dispatch(&args) {
        return code.into();
    }
    match run() {
        Ok(code) => code.into(),
        Err(err) => {
            eprintln!("error: {err:#}");
            process::EXIT_COULD_NOT_RUN.into()
        }
    }
}

fn run() -> anyhow::Result<u8> {
    match cli::Cli::parse().command {
        cli::Command::Setup => setup::all().map(|()| 0),
        cli::Command::Build(args) => build::main(&args),
        cli::Command::Test(args) => test::main(&args),
        cli::Command::Demo(args) => demo::main(&args),
        cli::Command::Truth(args) => truth::main(&args),
        cli::Command::Kernels(args) => kernels::main(&args),
        cli::Command::Bench(args) => bench::main(&args),
        cli::Command::Dist(args) => dist::main(&args),
        cli::Command::Tidy(args) => tidy::main(&args),
    }
}

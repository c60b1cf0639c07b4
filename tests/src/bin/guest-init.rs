//! The init of the virtual machines of `cargo xtask kernels`, and the writer in
//! them. Everything is in `fsyncscope_tests::guest`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = fsyncscope_tests::dispatch(&args) {
        return ExitCode::from(code);
    }
    if std::process::id() != 1 {
        eprintln!("error: this is the init of a virtual machine, and switches it off at its end");
        return ExitCode::from(2);
    }
    fsyncscope_tests::guest::init::main()
}

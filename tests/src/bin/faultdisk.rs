//! A disk server on its own, for playing by hand and for virtual machines.
//! Everything is in `fsyncscope_tests::faultdisk`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match fsyncscope_tests::faultdisk::serve_main(&args) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::from(2)
        }
    }
}

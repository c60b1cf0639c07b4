//! Parse, set up messages, dispatch; the one place that prints an error and
//! picks the exit code.

use std::process::ExitCode;

use fsyncscope::{
    cli::{Cli, Command},
    config::Config,
    helper::{HELPER_COMMAND, helper_main},
    messages::{self, one_line, say},
    run,
};

/// Could not run.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match words.get(1).map(String::as_str) {
        Some(HELPER_COMMAND) => return exit(helper_main(&words[2..])),
        Some(run::selfprobe::PROBE_COMMAND) => return exit(run::selfprobe::probe_main()),
        _ => {}
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    messages::init(&cli.common.log_level);
    // A bug must not end in a code that means something else.
    match std::panic::catch_unwind(|| dispatch(&cli)) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => {
            say(&format!("error: {}", one_line(&error)));
            ExitCode::from(COULD_NOT_RUN)
        }
        Err(_) => ExitCode::from(COULD_NOT_RUN),
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(COULD_NOT_RUN))
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let config = |targets| Config::new(targets, &cli.common);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    match &cli.command {
        Command::Watch(options) => match &options.from {
            Some(path) => run::replay::replay(options, path),
            None => {
                let config = config(&options.targets)?;
                let runtime = runtime()?;
                let code = runtime.block_on(run::watch::watch(options, config));
                // Helpers in D state must not hold up the end.
                runtime.shutdown_background();
                code
            }
        },
        Command::Check(options) => run::check::check(
            options,
            &Config::for_check(&cli.common, options.detail.unwrap_or_default()),
        ),
        Command::Export(options) => {
            let config = config(&options.targets)?;
            let runtime = runtime()?;
            let code = runtime.block_on(run::serve::export(options, config));
            runtime.shutdown_background();
            code
        }
    }
}

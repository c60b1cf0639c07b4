//! Standard output of watch and check. In: what is to be printed. Out: it, and
//! what became of it: a reader that went away (`| head`) ends a run in order, a
//! full disk does not. (`println!` would panic of both.)

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, Write},
    rc::Rc,
};

use anyhow::anyhow;
use tokio::sync::Notify;

use crate::{
    correlate::Output,
    messages::{plain, say},
    run::live::Emit,
    sink::{JsonSink, TextOptions, TextSink},
};

/// What became of the output.
#[derive(Default)]
pub struct Printed {
    is_gone: Cell<bool>,
    gone: Notify,
    failed: RefCell<Option<String>>,
    lost_lines: Cell<u64>,
    brokers: Cell<u64>,
}

impl Printed {
    /// Ready when nobody reads the output any more.
    pub async fn reader_gone(&self) {
        self.gone.notified().await;
    }

    /// Nobody reads the output any more.
    pub fn is_reader_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Brokers that were told of.
    pub fn brokers(&self) -> u64 {
        self.brokers.get()
    }

    /// Why output was lost, other than that nobody wanted it.
    pub fn failure(&self) -> Option<String> {
        let why = self.failed.borrow().clone()?;
        Some(format!(
            "write to stdout: {why}; {} lines were lost",
            self.lost_lines.get()
        ))
    }

    fn write(&self, text: &str, out: &mut impl Write) {
        if text.is_empty() || self.is_gone.get() {
            return;
        }
        let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else {
            return;
        };
        if error.kind() == ErrorKind::BrokenPipe {
            self.is_gone.set(true);
            self.gone.notify_one();
            return;
        }
        let why = plain(&error.to_string());
        let lines = text.lines().count() as u64;
        self.lost_lines.set(self.lost_lines.get() + lines);
        if self.failed.borrow().is_none() {
            say(&format!(
                "error: write to stdout: {why}; going on, what is printed meanwhile is lost"
            ));
            *self.failed.borrow_mut() = Some(why);
        }
    }
}

/// Renders outputs as asked for, on stdout.
pub fn stdout_emit(json: bool, text: TextOptions) -> (Emit, Rc<Printed>) {
    let mut render: Box<dyn FnMut(&Output) -> String> = if json {
        let mut sink = JsonSink;
        Box::new(move |output| sink.render(output))
    } else {
        let mut sink = TextSink::new(text);
        Box::new(move |output| sink.render(output))
    };
    let printed = Rc::new(Printed::default());
    let kept = Rc::clone(&printed);
    let emit = Box::new(move |output: &Output| {
        if matches!(output, Output::BrokerSeen(_)) {
            kept.brokers.set(kept.brokers.get() + 1);
        }
        kept.write(&render(output), &mut io::stdout().lock());
    });
    (emit, printed)
}

/// Prints the whole output of a command.
///
/// # Errors
/// When it cannot be written; not when nobody reads it.
pub fn print_all(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow!("write to stdout: {error}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(self.0))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_went_away_is_told_and_is_no_failure() {
        let printed = Printed::default();
        printed.write("a\n", &mut Broken(ErrorKind::BrokenPipe));
        printed.reader_gone().await;
        assert!(printed.is_reader_gone());
        assert_eq!(printed.failure(), None);
    }

    #[test]
    fn lines_that_a_full_disk_took_are_counted() {
        let printed = Printed::default();
        printed.write("a\nb\n", &mut Broken(ErrorKind::StorageFull));
        printed.write("c\n", &mut Broken(ErrorKind::StorageFull));
        assert!(!printed.is_reader_gone());
        let failure = printed.failure().unwrap();
        assert!(failure.ends_with("; 3 lines were lost"), "{failure}");
    }
}

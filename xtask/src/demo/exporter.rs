//! `fsyncscope export` at work beside the demo, and the scraper that reads it. In:
//! the agent's binary. Out: the first and the last answer, and whatever was wrong
//! with one between: no answer, a count that went down, a text that promtool
//! refuses.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::metrics::{self, Scrape};
use fsyncscope_tests::proc;

/// What it prints on stderr when it serves, before the address.
const SERVING: &str = "serving http://";
/// Prometheus scrapes less often and gives up later.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
/// The text changes in its numbers only, once the broker is found.
const CHECK_EVERY: u64 = 12;

/// What the scraper saw.
#[derive(Clone, Debug, Default)]
pub struct Scraped {
    /// How often it was answered.
    pub times: u64,
    /// How often promtool was asked.
    pub checked: u64,
    /// The longest answer.
    pub slowest: Duration,
    /// The first answer.
    pub first: Scrape,
    /// The last one.
    pub last: Scrape,
    /// All that was wrong.
    pub wrong: Vec<String>,
}

/// The agent's daemon.
pub struct Exporter {
    child: Child,
    addr: SocketAddr,
    scraped: Arc<Mutex<Scraped>>,
    is_over: Arc<AtomicBool>,
    scraper: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts `export` on a free port of loopback and the scraper, and returns
    /// when a scrape holds a series with each of these directories.
    pub fn start(lab: &Lab, binary: &Path, log_dirs: &[String]) -> anyhow::Result<Exporter> {
        let stderr = lab.dir().join("export.err");
        let mut command = lab.command(binary);
        command
            .args(["export", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?);
        let child = proc::spawn(command).with_context(|| format!("start {}", binary.display()))?;
        let mut exporter = Exporter {
            child,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            scraped: Arc::default(),
            is_over: Arc::default(),
            scraper: None,
        };
        exporter.addr = exporter.wait_for_address(&stderr)?;
        exporter.wait_for_directories(log_dirs)?;
        let (addr, scraped) = (exporter.addr, Arc::clone(&exporter.scraped));
        let is_over = Arc::clone(&exporter.is_over);
        let scraper = thread::Builder::new().name("scraper".into());
        exporter.scraper = Some(scraper.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let begin = Instant::now();
                scrape(addr, &scraped);
                while begin.elapsed() < SCRAPE_EVERY && !is_over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        })?);
        Ok(exporter)
    }

    fn wait_for_address(&mut self, stderr: &Path) -> anyhow::Result<SocketAddr> {
        let begin = Instant::now();
        loop {
            let said = fs::read_to_string(stderr).unwrap_or_default();
            if let Some(addr) = parse_address(&said) {
                return Ok(addr);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("export ended early, {status}: {}", said.trim());
            }
            if begin.elapsed() > Duration::from_secs(30) {
                bail!("export does not serve after 30 s: {}", said.trim());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_directories(&self, log_dirs: &[String]) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let scrape = metrics::scrape(self.addr, SCRAPE_LIMIT)?;
            let has_series = |dir: &String| {
                scrape
                    .samples
                    .iter()
                    .any(|sample| sample.has(&[("log_dir", dir)]))
            };
            if log_dirs.iter().all(has_series) {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(30) {
                bail!("export has not found the broker's directories after 30 s");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was scraped until now.
    pub fn scraped(&self) -> Scraped {
        lock(&self.scraped).clone()
    }

    /// Scrapes a last time and ends it as a service manager does. Out: all that
    /// was scraped, and the exit code.
    pub fn stop(mut self) -> anyhow::Result<(Scraped, i32)> {
        self.join_scraper();
        scrape(self.addr, &self.scraped);
        let mut scraped = self.scraped();
        check(&mut scraped);
        let status = proc::end(&mut self.child, libc::SIGTERM, Duration::from_secs(15))?;
        let code = status.and_then(|status| status.code());
        Ok((scraped, code.context("export did not end in order")?))
    }

    fn join_scraper(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(scraper) = self.scraper.take() {
            let _ = scraper.join();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.join_scraper();
        let _ = proc::end(&mut self.child, libc::SIGTERM, Duration::from_secs(5));
    }
}

fn lock(scraped: &Mutex<Scraped>) -> MutexGuard<'_, Scraped> {
    scraped.lock().unwrap_or_else(|e| e.into_inner())
}

/// One scrape, taken up.
fn scrape(addr: SocketAddr, scraped: &Mutex<Scraped>) {
    let answer = metrics::scrape(addr, SCRAPE_LIMIT);
    let mut scraped = lock(scraped);
    match answer {
        Ok(scrape) => scraped.add(scrape),
        Err(err) => scraped.wrong.push(format!("{err:#}")),
    }
    if scraped.times % CHECK_EVERY == 1 {
        check(&mut scraped);
    }
}

fn check(scraped: &mut Scraped) {
    scraped.checked += 1;
    if let Err(err) = metrics::check_with_promtool(&scraped.last.text) {
        scraped.wrong.push(format!("{err:#}"));
    }
}

impl Scraped {
    fn add(&mut self, scrape: Scrape) {
        self.wrong.extend(counts_gone_down(&self.last, &scrape));
        self.times += 1;
        self.slowest = self.slowest.max(scrape.took);
        if self.times == 1 {
            self.first = scrape.clone();
        }
        self.last = scrape;
    }
}

/// Counters and histograms never go down, and do not vanish.
fn counts_gone_down(before: &Scrape, after: &Scrape) -> Vec<String> {
    let is_counter = |name: &str| {
        let ends = ["_total", "_count", "_sum", "_bucket"];
        ends.iter().any(|end| name.ends_with(end))
    };
    let now: BTreeMap<_, f64> = after
        .samples
        .iter()
        .map(|sample| ((&sample.name, &sample.labels), sample.value))
        .collect();
    let counters = before.samples.iter().filter(|s| is_counter(&s.name));
    counters
        .filter_map(|old| match now.get(&(&old.name, &old.labels)) {
            Some(new) if *new >= old.value => None,
            Some(new) => Some(format!(
                "{} {:?}: from {} to {new}",
                old.name, old.labels, old.value
            )),
            None => Some(format!("{} {:?}: vanished", old.name, old.labels)),
        })
        .collect()
}

fn parse_address(said: &str) -> Option<SocketAddr> {
    let (_, rest) = said.split_once(SERVING)?;
    rest.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape_of(text: &str) -> Scrape {
        Scrape {
            samples: metrics::parse(text).unwrap(),
            text: text.into(),
            ..Scrape::default()
        }
    }

    #[test]
    fn the_address_is_read_once_it_is_whole() {
        let said = "fsyncscope: attached\nfsyncscope: serving http://127.0.0.1:4711";
        assert_eq!(parse_address(said), None);
        let addr = parse_address(&format!("{said}/metrics\n")).unwrap();
        assert_eq!(addr.port(), 4711);
    }

    #[test]
    fn a_counter_that_falls_or_vanishes_is_found_and_a_gauge_may() {
        let mut scraped = Scraped::default();
        scraped.add(scrape_of("a_total{x=\"1\"} 5\nb_count 1\nopen 3\n"));
        scraped.add(scrape_of("a_total{x=\"1\"} 5\nb_count 2\nopen 2\n"));
        assert!(scraped.wrong.is_empty());
        scraped.add(scrape_of("a_total{x=\"1\"} 4\n"));
        assert_eq!(scraped.wrong.len(), 2, "{:?}", scraped.wrong);
        assert_eq!(scraped.times, 3);
    }
}

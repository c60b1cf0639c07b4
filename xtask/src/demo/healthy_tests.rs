//! Each way in which a healthy run can be no proof, or can go wrong, is found.

use std::collections::BTreeMap;

use fsyncscope_tests::metrics;

use super::super::ending::{Ending, Stopped};
use super::*;
use crate::incident::Incident;

const DIRS: [&str; 2] = ["/a/kafka", "/b/kafka"];

fn row(log_dir: &str, op: &str, count: u64) -> Row {
    Row {
        log_dir: log_dir.into(),
        op: op.into(),
        count,
        ..Row::default()
    }
}

fn scrape() -> Scrape {
    let mut text = String::new();
    for dir in DIRS {
        for op in OPS {
            let labels = format!("log_dir=\"{dir}\",op=\"{op}\"");
            text += &format!("{FAILURES}{{{labels}}} 0\n");
            text += &format!("{ERRORS}{{{labels},errno=\"EIO\"}} 0\n");
            text += &format!("{COUNT}{{{labels}}} 990\n");
        }
    }
    Scrape {
        samples: metrics::parse(&text).unwrap(),
        text,
        ..Scrape::default()
    }
}

fn seen() -> Seen {
    let rows = DIRS
        .iter()
        .flat_map(|dir| [row(dir, "fsync", 1000), row(dir, "msync", 1000)]);
    Seen {
        log_dirs: DIRS.map(String::from).to_vec(),
        seconds: 60,
        is_loaded: true,
        disk_flushes: vec![5, 5],
        output: Output {
            told: Vec::new(),
            ending: Ending {
                slow_syncs: 0,
                rows: rows.collect(),
                stopped: Some(Stopped::default()),
            },
        },
        foreign: 0,
        watch_code: 0,
        scraped: Scraped {
            times: 12,
            checked: 2,
            first: scrape(),
            last: scrape(),
            ..Scraped::default()
        },
        export_code: 0,
    }
}

/// How many things are wrong after this change.
fn wrong(change: impl Fn(&mut Seen)) -> usize {
    let mut seen = seen();
    change(&mut seen);
    check(&seen).len()
}

#[test]
fn a_healthy_run_passes_and_tells_its_numbers() {
    assert_eq!(check(&seen()), Vec::<String>::new());
    let facts = facts(&seen()).join("\n");
    assert!(facts.contains("lost:    none"), "{facts}");
    assert!(facts.contains("1000 msync in /b/kafka"), "{facts}");
}

#[test]
fn any_incident_is_wrong_and_lost_events_are_told() {
    let told = || Told {
        last: Incident::default(),
        ..Told::default()
    };
    assert_eq!(wrong(|seen| seen.output.told.push(told())), 1);
    // A code that nothing explains, and one that another broker does.
    assert_eq!(wrong(|seen| seen.watch_code = 1), 1);
    assert_eq!(wrong(|seen| (seen.watch_code, seen.foreign) = (1, 1)), 0);
    assert_eq!(wrong(|seen| (seen.export_code, seen.foreign) = (3, 1)), 1);
    let mut lossy = seen();
    let lost = BTreeMap::from([("ring_full".to_string(), 3)]);
    lossy.output.ending.stopped = Some(Stopped {
        lost,
        ..Stopped::default()
    });
    assert!(facts(&lossy).contains(&"lost:    3 ring_full".to_string()));
}

#[test]
fn silence_of_a_tool_that_saw_nothing_is_wrong() {
    let rows = |seen: &mut Seen| std::mem::take(&mut seen.output.ending.rows);
    assert!(wrong(|seen| drop(rows(seen))) >= 4);
    // The syncs of another broker's directories do not count.
    assert!(wrong(|seen| seen.output.ending.rows[0].log_dir = "/c".into()) >= 1);
    assert_eq!(wrong(|seen| seen.seconds = 1000), 2);
    assert_eq!(wrong(|seen| seen.is_loaded = false), 1);
    assert_eq!(wrong(|seen| seen.disk_flushes[1] = 0), 1);
    assert_eq!(wrong(|seen| seen.output.ending.stopped = None), 1);
    assert_eq!(wrong(|seen| seen.output.ending.rows[1].errors = 1), 1);
}

#[test]
fn each_fault_of_the_exporter_is_wrong() {
    assert_eq!(wrong(|seen| seen.scraped.wrong.push("503".into())), 1);
    assert_eq!(wrong(|seen| seen.scraped.checked = 0), 1);
    assert_eq!(wrong(|seen| seen.scraped.times = 1), 1);
    // A counter that is not there yet, and one that counts what did not fail.
    assert_eq!(wrong(|seen| drop(seen.scraped.first.samples.remove(0))), 1);
    assert_eq!(wrong(|seen| seen.scraped.last.samples[0].value = 1.0), 1);
    // More than watch saw, and far less.
    assert_eq!(wrong(|seen| seen.scraped.last.samples[2].value = 1001.0), 1);
    assert_eq!(wrong(|seen| seen.scraped.last.samples[2].value = 700.0), 1);
}

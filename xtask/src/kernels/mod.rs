//! `cargo xtask kernels`: the agent on every kernel, in virtual machines whose
//! disks fail on demand. In: tests/KERNELS and what was picked. Out: a table (or
//! JSON), evidence of what failed, docs/KERNELS.md after the whole matrix.
//!
//! `list` says which kernels, `archive` fetches them (if there is `room`), `image` and
//! `modules` unpack them, `initramfs` packs what a guest runs, `disk` and `qemu` are its machine,
//! `broker` is a disk with Kafka for cells under it,
//! `boot` sees one boot through, `work` deals the boots to a few machines at a
//! time, `table` and `page` show what came out, with `forms` and `asserted`. What a guest does is in the tests'
//! crate (`guest`).

mod archive;
mod asserted;
mod boot;
mod broker;
mod disk;
mod forms;
mod image;
mod initramfs;
mod list;
mod modules;
mod page;
mod qemu;
mod room;
mod sums;
mod table;
mod work;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::fault::{Fault, deal_boots};
use fsyncscope_tests::lab::Lab;

use self::archive::Archive;
pub use self::archive::mirror;
use self::boot::{Job, Programs};
use self::work::{Boot, Store};
use crate::arch::Arch;
use crate::build;
use crate::cli::KernelsArgs;
use crate::process::{EXIT_COULD_NOT_RUN, EXIT_NOT_SO, is_root, repository, say};
use crate::setup::{self, Need};

/// What no machine can do without, and a check of every change may lack.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// An ordinary user.
    #[error("not root: the disks of the machines are served by FUSE")]
    NotRoot,
    /// No FUSE.
    #[error("no /dev/fuse, on which the disks of the machines are built")]
    NoFuse,
    /// No way to the distribution's archive, and nothing of it in the cache.
    #[error("the distribution's archive is out of reach: {0}")]
    NoArchive(String),
    /// Machines that were stopped for being too slow.
    #[error("too slow here: {cells} cells were not played, {passed} passed")]
    TooSlow {
        /// So many.
        cells: usize,
        /// And so many were, and passed.
        passed: usize,
    },
}

/// `cargo xtask kernels`.
pub fn main(args: &KernelsArgs) -> anyhow::Result<u8> {
    if args.page {
        return write_page(args);
    }
    if args.record_sums {
        return record_sums(args);
    }
    let outcome = run(args, None)?;
    Ok(outcome.exit_code())
}

/// Whether what `--version` printed is of a QEMU that cannot be used.
pub fn qemu_is_too_old(said: &str) -> bool {
    qemu::parse_version(said).is_none_or(qemu::is_too_old)
}

/// How long the machines of the subset may take; in order, they take a third of it.
const SUBSET_LIMIT: Duration = Duration::from_secs(12 * 60);

/// The subset for every change: three kernels, both architectures, two faults.
pub fn subset() -> anyhow::Result<table::Outcome> {
    let kernels = known_kernels()?.into_iter().filter(|kernel| kernel.is_ci);
    let args = KernelsArgs {
        kernel: kernels.map(|kernel| kernel.name()).collect(),
        arch: Vec::new(),
        fs: vec![FsKind::Ext4],
        fault: vec![Fault::WriteError, Fault::LateError],
        check: false,
        broker: false,
        stacks: false,
        avoid_form: Vec::new(),
        vms: 2,
        resume: false,
        json: false,
        keep: false,
        agent: None,
        page: false,
        record_sums: false,
    };
    run(&args, Some(SUBSET_LIMIT))
}

fn run(args: &KernelsArgs, limit: Option<Duration>) -> anyhow::Result<table::Outcome> {
    if !is_root() {
        return Err(Obstacle::NotRoot.into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(Obstacle::NoFuse.into());
    }
    let mut known = known_kernels()?;
    if (args.broker || args.stacks) && args.kernel.is_empty() {
        known.retain(|kernel| kernel.is_ci);
    }
    let kernels = list::pick(&known, &args.kernel)?;
    let few = (&[Arch::HOST][..], &[FsKind::Ext4][..]);
    let ((all_archs, all_fs), all_faults) = match (args.broker, args.stacks) {
        (true, _) => (few, Fault::broker()),
        (_, true) => (few, Fault::stacked()),
        _ => (
            (&Arch::ALL[..], &[FsKind::Ext4, FsKind::Xfs][..]),
            Fault::all(),
        ),
    };
    let archs = or_all(&args.arch, all_archs);
    let file_systems = or_all(&args.fs, all_fs);
    let faults = or_all(&args.fault, all_faults);
    if file_systems.contains(&FsKind::Xfs) && faults.iter().any(|fault| fault.is_stacked()) {
        bail!("--fs xfs: stacks are played on ext4 only");
    }
    let of_what = page::of_what();
    let cache = setup::cache()?.join("kernels");
    // First of all: without it QEMU cannot be had either.
    let archives: Vec<Archive> = archs
        .iter()
        .map(|arch| Archive::open(&cache, *arch))
        .collect::<anyhow::Result<_>>()?;
    setup::packages(Need::KERNELS)?;
    setup::qemu()?;
    let broker_disk = match faults.iter().any(|fault| fault.is_brokers()) {
        true => Some(broker::disk(&cache, &archs)?),
        false => None,
    };
    let mut boots = Vec::new();
    let mut nr_before = 0;
    let agent_args: Vec<String> = args
        .avoid_form
        .iter()
        .flat_map(|form| ["--avoid-form".to_owned(), form.clone()])
        .collect();
    let mut programs = Vec::new();
    for (arch, archive) in archs.iter().zip(&archives) {
        qemu::require_usable(*arch)?;
        let own = read_programs(*arch, args.agent.as_deref())?;
        let store = Store::open(&cache, *arch, hash(&own, &agent_args))?;
        for kernel in &kernels {
            let image = image::get(&cache, archive, kernel, *arch)?;
            let image = std::sync::Arc::new(image);
            let (faults, nr_fs) = match kernel.is_late && args.fault.is_empty() {
                // On the modules of one file system and one architecture.
                true if *arch != archs[0] => continue,
                true => (vec![Fault::LateModules], 1),
                // `check` says the same whatever is on the disk.
                false if args.check => (faults.clone(), 1),
                false => (faults.clone(), file_systems.len()),
            };
            for fs in &file_systems[..nr_fs] {
                if !image.has(*fs) {
                    say(format!(
                        "{} {}: the archive has no modules of it: {} is left out",
                        image.release,
                        arch.name(),
                        fs.name()
                    ));
                    store.put_absent(&image, *fs)?;
                    continue;
                }
                let faults: Vec<Fault> = (faults.iter().copied())
                    .filter(|fault| fault.is_for(*fs))
                    .collect();
                let wanted = match args.resume {
                    true => store.not_passed(&image, *fs, &faults),
                    false => faults.clone(),
                };
                nr_before += faults.len() - wanted.len();
                let deals = if args.check {
                    vec![Vec::new()]
                } else {
                    deal_boots(&wanted)
                };
                boots.extend(deals.into_iter().map(|faults| {
                    Boot {
                        image: image.clone(),
                        programs: programs.len(),
                        job: Job {
                            fs: *fs,
                            broker_disk: broker_disk
                                .clone()
                                .filter(|_| faults.iter().any(|fault| fault.is_brokers())),
                            faults,
                            agent_args: agent_args.clone(),
                            keep_all: args.keep,
                        },
                    }
                }));
            }
        }
        programs.push((own, store));
    }
    if args.resume {
        say(format!(
            "{nr_before} cells went as expected before, with this agent: not played again"
        ));
    }
    stop_on_interrupt();
    if let Some(limit) = limit {
        stop_after(limit);
    }
    let lab = Lab::open()?;
    let outcome = work::all(&lab, boots, &programs, args)?;
    drop(lab);
    table::print(&outcome, args.json)?;
    let is_whole = args.kernel.is_empty() && archs.len() == 2 && file_systems.len() == 2;
    let is_whole = is_whole && args.avoid_form.is_empty() && !args.broker && !args.stacks;
    // The page is of what this commit releases.
    let is_whole = is_whole && args.agent.is_none();
    if is_whole && !args.check && faults.len() == Fault::all().len() && !is_stopped() {
        let stores: Vec<&Store> = programs.iter().map(|(_, store)| store).collect();
        page::write(&of_what, &kernels, &archs, &file_systems, &stores)?;
    }
    Ok(outcome)
}

/// The page of what has been done with this agent, whole or not.
fn write_page(args: &KernelsArgs) -> anyhow::Result<u8> {
    if args.agent.is_some() {
        bail!("--page: the page is of the agent of this commit, not of --agent");
    }
    let of_what = page::of_what();
    let cache = setup::cache()?.join("kernels");
    let archs = or_all(&args.arch, &Arch::ALL);
    let mut stores = Vec::new();
    for arch in &archs {
        let own = read_programs(*arch, None)?;
        stores.push(Store::open(&cache, *arch, hash(&own, &[]))?);
    }
    let stores: Vec<&Store> = stores.iter().collect();
    let file_systems = [FsKind::Ext4, FsKind::Xfs];
    page::write(&of_what, &known_kernels()?, &archs, &file_systems, &stores)?;
    Ok(0)
}

/// Writes down the sums of the packages of all kernels, for machines without keys.
fn record_sums(args: &KernelsArgs) -> anyhow::Result<u8> {
    let cache = setup::cache()?.join("kernels");
    let mut found = Vec::new();
    for arch in or_all(&args.arch, &Arch::ALL) {
        let archive = Archive::open(&cache, arch)?;
        for kernel in list::pick(&known_kernels()?, &args.kernel)? {
            found.extend(archive.sums_of(&archive.find(&kernel)?)?);
        }
    }
    let path = sums::path();
    fs::write(&path, sums::render(&found)).with_context(|| format!("write {}", path.display()))?;
    say(format!(
        "wrote {}, {} packages",
        path.display(),
        found.len()
    ));
    Ok(0)
}

fn known_kernels() -> anyhow::Result<Vec<list::Kernel>> {
    let path = repository().join("tests/KERNELS");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    list::parse(&text)
}

fn or_all<T: Clone>(picked: &[T], all: &[T]) -> Vec<T> {
    let chosen = if picked.is_empty() { all } else { picked };
    chosen.to_vec()
}

fn read_programs(arch: Arch, agent: Option<&Path>) -> anyhow::Result<Programs> {
    let init = build::guest_init(arch)?;
    let agent = match agent {
        Some(agent) => agent.to_owned(),
        None => build::require_agent_for(arch, true)?,
    };
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    Ok(Programs {
        init: read(&init)?,
        agent: read(&agent)?,
    })
}

/// Results are good for these very bytes and arguments.
fn hash(programs: &Programs, agent_args: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&programs.init, &programs.agent, agent_args).hash(&mut hasher);
    hasher.finish()
}

/// Whether the machines were told to end, by a signal or a limit.
pub fn is_stopped() -> bool {
    boot::STOP.load(Ordering::Relaxed)
}

/// Ctrl-C stops the machines and lets us clean up after them.
fn stop_on_interrupt() {
    extern "C" fn stop(_signal: libc::c_int) {
        boot::STOP.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(libc::c_int) = stop;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store into an atomic.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    say("Ctrl-C stops in order; --resume goes on from there");
}

/// As Ctrl-C would: what has not been played by then is told as such.
fn stop_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        say(format!("stopped after {} s: too slow", limit.as_secs()));
        boot::STOP.store(true, Ordering::Relaxed);
    });
}

impl table::Outcome {
    /// A failed cell wins over a lab that could not run.
    fn exit_code(&self) -> u8 {
        match (self.nr_failed(), self.nr_broken()) {
            (0, 0) => 0,
            (0, _) => EXIT_COULD_NOT_RUN,
            _ => EXIT_NOT_SO,
        }
    }
}

//! One thread of the workload: its files, and what it does with them, drawn
//! from the seed. Everything that a broker does and that other users of fsync
//! do besides. Errors of steps that are no sync (a file system that is
//! read-only by now) end the round and nothing else.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::WorkloadConfig;
use super::files::{BLOCK_BYTES, Block, Style, SyncedFile, sync_dir};
use super::output::Output;
use super::random::Random;
use super::record::Call;
use super::uring::Uring;

const LOG_BYTES: usize = 512 << 10;
const INDEX_BYTES: usize = 64 << 10;
const BACKGROUND_BYTES: usize = 128 << 10;
/// Where an appended log is cut back to its first size.
const LOG_LIMIT_BYTES: u64 = 2 << 20;
/// How long after writeback its fsync comes.
const BACKGROUND_MS: (u64, u64) = (1500, 4000);

/// What a round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Overwrite(Call),
    Append,
    Index,
    Dsync,
    Direct,
    Uring,
    Shared,
    Checkpoint,
    Roll,
    Background,
    ReadCold,
}

const STEPS: &[(u64, Step)] = &[
    (20, Step::Overwrite(Call::Fsync)),
    (16, Step::Overwrite(Call::Fdatasync)),
    (1, Step::Overwrite(Call::SyncFileRange)),
    (8, Step::Append),
    (14, Step::Index),
    (7, Step::Dsync),
    (7, Step::Direct),
    (5, Step::Uring),
    (4, Step::Shared),
    (5, Step::Checkpoint),
    (3, Step::Roll),
    (4, Step::Background),
    (6, Step::ReadCold),
];

/// See the module's comment.
pub(super) struct Worker {
    out: Arc<Output>,
    random: Random,
    dir: PathBuf,
    log: SyncedFile,
    log_bytes: u64,
    index: SyncedFile,
    background: SyncedFile,
    background_due: Option<Instant>,
    shared: Arc<SyncedFile>,
    uring: Option<Uring>,
    segment: Option<SyncedFile>,
    checkpoint: Option<SyncedFile>,
    rolls: u64,
    block: Box<Block>,
}

impl Worker {
    /// Makes the files of worker `nth` in a directory of their own.
    pub(super) fn create(
        out: &Arc<Output>,
        config: &WorkloadConfig,
        nth: u64,
        shared: &Arc<SyncedFile>,
    ) -> io::Result<Self> {
        let dir = config.dir.join(format!("orders-{nth}"));
        fs::create_dir_all(&dir)?;
        let file = |name: &str, bytes, style| {
            let path = dir.join(format!("{:020}.{name}", 0));
            SyncedFile::create(out, &path, bytes, style)
        };
        Ok(Worker {
            out: Arc::clone(out),
            random: Random::new(config.seed, nth),
            log: file("log", LOG_BYTES, Style::Log)?,
            log_bytes: LOG_BYTES as u64,
            index: file("index", INDEX_BYTES, Style::Index)?,
            background: file("snapshot", BACKGROUND_BYTES, Style::Plain)?,
            background_due: None,
            shared: Arc::clone(shared),
            uring: Uring::new().ok(),
            segment: None,
            checkpoint: None,
            rolls: 0,
            block: Box::new(Block([0x11; BLOCK_BYTES])),
            dir,
        })
    }

    /// One round, and the pause after it.
    pub(super) fn round(&mut self, pace_ms: (u64, u64)) {
        if self.background_due.is_some_and(|due| Instant::now() >= due) {
            self.finish_background();
        }
        let step = self.random.weighted(STEPS);
        // What fails here is in the records, or the file system is read-only.
        let _ = self.make(step);
        let pause = self.random.between(pace_ms.0, pace_ms.1);
        std::thread::sleep(Duration::from_millis(pause));
    }

    fn make(&mut self, step: Step) -> io::Result<()> {
        let blocks = self.random.between(1, 8);
        let offset = self.random.below((LOG_BYTES / BLOCK_BYTES) as u64 - 8) * BLOCK_BYTES as u64;
        self.block.0.fill(blocks as u8 ^ offset as u8);
        let out = Arc::clone(&self.out);
        match step {
            Step::Overwrite(call) => {
                self.overwrite(offset, blocks)?;
                self.log.sync(&out, call);
            }
            Step::Append => self.append(blocks)?,
            Step::Index => {
                let offset = offset % (INDEX_BYTES - BLOCK_BYTES) as u64;
                self.index.write(offset, &self.block.0[..12])?;
                self.index.msync(&out);
            }
            Step::Dsync => {
                self.log.dsync_write(&out, offset, &self.block.0);
            }
            Step::Direct => {
                self.log.direct_write(&out, offset, &self.block);
                if blocks > 4 {
                    self.log.sync(&out, Call::Fdatasync);
                }
            }
            Step::Uring => {
                self.overwrite(offset, blocks)?;
                if let Some(uring) = &mut self.uring {
                    self.log.sync_by(&out, uring);
                }
            }
            Step::Shared => {
                let offset = offset % (BACKGROUND_BYTES - BLOCK_BYTES) as u64;
                self.shared.write(offset, &self.block.0)?;
                self.shared.sync(&out, Call::Fsync);
            }
            Step::Checkpoint => self.checkpoint()?,
            Step::Roll => self.roll()?,
            Step::Background => self.start_background()?,
            Step::ReadCold => {
                self.log.read_cold(&out, offset);
            }
        }
        Ok(())
    }

    fn overwrite(&self, offset: u64, blocks: u64) -> io::Result<()> {
        (0..blocks).try_for_each(|nth| {
            let offset = offset + nth * BLOCK_BYTES as u64;
            self.log.write(offset, &self.block.0)
        })
    }

    /// New blocks: the commit of the journal has to wait for them.
    fn append(&mut self, blocks: u64) -> io::Result<()> {
        if self.log_bytes >= LOG_LIMIT_BYTES {
            self.log.say_displaced(&self.out);
            self.log.set_len(LOG_BYTES as u64)?;
            self.log.say_place(&self.out);
            self.log_bytes = LOG_BYTES as u64;
        }
        for _ in 0..blocks {
            self.log.write(self.log_bytes, &self.block.0)?;
            self.log_bytes += BLOCK_BYTES as u64;
        }
        self.log.sync(&self.out, Call::Fsync);
        self.log.say_place(&self.out);
        Ok(())
    }

    /// `.tmp`, fsync, rename, fsync of the directory.
    fn checkpoint(&mut self) -> io::Result<()> {
        let path = self.dir.join("leader-epoch-checkpoint");
        let tmp = path.with_extension("tmp");
        // As Kafka does: a new inode each time.
        let _ = fs::remove_file(&tmp);
        let mut file = SyncedFile::create(&self.out, &tmp, BLOCK_BYTES, Style::Plain)?;
        file.sync(&self.out, Call::Fsync);
        file.say_place(&self.out);
        if let Some(old) = &self.checkpoint {
            old.say_displaced(&self.out);
        }
        fs::rename(&tmp, &path)?;
        file.path = path;
        file.say_name(&self.out, &file.path);
        self.checkpoint = Some(file);
        sync_dir(&self.out, &self.dir)?;
        Ok(())
    }

    /// A new segment is written and synced, and the one before it deleted.
    fn roll(&mut self) -> io::Result<()> {
        self.rolls += 1;
        let path = self.dir.join(format!("{:020}.log", self.rolls));
        let bytes = BLOCK_BYTES * 8;
        let segment = SyncedFile::create(&self.out, &path, bytes, Style::Plain)?;
        segment.sync(&self.out, Call::Fsync);
        segment.say_place(&self.out);
        if let Some(old) = self.segment.replace(segment) {
            let deleted = old.path.with_extension("log.deleted");
            fs::rename(&old.path, &deleted)?;
            old.say_name(&self.out, &deleted);
            old.say_displaced(&self.out);
            fs::remove_file(&deleted)?;
        }
        Ok(())
    }

    fn start_background(&mut self) -> io::Result<()> {
        if self.background_due.is_some() {
            return Ok(());
        }
        let offset = self.random.below(8) * BLOCK_BYTES as u64;
        self.background.write(offset, &self.block.0)?;
        self.background.start_writeback(&self.out);
        let after = self.random.between(BACKGROUND_MS.0, BACKGROUND_MS.1);
        self.background_due = Some(Instant::now() + Duration::from_millis(after));
        Ok(())
    }

    fn finish_background(&mut self) {
        self.background_due = None;
        self.background.sync(&self.out, Call::Fsync);
    }

    /// Before a rest: what is owed is done, and each descriptor is told of the
    /// errors that wait for it.
    pub(super) fn settle(&mut self) {
        self.background_due = None;
        for file in [&self.log, &self.index, &self.background] {
            file.settle(&self.out);
        }
        if let Some(segment) = &self.segment {
            segment.settle(&self.out);
        }
    }

    /// Says where its files lie.
    pub(super) fn say_places(&self) {
        for file in [&self.log, &self.index, &self.background] {
            file.say_place(&self.out);
        }
    }
}

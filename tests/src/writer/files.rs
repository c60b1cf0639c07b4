//! The files of a broker: partitions with segment and indexes, checkpoints by
//! way of a `.tmp` and a rename, meta.properties. Sizes and order of the calls
//! are Kafka's. Which error came from which file is kept, since the broker's
//! line depends on it.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::config::{SyncCall, WriterConfig};
use super::sync::{Map, Syncer};

/// Kafka's `segment.index.bytes`, cut down to whole entries.
const INDEX_BYTES: usize = 10_485_760;
const TIMEINDEX_BYTES: usize = 10_485_756;

/// What failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// write to the segment.
    Append(io::Error),
    /// The sync of the segment, or of the directory that got it.
    FlushLog(io::Error),
    /// The msync of an index.
    FlushIndex(io::Error),
}

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// Number of its log.dir.
    pub(super) log_dir: usize,
    /// `topic-number`.
    pub(super) name: String,
    /// The next offset.
    pub(super) offset: u64,
    dir: PathBuf,
    is_dir_synced: bool,
    log: File,
    log_bytes: u64,
    index: Map,
    timeindex: Map,
    record: Vec<u8>,
}

impl Partition {
    fn open(config: &WriterConfig, log_dir: usize, name: String) -> io::Result<Self> {
        let dir = config.log_dirs[log_dir].join(&name);
        fs::create_dir_all(&dir)?;
        let open = |ext: &str| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(dir.join(format!("{:020}.{ext}", 0)))
        };
        let map = |ext: &str, bytes: usize| {
            let file = open(ext)?;
            file.set_len(bytes as u64)?;
            Map::new(&file, bytes)
        };
        Ok(Partition {
            log: open("log")?,
            index: map("index", INDEX_BYTES)?,
            timeindex: map("timeindex", TIMEINDEX_BYTES)?,
            log_bytes: 0,
            record: vec![0; config.record_bytes as usize],
            is_dir_synced: false,
            dir,
            log_dir,
            name,
            offset: 0,
        })
    }

    /// Appends one record and flushes, as `log.flush.interval.messages=1` does;
    /// what is to happen between the two is `between`.
    pub(super) fn append_and_flush(
        &mut self,
        config: &WriterConfig,
        syncer: &Syncer,
        between: impl FnOnce(),
    ) -> Result<(), Failure> {
        self.append(config).map_err(Failure::Append)?;
        self.index.put(self.offset * 8, &self.offset.to_be_bytes());
        let mut entry = [0; 12];
        entry[..8].copy_from_slice(&self.offset.to_be_bytes());
        self.timeindex.put(self.offset * 12, &entry);
        // Kafka's "offset N (exclusive)" counts the record at hand.
        self.offset += 1;
        between();
        if !self.is_dir_synced {
            // Of a new segment, the name has to last as well.
            let dir = File::open(&self.dir).map_err(Failure::FlushLog)?;
            syncer.fsync(&dir).map_err(Failure::FlushLog)?;
            self.is_dir_synced = true;
        }
        self.sync(config.sync, syncer).map_err(Failure::FlushLog)?;
        if config.msync {
            syncer.msync(&self.index).map_err(Failure::FlushIndex)?;
            syncer.msync(&self.timeindex).map_err(Failure::FlushIndex)?;
        }
        Ok(())
    }

    /// Appends one record, at the start again when the segment is full.
    pub(super) fn append(&mut self, config: &WriterConfig) -> io::Result<()> {
        if self.log_bytes >= config.segment_bytes {
            self.log.seek(SeekFrom::Start(0))?;
            self.log_bytes = 0;
        }
        self.record.fill(self.offset as u8);
        self.log.write_all(&self.record)?;
        self.log_bytes += config.record_bytes;
        Ok(())
    }

    /// Syncs the segment.
    pub(super) fn sync(&self, call: SyncCall, syncer: &Syncer) -> io::Result<()> {
        syncer.sync(&self.log, call)
    }
}

/// The names of the checkpoints in a log.dir.
pub(super) const CHECKPOINTS: [&str; 3] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
];

/// Writes one checkpoint: `.tmp`, fsync, rename, fsync of the directory.
pub(super) fn write_checkpoint(path: &Path, text: &str, syncer: &Syncer) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = File::create(&tmp)?;
    file.write_all(text.as_bytes())?;
    syncer.fsync(&file)?;
    fs::rename(&tmp, path)?;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    syncer.fsync(&File::open(dir)?)
}

/// `directory.id` of a log.dir: 22 characters of base64, as all ids of Kafka.
pub(super) fn directory_id(log_dir: usize) -> String {
    format!("bGFiLXdyaXRlci1kaXI{log_dir:03}")
}

/// Makes a log.dir known as one. Not synced: that was done when it was
/// formatted, long before.
fn write_meta_properties(config: &WriterConfig, log_dir: usize) -> io::Result<()> {
    let dir = &config.log_dirs[log_dir];
    fs::create_dir_all(dir)?;
    let text = format!(
        "#\nversion=1\ncluster.id=bGFiLXdyaXRlci1vZi10cw\nnode.id={}\ndirectory.id={}\n",
        config.node_id,
        directory_id(log_dir)
    );
    fs::write(dir.join("meta.properties"), text)
}

/// Makes the log.dirs and all partitions; syncs nothing.
pub(super) fn open_partitions(config: &WriterConfig) -> io::Result<Vec<Partition>> {
    for log_dir in 0..config.log_dirs.len() {
        write_meta_properties(config, log_dir)?;
    }
    let dealt = config.deal_partitions().into_iter();
    dealt
        .map(|(log_dir, name)| Partition::open(config, log_dir, name))
        .collect()
}

//! Names the file of a failed msync that no file system has named: one that fails
//! before it gets there (ext4 that was shut down) has only an address. In: events
//! from the ring. Out: the same, once a helper has said what is mapped there; it
//! is asked while the event waits, so that a capture holds the answer. Also that of
//! one that hangs and was not named.

use std::path::Path;

use tokio::sync::mpsc;

use crate::{
    event::{Event, FileId, SyncEvent},
    helper::{HelperCommand, MappedFile, Worker, WorkerHandle},
    run::{asks, live::Input, tables::RootSlot},
};

/// Names kept of a file: its own and its parents', as the kernel side keeps them.
const MAX_NAMES: usize = 4;
/// Events that wait at once; in a storm the rest goes on without a name.
const MAX_WAITING: usize = 16;

/// A sync whose file was asked for.
pub(super) struct Named {
    sync: SyncEvent,
    found: Option<MappedFile>,
}

/// See the module's comment.
pub(super) struct Namer {
    worker: WorkerHandle,
    tx: mpsc::Sender<Input>,
    waiting: usize,
}

impl Namer {
    /// Must be called within the runtime; its helper starts at the first question.
    pub fn new(tx: mpsc::Sender<Input>) -> Self {
        Self {
            worker: Worker::new(HelperCommand::default()).into_handle(),
            tx,
            waiting: 0,
        }
    }

    /// Events that have not come back. Each does: the question has a deadline.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Keeps back an event whose file is to be asked for: it comes back as an
    /// input, for [`Self::take`]. Any other comes back at once.
    pub fn keep(&mut self, event: Event) -> Option<Event> {
        let sync = match event {
            Event::Sync(sync) if is_nameless(&sync) && self.waiting < MAX_WAITING => sync,
            other => return Some(other),
        };
        self.waiting += 1;
        let (worker, tx) = (self.worker.clone(), self.tx.clone());
        tokio::spawn(async move {
            let found = asks::mapped(&worker, sync.pid, sync.arg0).await;
            let _ = tx.send(Input::Named(Box::new(Named { sync, found }))).await;
        });
        None
    }

    /// An event has come back: with its file, if one was found.
    pub fn take(&mut self, named: Named, roots: &[RootSlot]) -> Event {
        let Named { mut sync, found } = named;
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(found) = found {
            name(&mut sync, &found, roots);
        }
        Event::Sync(sync)
    }
}

fn is_nameless(sync: &SyncEvent) -> bool {
    sync.op == "msync" && sync.ret < 0 && sync.file.s_dev == 0
}

fn name(sync: &mut SyncEvent, found: &MappedFile, roots: &[RootSlot]) {
    sync.file = FileId {
        s_dev: found.s_dev,
        ino: found.ino,
    };
    name_by_path(sync, &found.path, roots, |root| root.s_dev == found.s_dev);
}

/// Names the file of a sync that hangs, where no hook of its file system did (xfs of
/// 5.10): by its descriptor, which says nothing of its inode.
pub(super) fn name_hanging(sync: &mut SyncEvent, path: &Path, roots: &[RootSlot]) {
    if sync.file.s_dev == 0 && sync.names.is_empty() {
        name_by_path(sync, path, roots, |_| true);
    }
}

fn name_by_path(
    sync: &mut SyncEvent,
    path: &Path,
    roots: &[RootSlot],
    is_on: impl Fn(&RootSlot) -> bool,
) {
    let names = path.iter().rev().take(MAX_NAMES);
    sync.names = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    sync.nr_files = 1;
    let root = roots.iter().position(|root| {
        root.broker == sync.broker && is_on(root) && path.starts_with(Path::new(&root.path))
    });
    if let Some(root) = root {
        sync.root = root as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_sync_is_named_by_its_path_unless_it_has_a_file() {
        let roots = [("/d1", 9), ("/d2", 7)]
            .map(|(path, s_dev)| RootSlot::new(0, path.to_owned(), s_dev, 2));
        let path = Path::new("/d2/orders-0/00.log");
        let mut sync = SyncEvent {
            op: "fsync".to_owned(),
            root: u16::MAX,
            ..SyncEvent::default()
        };
        name_hanging(&mut sync, path, &roots);
        assert_eq!((sync.root, sync.file.clone()), (1, FileId::default()));
        assert_eq!(sync.names, ["00.log", "orders-0", "d2", "/"]);
        let mut known = SyncEvent {
            file: FileId { s_dev: 9, ino: 3 },
            root: 0,
            ..SyncEvent::default()
        };
        name_hanging(&mut known, path, &roots);
        assert_eq!((known.root, known.names.len()), (0, 0));
    }

    #[test]
    fn a_found_mapping_names_file_and_log_directory() {
        let roots = [("/d", 8), ("/d1", 9), ("/d1", 7)]
            .map(|(path, s_dev)| RootSlot::new(0, path.to_owned(), s_dev, 2));
        let mut sync = SyncEvent {
            op: "msync".to_owned(),
            ret: -5,
            root: u16::MAX,
            ..SyncEvent::default()
        };
        assert!(is_nameless(&sync));
        let found = MappedFile {
            s_dev: 7,
            ino: 42,
            path: "/d1/orders-0/00.index".into(),
        };
        name(&mut sync, &found, &roots);
        assert_eq!((sync.root, sync.file.ino, sync.nr_files), (2, 42, 1));
        assert_eq!(sync.names, ["00.index", "orders-0", "d1", "/"]);
        assert!(!is_nameless(&sync));
    }
}

//! What the loop does by the clock: looks for brokers and drivers, at syncs that
//! hang, at losses and at what the disks moved. In: the maps. Out: events.

use std::collections::BTreeSet;

use super::*;

impl Live {
    pub(super) fn on_tick(&mut self) {
        let offset = offset_ns();
        if (offset - self.offset_ns).abs() > CLOCK_STEP_NS {
            self.offset_ns = offset;
            self.feed(Event::Clock { offset_ns: offset });
        }
        if self.ticks.is_multiple_of(DISCOVER_EVERY_TICKS) {
            self.ask_for_brokers();
            self.make_histograms();
            self.feed_written();
            self.forget_ended();
            self.feed_losses();
            self.look_for_drivers();
            self.look_for_disks();
        } else if self.has_slow {
            // What the disk moves while a sync waits decides whether it hangs.
            self.feed_written();
        }
        self.look_at_syncs();
        for event in self.logs.flush(monotonic_ns()) {
            self.ask_for_space(&event);
            self.feed(event);
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        self.feed(Event::Tick);
        self.ticks += 1;
    }

    /// Those that the kernel had no memory for.
    fn make_histograms(&mut self) {
        let made = (self.shared.tables().hists).make(&mut self.shared.maps());
        if let Err(error) = made {
            log::warn!("{error:#}");
        }
    }

    fn look_for_drivers(&mut self) {
        let (states, programs) = self.drivers.look();
        self.shared.counts().programs.extend(programs);
        for state in states {
            self.feed(Event::Hook(state));
        }
    }

    fn feed_written(&mut self) {
        let written = scan::written_bytes(&self.shared.maps(), self.config.detail);
        if written != self.written {
            self.written.clone_from(&written);
            self.feed(Event::DiskBytes { written });
        }
    }

    fn ask_for_brokers(&mut self) {
        if self.is_discovering {
            return;
        }
        self.is_discovering = true;
        let request = DiscoverRequest {
            proc_root: PathBuf::from("/proc"),
            pids: self.config.pids.clone(),
            skip_pids: self.skip_pids.clone(),
            log_dirs: self.config.log_dirs.clone(),
        };
        let (finder, tx) = (self.finder.clone(), self.tx.clone());
        // Those that could not be resolved are not asked for each second.
        let tables = self.shared.tables();
        let mut known: BTreeSet<u32> = tables.devices.keys().copied().collect();
        known.extend(tables.roots.iter().map(|root| root.s_dev));
        drop(tables);
        tokio::spawn(async move {
            let result = asks::brokers(&finder, request, &known).await;
            let _ = tx.send(Input::Discovered(result)).await;
        });
    }

    /// Syncs that are slow already: asks /proc whether they really hang.
    fn look_at_syncs(&mut self) {
        if self.is_looking {
            return;
        }
        let (syncs, requests) = {
            let maps = self.shared.maps();
            let syncs = scan::syncs_in_flight(&maps, monotonic_ns(), self.config.slow_ns);
            self.has_slow = !syncs.is_empty();
            if syncs.is_empty() {
                return;
            }
            (syncs, scan::outstanding(&maps, self.masks))
        };
        self.is_looking = true;
        let (watcher, tx) = (self.watcher.clone(), self.tx.clone());
        let roots = self.shared.tables().roots.clone();
        tokio::spawn(async move {
            let mut event = InFlightEvent { syncs, requests };
            asks::threads(&watcher, &mut event.syncs, &roots).await;
            let _ = tx.send(Input::Threads(Box::new(event))).await;
        });
    }

    fn forget_ended(&mut self) {
        let unseen = scan::forget_ended(&mut self.shared.maps(), Path::new("/proc"));
        if unseen > 0 {
            let mut counts = self.shared.counts();
            *counts
                .lost
                .entry(Loss::LostExit.name().to_owned())
                .or_default() += unseen;
        }
    }

    pub(super) fn feed_losses(&mut self) {
        let mut total = scan::losses(&self.shared.maps());
        for (class, count) in &self.shared.counts().lost {
            *total.entry(class.clone()).or_default() += count;
        }
        if total != self.told_lost {
            self.told_lost.clone_from(&total);
            self.feed(Event::Losses { total });
        }
    }
}

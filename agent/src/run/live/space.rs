//! A line that says a file system has no room: whether that is so is asked at once,
//! in a helper. In: events of brokers' logs. Out: [`Event::Space`], through the loop.

use super::*;

impl Live {
    /// One question at a time: the first of many lines is answered.
    pub(super) fn ask_for_space(&mut self, event: &Event) {
        let Event::BrokerLog(line) = event else {
            return;
        };
        let is_full = line.storage.errno == Some(libc::ENOSPC) && !line.history;
        let dir = line.storage.dir.clone().filter(|dir| dir.starts_with('/'));
        let (true, false, Some(dir)) = (is_full, self.is_asking_space, dir) else {
            return;
        };
        let broker = line.broker;
        let pid = {
            let tables = self.shared.tables();
            let slot = tables.brokers.get(usize::from(broker));
            slot.map(|slot| slot.broker.pid)
        };
        let Some(pid) = pid else { return };
        self.is_asking_space = true;
        let (finder, tx) = (self.finder.clone(), self.tx.clone());
        tokio::spawn(async move {
            let space = asks::space(&finder, pid, PathBuf::from(&dir)).await;
            let event = space.map(|space| SpaceEvent { broker, dir, space });
            let _ = tx.send(Input::Space(event)).await;
        });
    }
}

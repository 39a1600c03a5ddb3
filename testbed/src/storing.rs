//! A page store that is gone at a bad moment: the process has to run in exactly one place, with everything that it had.

use std::thread;
use std::time::Duration;

use crate::godwit::{Godwit, Moved, Place};
use crate::pair::Pair;
use crate::path::{Path, StoreFault};
use crate::workload::Run;

/// How long a store is away that comes back.
const AWAY: Duration = Duration::from_secs(2);

impl Godwit {
    /// Moves it with a store that is killed at a moment; some come back.
    pub(crate) fn lose_store(&self, pair: &Pair, run: &Run, fault: StoreFault) -> Moved {
        let text = |error: crate::error::Error| error.to_string();
        let (path, moment) = match fault {
            StoreFault::GoneBefore | StoreFault::BackBefore => (Path::Flushing, Some("before send")),
            StoreFault::BackAfter => (Path::Flushing, None),
            StoreFault::GoneAfter => (Path::FreezeFree, Some("before serve pages")),
        };
        let mut receive = self.receive(&pair.destination, run, false, None)?;
        let mut store = self.store(&pair.destination, run)?;
        let (target, address) = (self.target(&pair.destination), self.store_target(&pair.destination));
        let pause = moment.map(|moment| format!("pause:{moment}"));
        let strategy = path.strategy().unwrap_or_default();
        let pid = run.pid.to_string();
        let arguments = ["migrate", &pid, &target, "--strategy", strategy, "--pages", &address];
        let migrate = self.call(&pair.source, run, &arguments, pause.as_deref()).map_err(text)?;
        let ended = if let Some(moment) = moment {
            let stopped = self.await_stopped(&pair.source, moment)?;
            store.kill();
            stopped.send_signal(crate::godwit::SIGCONT).map_err(|error| error.to_string())?;
            if fault == StoreFault::BackBefore {
                thread::sleep(AWAY);
                store = self.store(&pair.destination, run)?;
            }
            migrate.end()?
        } else {
            let ended = migrate.end()?;
            store.kill();
            thread::sleep(AWAY);
            store = self.store(&pair.destination, run)?;
            ended
        };
        store.forget();
        let (status, said) = ended;
        let place = match (status.success(), fault) {
            (false, StoreFault::GoneBefore) if said.contains("GW1307") => Place::Source,
            (true, StoreFault::BackBefore | StoreFault::BackAfter | StoreFault::GoneAfter) => Place::Destination,
            _ => {
                receive.kill();
                return Err(said);
            }
        };
        // The other side may still be taking away what it had of it.
        match self.settle(pair, run) {
            Ok(found) if found == place => {
                receive.forget();
                Ok(place)
            }
            found => {
                receive.kill();
                Err(format!("the process is not where it should be ({found:?}): {said}"))
            }
        }
    }
}

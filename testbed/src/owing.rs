//! Moves after which the process is owed pages by the source: what becomes of it when one of the two, or the link, is gone meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use crate::godwit::{Call, Godwit, Moved, PATIENCE, Place, state};
use crate::kill::{Role, engines};
use crate::pair::Pair;
use crate::path::Path;
use crate::program;
use crate::workload::Run;

const SIGINT: i32 = 2;

/// Looks in a row that must see it run at the source.
const STAYS: u32 = 50;

impl Godwit {
    /// One move after which the source stays what the process depends on: it does not end before the process does.
    pub(crate) fn migrate_on_reference(&self, path: Path, pair: &Pair, run: &Run) -> Moved {
        let mut receive = self.receive(&pair.destination, run, false, None)?;
        let (pid, target) = (run.pid.to_string(), self.target(&pair.destination));
        let strategy = path.strategy().unwrap_or_default();
        let arguments = ["migrate", &pid, &target, "--strategy", strategy];
        let migrate = self.call(&pair.source, run, &arguments, None).map_err(|error| error.to_string())?;
        let mut migrate = Some(migrate);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // What will become its root is made before the freeze and is godwit's own program until then: it counts for nothing.
            let is_itself = self.is_foreign(&pair.destination, run.pid);
            let [from, to] = [&pair.source, &pair.destination].map(|host| state(host, run.pid));
            let stands = from.is_none_or(|state| matches!(state, 'T' | 't'));
            let runs = is_itself && to.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X'));
            if stands && (runs || program::has_ended_well(run)) {
                migrate.into_iter().for_each(Call::forget);
                receive.forget();
                return Ok(Place::Destination);
            }
            if let Some(mut call) = migrate.take() {
                match call.ended() {
                    // It needed nothing, and was waited for no longer.
                    Ok(Some(status)) if status.success() => call.forget(),
                    Ok(None) if Instant::now() < deadline => migrate = Some(call),
                    _ => {
                        let told = format!("{:?}; destination: {}", call.end(), receive.complaints());
                        receive.kill();
                        return Err(told);
                    }
                }
            } else if Instant::now() > deadline {
                receive.kill();
                return Err("the process is not where it was moved to".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The same, and then all that it is owed is fetched: the source ends, and nothing tells any more that it ever owed anything.
    pub(crate) fn migrate_and_settle(&self, pair: &Pair, run: &Run) -> Moved {
        let (mut receive, mut migrate) = self.begin_on_reference(pair, run)?;
        let deadline = Instant::now() + PATIENCE;
        // It is owed something as soon as it runs there, and nothing when it has asked for all of it by then.
        let settled = loop {
            match self.done(&pair.destination, run, &["settle"]) {
                Ok(said) if !said.contains("no more") => {}
                settled => break settled,
            }
            if migrate.ended().is_ok_and(|ended| ended.is_some()) || Instant::now() > deadline {
                break Ok(String::new());
            }
        };
        let moved = migrate.end().and_then(|(status, said)| if status.success() { Ok(()) } else { Err(said) });
        let place = settled.and(moved).and_then(|()| self.settle(pair, run));
        if place.is_err() {
            receive.kill()
        } else {
            receive.forget()
        }
        place
    }

    /// The same, but it is the user who has enough of `migrate`: all that is owed leaves before it ends.
    pub(crate) fn migrate_and_interrupt(&self, pair: &Pair, run: &Run) -> Moved {
        let (mut receive, mut migrate) = self.begin_on_reference(pair, run)?;
        let deadline = Instant::now() + PATIENCE;
        // Before it owes anything it would be the move that is cancelled.
        let owes = || self.done(&pair.source, run, &["residual"]).is_ok_and(|said| said.contains(": owes "));
        while migrate.ended().is_ok_and(|ended| ended.is_none()) && !owes() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        for (_, handle) in engines(&self.program, &pair.source, false).iter().filter(|(role, _)| *role == Role::Migrate)
        {
            // One that needed nothing more has ended by itself.
            let _ = handle.send_signal(SIGINT);
        }
        let moved = migrate.end().and_then(|(status, said)| if status.success() { Ok(()) } else { Err(said) });
        let place = moved.and_then(|()| self.settle(pair, run));
        if place.is_err() {
            receive.kill()
        } else {
            receive.forget()
        }
        place
    }

    fn begin_on_reference(&self, pair: &Pair, run: &Run) -> Result<(Call, Call), String> {
        let receive = self.receive(&pair.destination, run, false, None)?;
        let (pid, target) = (run.pid.to_string(), self.target(&pair.destination));
        let arguments = ["migrate", &pid, &target, "--strategy", "copy-on-reference"];
        let migrate = self.call(&pair.source, run, &arguments, None).map_err(|error| error.to_string())?;
        Ok((receive, migrate))
    }

    /// One side's engine dies while pages are owed. The source's guardian serves on; without the destination's engine the process cannot
    /// go on there, and the user lets the source's go on from where it was stopped.
    pub(crate) fn kill_while_owing(&self, pair: &Pair, run: &Run, side: Place, moment: &str) -> Moved {
        let observe = format!("die:{moment}");
        let die = |place: Place| (place == side).then_some(observe.as_str());
        let mut receive = self.receive(&pair.destination, run, true, die(Place::Destination))?;
        let (pid, target) = (run.pid.to_string(), self.target(&pair.destination));
        let arguments = ["migrate", &pid, &target, "--strategy", "post-copy"];
        let migrate = self.call(&pair.source, run, &arguments, die(Place::Source));
        let ended = migrate.map_err(|error| error.to_string())?.end();
        let place = match side {
            Place::Source => self.settle(pair, run),
            Place::Destination => self.settle_losses(pair, run),
        };
        receive.kill();
        place.map_err(|said| format!("{said}; migrate: {ended:?}"))
    }

    /// Waits until it runs at the destination, or is gone there: then it is let go on at the source, as the user is told to.
    fn settle_losses(&self, pair: &Pair, run: &Run) -> Moved {
        let deadline = Instant::now() + PATIENCE;
        let hosts = [&pair.source, &pair.destination];
        let mut stayed = 0;
        loop {
            let states = hosts.map(|host| state(host, run.pid));
            let runs = states.map(|state| state.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X')));
            match (runs, states) {
                ([true, true], _) => return Err("the process runs in both places".to_owned()),
                ([false, true], [None, _]) => return Ok(Place::Destination),
                // The commit was not in the journal. One look is no proof: who is let go to be held stopped looks as if it ran.
                ([true, false], [_, None]) if stayed >= STAYS => return Ok(Place::Source),
                ([false, false], [Some('T'), None]) => break,
                _ if Instant::now() > deadline => return Err(format!("states at source and destination: {states:?}")),
                (runs, _) => {
                    stayed = if runs == [true, false] { stayed + 1 } else { 0 };
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let mut recover =
            self.call(&pair.source, run, &["recover"], None).map_err(|error| format!("recover: {error}"))?;
        while recover.ended().map_err(|error| error.to_string())?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let said = recover.complaints();
        let number = said.split_once("migration ").and_then(|(_, rest)| rest.get(..32)).map(str::to_owned);
        let number = number.ok_or(format!("recover names no migration: {said:?}"))?;
        self.done(&pair.source, run, &["recover", "--resume", &number])?;
        self.settle(pair, run)
    }
}

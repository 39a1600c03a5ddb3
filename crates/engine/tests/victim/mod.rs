//! A process that a test freezes: the test's own program once more, in which the test named `victim` works and says a word a round.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this process is the victim.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("GODWIT_VICTIM").is_some()
}

/// A victim; ended with the test, however that ends.
pub(crate) struct Victim {
    child: Child,
    rounds: Arc<AtomicU64>,
}

impl Victim {
    pub(crate) fn start() -> Victim {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env("GODWIT_VICTIM", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let rounds = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rounds);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                counted.fetch_add(u64::from(line == "round"), Ordering::Relaxed);
            }
        });
        let mut victim = Victim { child, rounds };
        victim.goes_on(2, "begins");
        victim
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for so many rounds more.
    pub(crate) fn goes_on(&mut self, rounds: u64, when: &str) {
        let (before, begin) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        while self.rounds.load(Ordering::Relaxed) < before + rounds {
            assert!(begin.elapsed() < PATIENCE, "it stands still, {when}: {:?}", self.child.try_wait());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Waited for it is when this process ends, which may trace a thread of it still.
        let _ = self.child.kill();
    }
}

//! What the tests of commands stand on: two hosts, a directory that both see, a receiver, and the reading of answers.
use godwit_testbed::{Host, HostCommand, Options, Pair, leftover};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const GODWIT: &str = env!("CARGO_BIN_EXE_godwit");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that both hosts see and that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/var/tmp/godwit-test-{name}-{}", leftover::process_name()));
        // Numbers of processes and namespaces come again: who was killed may have left this.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory in /var/tmp");
        Scratch(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The last whole number that the counter wrote.
    pub(crate) fn count(&self) -> u64 {
        let text = std::fs::read_to_string(self.path("count")).unwrap_or_default();
        text.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn await_count(&self, least: u64) {
        let begin = Instant::now();
        while self.count() < least {
            assert!(begin.elapsed() < PATIENCE, "the counter stands at {} and not at {least}", self.count());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two hosts, or the reason why this machine cannot have them.
pub(crate) fn pair(scratch: &Scratch) -> Option<Pair> {
    let options =
        Options { executable: Some(PathBuf::from(GODWIT)), shared: vec![scratch.0.clone()], ..Options::default() };
    match Pair::new(&options) {
        Ok(pair) => {
            // Hosts count alike: let the source be the one that has already run something.
            let advance = "echo 5000 > /proc/sys/kernel/ns_last_pid";
            let status = pair.source.command("/bin/sh").args(["-c", advance]).status().expect("sh");
            assert!(status.success(), "numbers cannot be advanced");
            Some(pair)
        }
        Err(godwit_testbed::Error::Refused(reason)) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn godwit(host: &Host, arguments: &[&str]) -> Output {
    host.command(GODWIT).args(arguments).output().expect("godwit runs")
}

pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "one object: {text}");
    serde_json::from_str(&text).expect("JSON on standard output")
}

pub(crate) fn alive(host: &Host, pid: u32) -> bool {
    Path::new(&format!("/proc/{}/root/proc/{pid}", host.init_pid())).exists()
}

/// `godwit receive` in a host, and the address that it listens on.
pub(crate) struct Receiver {
    child: std::process::Child,
    pub(crate) address: String,
}

impl Receiver {
    pub(crate) fn start(host: &Host, further: &[&str]) -> Receiver {
        let listen = format!("{}:0", host.address());
        Receiver::of(host.command(GODWIT).args(["receive", "--listen", &listen]).args(further))
    }

    /// Something that says that it listens, as the receiver does.
    pub(crate) fn of(command: HostCommand<'_>) -> Receiver {
        use std::io::{BufRead, BufReader};
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("godwit receive");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();
        Receiver { child, address }
    }

    pub(crate) fn destination(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

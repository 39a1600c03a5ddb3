//! The commands as a user meets them: real processes in hosts made of namespaces, exit codes, one JSON object on standard
//! output. Without root or namespaces each test says so and does nothing.
use godwit_testbed::{Host, Options, Pair};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const GODWIT: &str = env!("CARGO_BIN_EXE_godwit");
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that both hosts see and that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/var/tmp/godwit-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory in /var/tmp");
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The last whole number that the counter wrote.
    fn count(&self) -> u64 {
        let text = std::fs::read_to_string(self.path("count")).unwrap_or_default();
        text.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0)
    }

    fn await_count(&self, least: u64) {
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
fn pair(scratch: &Scratch) -> Option<Pair> {
    let options =
        Options { executable: Some(PathBuf::from(GODWIT)), shared: vec![scratch.0.clone()], ..Options::default() };
    match Pair::new(&options) {
        Ok(pair) => Some(pair),
        Err(godwit_testbed::Error::Refused(reason)) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A program that counts into a file, line by line; every line is one write. No number may be missing or come twice.
fn start_counter(host: &Host, scratch: &Scratch) -> u32 {
    let script =
        format!("exec >> {}; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done", scratch.path("count").display());
    host.command("/bin/sh").args(["-c", &script]).detach().expect("the counter")
}

fn godwit(host: &Host, arguments: &[&str]) -> Output {
    host.command(GODWIT).args(arguments).output().expect("godwit runs")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "one object: {text}");
    serde_json::from_str(&text).expect("JSON on standard output")
}

fn alive(host: &Host, pid: u32) -> bool {
    Path::new(&format!("/proc/{}/root/proc/{pid}", host.init_pid())).exists()
}

/// Every number once, in order.
fn assert_unbroken(scratch: &Scratch) {
    let text = std::fs::read_to_string(scratch.path("count")).expect("the counter's file");
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().enumerate().all(|(index, number)| *number == index as u64 + 1), "{numbers:?}");
}

#[test]
fn checkpoint_and_restore_go_on_where_they_stopped() {
    let scratch = Scratch::new("checkpoint");
    let Some(pair) = pair(&scratch) else { return };
    let host = &pair.source;
    let pid = start_counter(host, &scratch).to_string();
    scratch.await_count(5);
    let check = godwit(host, &["check", "--json", &pid]);
    assert!(check.status.success(), "{check:?}");
    assert_eq!(json(&check)["blocked"], 0);
    let directory = scratch.path("checkpoint");
    let directory = directory.to_str().expect("UTF-8");
    let taken = godwit(host, &["checkpoint", "--json", &pid, directory]);
    assert!(taken.status.success(), "{taken:?}");
    assert!(!alive(host, pid.parse().expect("a number")), "without --leave-running the tree ends");
    let stopped_at = scratch.count();
    assert!(godwit(host, &["image", "verify", directory]).status.success());
    let shown = godwit(host, &["image", "show", "--map", directory]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("count"), "the descriptor's path is shown");
    // Elsewhere, with the same number.
    let restored = godwit(&pair.destination, &["restore", "--detach", directory]);
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(String::from_utf8_lossy(&restored.stdout).trim(), pid);
    scratch.await_count(stopped_at + 10);
    assert_unbroken(&scratch);
    // Its number is taken now: a second copy is refused, by code.
    let second = godwit(&pair.destination, &["restore", "--detach", "--json", directory]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(json(&second)["refusals"][0]["code"], "GW1202");
}

#[test]
fn a_checkpoint_may_leave_the_tree_running() {
    let scratch = Scratch::new("leave");
    let Some(pair) = pair(&scratch) else { return };
    let pid = start_counter(&pair.source, &scratch).to_string();
    scratch.await_count(5);
    let directory = scratch.path("checkpoint");
    let taken = godwit(&pair.source, &["checkpoint", "--leave-running", &pid, directory.to_str().expect("UTF-8")]);
    assert!(taken.status.success(), "{taken:?}");
    scratch.await_count(scratch.count() + 10);
    assert_unbroken(&scratch);
}

#[test]
fn restore_in_the_foreground_exits_with_the_programs_own_status() {
    let scratch = Scratch::new("status");
    let Some(pair) = pair(&scratch) else { return };
    let go = scratch.path("go");
    let script = format!("while ! test -e {}; do sleep 0.02; done; exit 42", go.display());
    let pid = pair.source.command("/bin/sh").args(["-c", &script]).detach().expect("a program").to_string();
    std::thread::sleep(Duration::from_millis(100));
    let directory = scratch.path("checkpoint");
    let directory = directory.to_str().expect("UTF-8");
    let taken = godwit(&pair.source, &["checkpoint", &pid, directory]);
    assert!(taken.status.success(), "{taken:?}");
    std::fs::write(&go, "").expect("a file");
    let ended = godwit(&pair.source, &["restore", directory]);
    assert_eq!(ended.status.code(), Some(42), "{ended:?}");
}

#[test]
fn what_cannot_be_carried_is_refused_by_name_and_goes_on() {
    let scratch = Scratch::new("refused");
    let Some(pair) = pair(&scratch) else { return };
    let script = format!(
        "import socket,time\ns=socket.socket()\ns.bind(('127.0.0.1',7777))\ns.listen()\nf=open('{}','w',buffering=1)\nn=0\n\
         while True:\n n+=1\n print(n,file=f)\n time.sleep(0.02)\n",
        scratch.path("count").display()
    );
    let pid = pair.source.command("python3").args(["-c", &script]).detach().expect("python3").to_string();
    scratch.await_count(5);
    let check = godwit(&pair.source, &["check", "--json", &pid]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let findings = json(&check);
    assert_eq!(findings["blocked"], 1, "{findings}");
    let directory = scratch.path("checkpoint");
    let taken = godwit(&pair.source, &["checkpoint", "--json", &pid, directory.to_str().expect("UTF-8")]);
    assert_eq!(taken.status.code(), Some(1), "{taken:?}");
    assert!(json(&taken)["refusals"][0]["subject"].as_str().is_some_and(|subject| subject.contains("socket")));
    assert!(!directory.exists(), "refused before anything was written");
    scratch.await_count(scratch.count() + 5);
    assert_unbroken(&scratch);
}

#[test]
fn damaged_and_unfinished_checkpoints_are_recognised() {
    let scratch = Scratch::new("damaged");
    let Some(pair) = pair(&scratch) else { return };
    let pid = start_counter(&pair.source, &scratch).to_string();
    scratch.await_count(3);
    let directory = scratch.path("checkpoint");
    let name = directory.to_str().expect("UTF-8");
    assert!(godwit(&pair.source, &["checkpoint", &pid, name]).status.success());
    let pages = directory.join("godwit.pages");
    let mut bytes = std::fs::read(&pages).expect("pages");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pages, &bytes).expect("pages");
    let restored = godwit(&pair.source, &["restore", "--json", name]);
    assert_eq!(json(&restored)["refusals"][0]["code"], "GW1004", "{restored:?}");
    assert!(!alive(&pair.source, pid.parse().expect("a number")), "nothing of it was resumed or left behind");
    std::fs::rename(directory.join("godwit.image"), directory.join("godwit.image.partial")).expect("renamed");
    let unfinished = godwit(&pair.source, &["restore", "--json", name]);
    assert_eq!(json(&unfinished)["refusals"][0]["code"], "GW1401", "{unfinished:?}");
}

#[test]
fn every_code_is_explained_and_nonsense_is_a_usage_error() {
    let run = |arguments: &[&str]| {
        std::process::Command::new(GODWIT).args(arguments).stdin(Stdio::null()).output().expect("godwit runs")
    };
    let list = run(&["explain", "--json"]);
    let codes = json(&list)["codes"].as_array().cloned().unwrap_or_default();
    assert!(codes.len() > 20);
    for code in codes {
        let code = code["code"].as_str().unwrap_or_default().to_owned();
        let one = run(&["explain", &code]);
        assert!(one.status.success() && String::from_utf8_lossy(&one.stdout).contains("What to do"), "{code}");
    }
    for nonsense in
        [&["explain", "GW9999"][..], &["check", "--edge", "x", "1"], &["check"], &["restore", "--no-such-flag"]]
    {
        assert_eq!(run(nonsense).status.code(), Some(2), "{nonsense:?}");
    }
    let gone = run(&["check", "--json", "4194304"]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(json(&gone)["refusals"][0]["code"], "GW1001");
}

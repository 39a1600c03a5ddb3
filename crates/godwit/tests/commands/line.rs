//! The commands as a user meets them: a counter that is checkpointed, restored, moved, and whose engines die at every step.
use crate::scene::{GODWIT, PATIENCE, Receiver, Scratch, alive, godwit, json, pair};
use godwit_testbed::{Host, Pair};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// A program that counts into a file, line by line; every line is one write. No number may be missing or come twice.
fn start_counter(host: &Host, scratch: &Scratch) -> u32 {
    let script =
        format!("exec >> {}; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done", scratch.path("count").display());
    host.command("/bin/sh").args(["-c", &script]).detach().expect("the counter")
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

/// Watches a socket that cannot be carried and a pipe, and counts what comes through the pipe.
const WATCHER: &str = "
import os, select, socket, sys
cut = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
os.dup2(cut.fileno(), 77)
cut.close()
reader, writer = os.pipe()
watch = select.epoll()
watch.register(77, select.EPOLLIN)
watch.register(reader, select.EPOLLIN)
counts = open(sys.argv[1], 'a', buffering=1)
count = 0
while True:
    os.write(writer, b'x')
    assert watch.poll(5) == [(reader, select.EPOLLIN)]
    os.read(reader, 1)
    assert watch.poll(0.02) == []
    count += 1
    print(count, file=counts)
";

#[test]
fn what_the_user_gives_up_leaves_the_sets_that_watch_it() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no /usr/bin/python3");
        return;
    }
    for choice in ["77=null", "77=close"] {
        let scratch = Scratch::new(&format!("edge-{}", choice.len()));
        let Some(pair) = pair(&scratch) else { return };
        let count = scratch.path("count");
        let watcher = pair.source.command("/usr/bin/python3").args(["-c", WATCHER]).arg(&count);
        let pid = watcher.detach().expect("the watcher").to_string();
        scratch.await_count(5);
        let refused = godwit(&pair.source, &["check", "--json", &pid]);
        assert!(!refused.status.success() && json(&refused)["blocked"] == 1, "{refused:?}");
        let check = godwit(&pair.source, &["check", "--edge", choice, &pid]);
        assert!(check.status.success(), "{check:?}");
        let directory = scratch.path("checkpoint").display().to_string();
        let taken = godwit(&pair.source, &["checkpoint", "--edge", choice, &pid, &directory]);
        assert!(taken.status.success(), "{taken:?}");
        let stopped_at = scratch.count();
        let restored = godwit(&pair.destination, &["restore", "--detach", &directory]);
        assert!(restored.status.success(), "{restored:?}");
        scratch.await_count(stopped_at + 5);
        assert_unbroken(&scratch);
    }
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

#[test]
fn migrate_there_and_back_ten_times() {
    let scratch = Scratch::new("migrate");
    let Some(pair) = pair(&scratch) else { return };
    let pid = start_counter(&pair.source, &scratch);
    scratch.await_count(5);
    let receivers = [Receiver::start(&pair.source, &[]), Receiver::start(&pair.destination, &[])];
    let hosts = [&pair.source, &pair.destination];
    for round in 0..10 {
        let (from, to) = (round % 2, (round + 1) % 2);
        let target = receivers[to].destination();
        let check = godwit(hosts[from], &["check", &pid.to_string(), "--to", &target]);
        assert!(check.status.success(), "{check:?}");
        let moved = godwit(hosts[from], &["migrate", "--json", &pid.to_string(), &target]);
        assert!(moved.status.success(), "round {round}: {moved:?}");
        let report = json(&moved);
        assert_eq!(report["outcome"], "moved");
        assert_eq!(report["destination_pid"], pid);
        for name in ["preparation_ms", "down_ms", "post_ms", "total_ms"] {
            assert!(report[name].as_f64().is_some_and(|time| time >= 0.0), "{report}");
        }
        assert!(
            report["bytes_sent"].as_u64() > Some(4096)
                && report["pages_total"].as_u64() >= report["pages_sent"].as_u64()
        );
        assert!(alive(hosts[to], pid) && !alive(hosts[from], pid), "it runs in exactly one place");
        scratch.await_count(scratch.count() + 3);
    }
    assert_unbroken(&scratch);
}

#[test]
fn a_number_in_use_at_the_destination_is_no_obstacle_or_refused_before_the_freeze() {
    let scratch = Scratch::new("numbers");
    let Some(pair) = pair(&scratch) else { return };
    let pid = start_counter(&pair.source, &scratch);
    scratch.await_count(5);
    // The same number is taken there, by something else.
    let taken = "import os,sys\nopen('/proc/sys/kernel/ns_last_pid','w').write(sys.argv[1])\nos.fork() or os.execvp('sleep',['sleep','1000'])";
    let number = (pid - 1).to_string();
    pair.destination.command("python3").args(["-c", taken, &number]).status().expect("python3");
    assert!(alive(&pair.destination, pid), "the number is taken");
    let receiver = Receiver::start(&pair.destination, &[]);
    let moved = godwit(&pair.source, &["migrate", "--json", &pid.to_string(), &receiver.destination()]);
    if moved.status.success() {
        assert!(!alive(&pair.source, pid));
    } else {
        assert_eq!(json(&moved)["refusals"][0]["code"], "GW1202", "{moved:?}");
        assert!(alive(&pair.source, pid));
    }
    scratch.await_count(scratch.count() + 5);
    assert_unbroken(&scratch);
}

/// The names of all steps that one side goes through in a whole move, in order.
fn steps(pair: &Pair, scratch: &Scratch, side: &str) -> Vec<String> {
    let list = scratch.path("steps");
    let observe = format!("list:{}", list.display());
    let pid = start_counter(&pair.source, scratch).to_string();
    scratch.await_count(3);
    let moved = migrate_observed(pair, &pid, side, &observe);
    assert!(moved.status.success(), "{moved:?}");
    pair.destination.command("/bin/kill").args(["-9", &pid]).status().expect("kill");
    let text = std::fs::read_to_string(&list).expect("the list of steps");
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        if !names.iter().any(|name| name == line) {
            names.push(line.to_owned());
        }
    }
    names
}

fn migrate_observed(pair: &Pair, pid: &str, side: &str, observe: &str) -> Output {
    let (at_source, at_destination): (&[&str], &[&str]) =
        if side == "source" { (&["--observe", observe], &[]) } else { (&[], &["--observe", observe]) };
    let receiver = Receiver::start(&pair.destination, at_destination);
    let target = receiver.destination();
    let mut arguments = vec!["migrate", "--json", pid, target.as_str()];
    arguments.extend(at_source);
    godwit(&pair.source, &arguments)
}

/// Kills one side at each step of the hand-off; the counter must go on in exactly one place, without a gap or a doubled number,
/// at once or after `godwit recover`.
fn die_at_each_step(side: &str) {
    let scratch = Scratch::new(&format!("die-{side}"));
    let Some(pair) = pair(&scratch) else { return };
    let steps = steps(&pair, &scratch, side);
    assert!(steps.len() > 10, "{steps:?}");
    for step in steps {
        let _ = std::fs::remove_file(scratch.path("count"));
        let pid = start_counter(&pair.source, &scratch);
        scratch.await_count(5);
        let moved = migrate_observed(&pair, &pid.to_string(), side, &format!("die:{step}"));
        // Guardians finish what the dead left; what they cannot is for recover.
        let begin = Instant::now();
        let before = scratch.count();
        while scratch.count() < before + 5 && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
            if begin.elapsed() > Duration::from_secs(5) {
                godwit(&pair.destination, &["recover"]);
                godwit(&pair.source, &["recover"]);
            }
        }
        let places = usize::from(alive(&pair.source, pid)) + usize::from(alive(&pair.destination, pid));
        println!("{side} died {step}: goes on after {:?} in {places} place", begin.elapsed());
        assert_eq!(places, 1, "{side} died {step}: {moved:?}");
        assert!(scratch.count() >= before + 5, "{side} died {step}: it does not go on: {moved:?}");
        assert_unbroken(&scratch);
        let host = if alive(&pair.source, pid) { &pair.source } else { &pair.destination };
        host.command("/bin/kill").args(["-9", &pid.to_string()]).status().expect("kill");
    }
}

#[test]
fn the_source_may_die_at_any_step() {
    die_at_each_step("source");
}

#[test]
fn the_destination_may_die_at_any_step() {
    die_at_each_step("destination");
}

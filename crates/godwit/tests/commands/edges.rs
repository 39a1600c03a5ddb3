//! Edges of the tree, each with each choice, end to end: what the program wrote before the move came out at the source, and
//! what it wrote after the move came out where its user chose, with no line lost, doubled or torn.
use crate::scene::{GODWIT, PATIENCE, Receiver, Scratch, alive, godwit, json, pair};
use godwit_testbed::{Host, Pair};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// Counts to descriptor 1, and into a log of its own, with what became of each write. A second argument is written into a file: its number.
const COUNTER: &str = "
import os, sys, time
name, log, number = sys.argv[1], open(sys.argv[2], 'a', buffering=1), sys.argv[3]
with open(number + '.new', 'w') as file: file.write(str(os.getpid()))
os.rename(number + '.new', number)
n = 0
while True:
    n += 1
    said = 'written'
    try: os.write(1, b'%s %d\\n' % (name.encode(), n))
    except OSError as error: said = os.strerror(error.errno)
    log.write('%d %s\\n' % (n, said))
    time.sleep(0.01)
";

/// The other side, outside of the tree: it reads all that comes and appends it to a file.
const SIDES: [(&str, &str); 3] = [
    ("pipe", "r, w = os.pipe()"),
    ("socket", "a, b = socket.socketpair(); r, w = a.detach(), b.detach()"),
    ("terminal", "r, w = pty.openpty(); tty.setraw(w)"),
];

const OUTSIDE: &str = "
import os, pty, socket, subprocess, sys, tty
SIDE
child = subprocess.Popen([sys.executable, '-c', sys.argv[1], 'a', sys.argv[2], sys.argv[3]], stdout=w, start_new_session=True)
os.close(w)
with open(sys.argv[4], 'ab', buffering=0) as out:
    while True:
        try: got = os.read(r, 65536)
        except OSError: got = b''
        if not got: break
        out.write(got)
child.wait()
";

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The numbers of the lines that begin with a name.
fn numbers(text: &str, name: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name).and_then(|rest| rest.trim().split(' ').next()?.parse().ok()))
        .collect()
}

fn assert_unbroken(what: &str, numbers: &[u64]) {
    assert!(!numbers.is_empty(), "{what}: nothing came");
    assert!(numbers.iter().enumerate().all(|(index, number)| *number == index as u64 + 1), "{what}: {numbers:?}");
}

/// A counter whose descriptor 1 leads out of its tree.
struct Run {
    directory: PathBuf,
    pid: String,
}

impl Run {
    fn start(host: &Host, scratch: &Scratch, name: &str, side: &str) -> Run {
        let directory = scratch.path(name);
        fs::create_dir_all(&directory).expect("a directory");
        let path = |name: &str| directory.join(name).display().to_string();
        let outside = OUTSIDE.replace("SIDE", side);
        let arguments = ["-c", &outside, COUNTER, &path("log"), &path("number"), &path("received")];
        host.command("python3").args(arguments).detach().expect("python3");
        await_that("the counter counts", || numbers(&text(&directory.join("log")), "").len() > 3);
        let pid = text(&directory.join("number"));
        Run { directory, pid }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// It writes on, and says so in its log.
    fn await_progress(&self) -> Vec<String> {
        let lines = || text(&self.path("log")).lines().map(str::to_owned).collect::<Vec<_>>();
        let before = lines().len();
        await_that("it goes on", || lines().len() > before + 5);
        lines().split_off(before)
    }

    /// What the choice made of descriptor 1, and what was written on it.
    fn assert_chosen(&self, host: &Host, choice: &str) {
        let since = self.await_progress();
        let link = fs::read_link(format!("/proc/{}/root/proc/{}/fd/1", host.init_pid(), self.pid));
        let received = numbers(&text(&self.path("received")), "a");
        match choice {
            "close" => {
                assert!(link.is_err(), "it is closed: {link:?}");
                assert!(since.last().is_some_and(|line| line.ends_with("Bad file descriptor")), "{since:?}");
            }
            "null" => {
                assert_eq!(link.expect("a descriptor"), Path::new("/dev/null"));
                assert!(since.last().is_some_and(|line| line.ends_with("written")), "{since:?}");
            }
            _ => {
                let chosen = self.path("chosen");
                assert_eq!(link.expect("a descriptor"), chosen);
                let behind = text(&chosen);
                let behind = behind.strip_prefix("what was there\n").expect("what was there is not overwritten");
                let mut all = received.clone();
                all.extend(numbers(behind, "a"));
                assert_unbroken("before and after", &all);
            }
        }
        assert_unbroken("before", &received);
        assert_unbroken("its log", &numbers(&text(&self.path("log")), ""));
    }

    fn end(&self, host: &Host) {
        host.command("/bin/kill").args(["-9", &self.pid]).status().expect("kill");
        await_that("it ends", || !alive(host, self.pid.parse().expect("a number")));
    }
}

fn assert_done(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {output:?}");
}

/// Refused without a choice; `check` agrees with the others.
fn assert_refused_without(pair: &Pair, run: &Run, target: &str) {
    for arguments in [vec!["check", "--json", &run.pid], vec!["migrate", "--json", &run.pid, target]] {
        let output = godwit(&pair.source, &arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(json(&output).to_string().contains("GW1102"), "{output:?}");
    }
}

#[test]
fn every_choice_for_every_edge_by_migrate() {
    let scratch = Scratch::new("edges-migrate");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let target = receiver.destination();
    for (name, side) in SIDES {
        for choice in ["file", "null", "close"] {
            let what = format!("{name}-{choice}");
            let run = Run::start(&pair.source, &scratch, &what, side);
            assert_refused_without(&pair, &run, &target);
            let chosen = run.path("chosen");
            fs::write(&chosen, "what was there\n").expect("a file");
            let edge = match choice {
                "file" => format!("fd:1=file:{}", chosen.display()),
                other => format!("1={other}"),
            };
            let check = godwit(&pair.source, &["check", &run.pid, "--to", &target, "--edge", &edge]);
            assert_done(&format!("check {what}"), &check);
            let moved = godwit(&pair.source, &["migrate", "--json", &run.pid, &target, "--edge", &edge]);
            assert_done(&what, &moved);
            run.assert_chosen(&pair.destination, choice);
            run.end(&pair.destination);
        }
        // There is nobody to inherit from.
        let run = Run::start(&pair.source, &scratch, &format!("{name}-inherit"), side);
        let refused = godwit(&pair.source, &["migrate", "--json", &run.pid, &target, "--edge", "1=inherit"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(json(&refused).to_string().contains("nothing to inherit"), "{refused:?}");
        run.await_progress();
        run.end(&pair.source);
    }
}

#[test]
fn every_choice_for_every_edge_by_checkpoint_and_restore() {
    let scratch = Scratch::new("edges-restore");
    let Some(pair) = pair(&scratch) else { return };
    for (name, side) in SIDES {
        for choice in ["file", "null", "close", "inherit"] {
            let what = format!("{name}-{choice}");
            let run = Run::start(&pair.source, &scratch, &what, side);
            let (chosen, place) = (run.path("chosen"), run.path("checkpoint").display().to_string());
            fs::write(&chosen, "what was there\n").expect("a file");
            let edge = match choice {
                "file" => format!("1=file:{}", chosen.display()),
                other => format!("fd:1={other}"),
            };
            let refused = godwit(&pair.source, &["checkpoint", "--json", &run.pid, &place]);
            assert_eq!(json(&refused)["refusals"][0]["code"], "GW1102", "{refused:?}");
            assert_done(&what, &godwit(&pair.source, &["checkpoint", &run.pid, &place, "--edge", &edge]));
            let mut restore = pair.destination.command(GODWIT).args(["restore", "--detach", "--json", &place]);
            if choice == "inherit" {
                // As a shell would: `godwit restore DIR >> chosen`; an answer on standard output would come out there, too.
                let script = format!("exec {GODWIT} --quiet restore {place} >> {}", chosen.display());
                let mut child = pair.destination.command("/bin/sh").args(["-c", &script]).stdin(Stdio::null());
                child = child.stderr(Stdio::null());
                let mut child = child.spawn().expect("sh");
                await_that("it runs", || alive(&pair.destination, run.pid.parse().expect("a number")));
                run.assert_chosen(&pair.destination, choice);
                run.end(&pair.destination);
                let ended = child.wait().expect("restore ends");
                assert_eq!(ended.code(), Some(128 + 9), "the program's own end");
                continue;
            }
            restore = restore.stdin(Stdio::null());
            assert_done(&what, &restore.output().expect("godwit runs"));
            run.assert_chosen(&pair.destination, choice);
            run.end(&pair.destination);
        }
    }
}

/// One open description under several numbers in several processes: one choice is for all of them.
#[test]
fn a_choice_holds_for_everybody_who_shares_the_description() {
    let scratch = Scratch::new("edges-shared");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let directory = scratch.path("shared");
    fs::create_dir_all(&directory).expect("a directory");
    let path = |name: &str| directory.join(name).display().to_string();
    fs::write(path("counter.py"), COUNTER).expect("a program");
    // Two counters on one pipe, which the first process of the tree holds three times.
    let script = format!(
        "{{ exec 5>&1 6>&1; python3 {0}/counter.py a {0}/log.a {0}/number.a & python3 {0}/counter.py b {0}/log.b {0}/number.b & \
         echo $$ > {0}/number; wait; }} | cat >> {0}/received",
        directory.display()
    );
    // The braces are a process of their own: a subshell.
    let script = script.replace("echo $$", "sh -c 'echo $PPID'");
    pair.source.command("/bin/sh").args(["-c", &script]).detach().expect("sh");
    await_that("both count", || ["log.a", "log.b"].iter().all(|log| text(&directory.join(log)).lines().count() > 3));
    let pid = text(&directory.join("number")).trim().to_owned();
    let second = text(&directory.join("number.b"));
    let chosen = path("chosen");
    fs::write(&chosen, "").expect("a file");
    let target = receiver.destination();
    // Two choices for one description are none.
    let edges = [format!("{pid}:1=null"), format!("{second}:5=file:{chosen}")];
    let torn = godwit(&pair.source, &["migrate", "--json", &pid, &target, "--edge", &edges[0], "--edge", &edges[1]]);
    assert_eq!(torn.status.code(), Some(2), "{torn:?}");
    assert!(json(&torn).to_string().contains("same open description"), "{torn:?}");
    assert_done("shared", &godwit(&pair.source, &["migrate", &pid, &target, "--edge", &edges[1]]));
    let before = ["log.a", "log.b"].map(|log| text(&directory.join(log)).lines().count());
    await_that("both go on", || {
        ["log.a", "log.b"]
            .iter()
            .zip(before)
            .all(|(log, before)| text(&directory.join(log)).lines().count() > before + 5)
    });
    for holder in [&pid, &second, &text(&directory.join("number.a"))] {
        for number in [1, 5, 6] {
            let link = fs::read_link(format!("/proc/{}/root/proc/{holder}/fd/{number}", pair.destination.init_pid()));
            assert_eq!(link.expect("a descriptor"), Path::new(&chosen), "{holder} {number}");
        }
    }
    // One position for all: nobody overwrites the other.
    let all = format!("{}{}", text(&directory.join("received")), text(Path::new(&chosen)));
    assert_unbroken("a", &numbers(&all, "a"));
    assert_unbroken("b", &numbers(&all, "b"));
}

#[test]
fn senseless_choices_are_refused_before_anything_is_touched() {
    let scratch = Scratch::new("edges-wrong");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let run = Run::start(&pair.source, &scratch, "wrong", SIDES[0].1);
    let outside = fs::read_to_string(format!("/proc/{}/root/proc/{}/stat", pair.source.init_pid(), run.pid));
    let outside =
        outside.expect("stat").rsplit_once(") ").expect("stat").1.split(' ').nth(1).expect("a parent").to_owned();
    let fifo = run.path("fifo").display().to_string();
    assert!(pair.source.command("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let missing = run.path("missing/file").display().to_string();
    let pid = &run.pid;
    #[rustfmt::skip]
    let wrong: Vec<(String, i32, &str)> = vec![
        ("77=null".into(), 2, "has no descriptor 77"),
        (format!("{pid}:77=null"), 2, "has no descriptor 77"),
        (format!("{outside}:1=null"), 2, "is not in the tree"),
        ("4000000:1=null".into(), 2, "is not in the tree"),
        ("0:1=null".into(), 2, "not a process number"),
        ("-1=null".into(), 2, "not a descriptor number"),
        ("x=null".into(), 2, "not a descriptor number"),
        ("1".into(), 2, "expected"),
        ("1=".into(), 2, "expected file:/ABSOLUTE/PATH"),
        ("1=nothing".into(), 2, "expected file:/ABSOLUTE/PATH"),
        ("1=file:relative".into(), 2, "expected file:/ABSOLUTE/PATH"),
        ("1=file:".into(), 2, "expected file:/ABSOLUTE/PATH"),
        (format!("1=file:{missing}"), 1, "GW1201"),
        ("0=file:/no/such/file".into(), 1, "GW1201"),
        // Nobody reads it there: opening it would wait for ever.
        (format!("1=file:{fifo}"), 1, "No such device or address"),
        ("1=file:/var".into(), 1, "Is a directory"),
    ];
    let target = receiver.destination();
    for (edge, code, says) in wrong {
        let option = format!("--edge={edge}");
        let mut arguments = vec!["migrate", "--json", pid, &target, &option];
        arguments.extend(edge.starts_with("0=").then_some("--edge=1=null"));
        let output = godwit(&pair.source, &arguments);
        assert_eq!(output.status.code(), Some(code), "{edge}: {output:?}");
        assert!(json(&output).to_string().contains(says), "{edge}: {output:?}");
        run.await_progress();
    }
    assert_unbroken("all came out", &numbers(&text(&run.path("received")), "a"));
    // What is inherited has to be there: restore's own internal descriptors are not.
    let place = run.path("checkpoint").display().to_string();
    let edges = ["--edge", "1=close", "--edge", "3=inherit"];
    assert_done("checkpoint", &godwit(&pair.source, &[&["checkpoint", pid, &place][..], &edges].concat()));
    let output = godwit(&pair.destination, &["restore", "--detach", "--json", &place]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(json(&output).to_string().contains("was not given it"), "{output:?}");
}

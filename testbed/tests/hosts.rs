//! Two hosts stand on this machine, are apart, reach each other, and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use godwit_linux::namespace::{self, Namespaces, User};
use godwit_testbed::{Host, Options, Pair, leftover};

/// One at a time: each compares the machine before and after.
static MACHINE: Mutex<()> = Mutex::new(());

fn options() -> Options {
    Options { executable: Some(env!("CARGO_BIN_EXE_testbed").into()), ..Options::default() }
}

fn said(host: &Host, script: &str) -> String {
    let output = host.command("sh").arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a host could leave behind: links, mounts, namespaces, processes of this executable, records.
fn machine() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let lines =
        |path: &str| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    seen.extend(lines("/proc/self/mountinfo"));
    seen.extend(lines("/proc/net/dev").iter().filter_map(|line| Some(line.split_once(':')?.0.to_owned())));
    // Records lie in a directory for each PID namespace; those of others come and go.
    let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    for directory in ["/run/netns", &format!("/run/godwit-testbed/pid-{namespace}")] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        seen.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        for kind in ["net", "pid", "mnt", "uts", "ipc"] {
            // Only namespaces other than this test's own: other programs of the machine may come and go.
            let mine = fs::read_link(format!("/proc/self/ns/{kind}")).ok();
            let Ok(namespace) = fs::read_link(process.join("ns").join(kind)) else { continue };
            let program = fs::read_link(process.join("exe")).unwrap_or_default();
            if Some(&namespace) != mine.as_ref() && program == Path::new(env!("CARGO_BIN_EXE_testbed")) {
                seen.insert(format!("{} in {}", process.display(), namespace.display()));
            }
        }
    }
    seen
}

#[test]
fn two_hosts_are_apart_and_reach_each_other() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = machine();
    let pair = Pair::new(&options()).unwrap();
    let (source, destination) = (&pair.source, &pair.destination);

    assert_eq!(said(source, "hostname"), "source");
    assert_eq!(said(destination, "hostname"), "destination");
    assert_eq!(said(source, "cat /proc/1/comm"), "testbed");
    for path in ["/tmp", "/run", "/dev/shm", "/dev/mqueue"] {
        said(source, &format!("touch {path}/only-here 2>/dev/null || echo > {path}/only-here"));
        assert!(!Path::new(path).join("only-here").exists(), "{path} is the machine's");
        assert_eq!(said(destination, &format!("ls {path}")).matches("only-here").count(), 0, "{path} is shared");
    }
    let ids: Vec<u32> =
        [source, destination].map(|host| host.command("sleep").arg("60").detach().unwrap()).into_iter().collect();
    for (host, id) in [(source, ids[0]), (destination, ids[1])] {
        assert!(id < 100, "an id of its own namespace: {id}");
        let stat = said(host, &format!("cat /proc/{id}/stat"));
        let fields: Vec<&str> = stat.split(' ').collect();
        assert_eq!(fields[1], "(sleep)");
        assert_eq!(fields[3], "1", "adopted by the reaper: {stat}");
        assert_eq!(fields[5], id.to_string(), "leads its own session: {stat}");
        assert_eq!(said(host, &format!("readlink /proc/{id}/fd/0 /proc/{id}/fd/1")), "/dev/null\n/dev/null");
    }
    // The same id alive in both at once.
    let mut same = Vec::new();
    for host in [source, destination] {
        said(host, "echo 400 > /proc/sys/kernel/ns_last_pid; sleep 60 >/dev/null 2>&1 & echo $! > /run/id");
        same.push(said(host, "kill -0 $(cat /run/id) && cat /run/id"));
    }
    assert_eq!(same[0], same[1]);

    // TCP from source to destination.
    let address = destination.address();
    let listener = namespace::inside(destination.network(), Namespaces::NETWORK, || TcpListener::bind((address, 7000)))
        .unwrap()
        .unwrap();
    let sent = namespace::inside(source.network(), Namespaces::NETWORK, || {
        let mut stream = TcpStream::connect((address, 7000))?;
        std::io::Write::write_all(&mut stream, b"over the link")?;
        stream.peer_addr()
    });
    assert_eq!(sent.unwrap().unwrap().ip(), address);
    let (mut stream, from) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), from.ip()), ("over the link", source.address().into()));

    drop((stream, listener));
    drop(pair);
    assert_eq!(machine(), before);
}

#[test]
fn a_reaper_collects_orphans() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pair = Pair::new(&options()).unwrap();
    said(&pair.source, "for i in 1 2 3; do (sleep 0.05 & ) ; done; sleep 0.3");
    assert_eq!(said(&pair.source, "cat /proc/[0-9]*/stat | grep -c ' Z ' || true"), "0");
}

#[test]
fn a_program_runs_as_a_user_in_a_directory() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pair = Pair::new(&options()).unwrap();
    let user = User { user: 1000, group: 1000, supplementary: vec![4, 20] };
    let command = pair.source.command("sh").args(["-c", "id -u; id -g; id -G; pwd; grep CapEff /proc/self/status"]);
    let output = command.user(Some(user.clone())).directory("/tmp").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "1000\n1000\n1000 4 20\n/tmp\nCapEff:\t0000000000000000\n");
    let id = pair.source.command("sleep").arg("60").user(Some(user)).detach().unwrap();
    let status = said(&pair.source, &format!("grep -E '^(Uid|Gid|Groups)' /proc/{id}/status"));
    let words: Vec<&str> = status.split_ascii_whitespace().collect();
    assert_eq!(
        words,
        ["Uid:", "1000", "1000", "1000", "1000", "Gid:", "1000", "1000", "1000", "1000", "Groups:", "4", "20"]
    );
}

#[test]
fn a_program_that_cannot_run_is_an_error() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pair = Pair::new(&options()).unwrap();
    assert!(pair.source.command("/no/such/program").output().is_err());
    let error = pair.source.command("/no/such/program").detach().unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
}

#[test]
fn clocks_are_apart() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pair = Pair::new(&Options { clocks: Some([5000, 0]), ..options() }).unwrap();
    let up = |host| said(host, "cut -d. -f1 /proc/uptime").parse::<i64>().unwrap();
    let ahead = up(&pair.source) - up(&pair.destination);
    assert!((4999..=5001).contains(&ahead), "{ahead}");
}

#[test]
fn a_cut_link_loses_what_is_sent_and_heals() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut pair = Pair::new(&options()).unwrap();
    let address = pair.destination.address();
    let listener =
        namespace::inside(pair.destination.network(), Namespaces::NETWORK, || TcpListener::bind((address, 7000)));
    let _listener = listener.unwrap().unwrap();
    let connect = |pair: &Pair| {
        let patience = Duration::from_millis(300);
        namespace::inside(pair.source.network(), Namespaces::NETWORK, || {
            TcpStream::connect_timeout(&(address, 7000).into(), patience)
        })
        .unwrap()
    };
    connect(&pair).unwrap();
    pair.link.cut().unwrap();
    connect(&pair).unwrap_err();
    pair.link.heal().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = connect(&pair) {
        assert!(Instant::now() < deadline, "not healed: {error}");
    }
}

#[test]
fn a_shaped_link_is_as_slow_as_asked() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pair = Pair::new(&options()).unwrap();
    let address = pair.destination.address();
    let seconds = |bytes: usize| {
        let listener =
            namespace::inside(pair.destination.network(), Namespaces::NETWORK, || TcpListener::bind((address, 0)));
        let listener = listener.unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream =
            namespace::inside(pair.source.network(), Namespaces::NETWORK, || TcpStream::connect((address, port)));
        let mut stream = stream.unwrap().unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || std::io::Write::write_all(&mut stream, &vec![7; bytes]).unwrap());
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert_eq!(received.len(), bytes);
        });
        start.elapsed().as_secs_f64()
    };
    let free = seconds(4_000_000);
    pair.link.shape([&pair.source, &pair.destination], 4_000_000, Duration::from_millis(100)).unwrap();
    let shaped = seconds(4_000_000);
    assert!(free < 0.5, "{free}");
    assert!((0.7..2.5).contains(&shaped), "4 MB at 4 MB/s took {shaped} s");
    pair.link.unshape([&pair.source, &pair.destination]).unwrap();
    let free = seconds(4_000_000);
    assert!(free < 0.5, "{free}");
}

#[test]
fn a_panic_and_a_killed_maker_leave_nothing_behind() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = machine();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let pair = Pair::new(&options()).unwrap();
        pair.source.command("sleep").arg("60").detach().unwrap();
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_eq!(machine(), before, "after a panic");

    let mut maker = Command::new(env!("CARGO_BIN_EXE_testbed")).arg("stand").stdout(Stdio::piped()).spawn().unwrap();
    let mut text = [0; 16];
    maker.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
    assert_ne!(machine(), before, "the hosts stand");
    maker.kill().unwrap();
    maker.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while leftover::sweep().is_ok() && machine() != before {
        assert!(Instant::now() < deadline, "left: {:?}", machine().difference(&before));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kept_hosts_stand_until_they_are_removed() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = machine();
    assert!(Command::new(env!("CARGO_BIN_EXE_testbed")).arg("up").stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(leftover::sweep().unwrap(), 0, "kept hosts are not leftovers");
    assert_ne!(machine(), before);
    assert_eq!(leftover::remove_kept().unwrap(), 2);
    let deadline = Instant::now() + Duration::from_secs(5);
    while machine() != before {
        assert!(Instant::now() < deadline, "left: {:?}", machine().difference(&before));
        std::thread::sleep(Duration::from_millis(10));
    }
}

//! Moves a counting process between two hosts made of namespaces: whole, and with either side killed at every step. Whatever
//! happens, the numbers that it writes go on one by one: it runs in one place, and loses nothing.
use godwit_migrate::{Observer, destination, source};
use godwit_testbed::{Host, Options, Pair};
use std::ffi::OsString;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

mod communication;

fn main() -> ExitCode {
    godwit_testbed::entry();
    godwit_migrate::entry(|arguments| die_at(arguments.first()?.to_str()?));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["count", file] => count(Path::new(file), 3),
        ["count", file, mebibytes] => count(Path::new(file), mebibytes.parse().unwrap()),
        ["talk", directory] => communication::talk(Path::new(directory)),
        ["migrate", pid, destination, moment] => {
            migrate(pid.parse().unwrap(), destination, moment, source::Options::default())
        }
        ["migrate-later", pid, destination, row, pages] => {
            migrate(pid.parse().unwrap(), destination, "never", communication::options(row, pages))
        }
        ["receive", address, moment] => receive(address, moment),
        _ => test(&words),
    }
}

/// The process that is moved: appends the next number every few milliseconds.
fn count(file: &Path, mebibytes: usize) -> ExitCode {
    const MIB: usize = 1 << 20;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    let filler = vec![7_u8; mebibytes * MIB];
    for number in 0_u64.. {
        file.write_all(format!("{number}\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(3));
        // One part after another of what is large.
        let part = (number as usize).wrapping_mul(3) % (mebibytes - 2) * MIB;
        assert!(filler[part..part + 3 * MIB].iter().all(|byte| *byte == 7));
    }
    ExitCode::SUCCESS
}

/// An observer that kills its process at a moment, or has it do nothing for a while.
fn die_at(moment: &str) -> Option<Observer> {
    let moment = moment.to_owned();
    Some(Box::new(move |now: &str| {
        if std::env::var_os("SHOW").is_some() {
            eprintln!(
                "{:?} {} {now}",
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() % 100_000,
                std::process::id()
            );
        }
        // `MOMENT=FILE`: makes the file and waits until it is gone.
        if let Some(flag) = moment.strip_prefix(now).and_then(|rest| rest.strip_prefix('=')) {
            std::fs::write(flag, "here").unwrap();
            while Path::new(flag).exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // `12 s at MOMENT`: one that is busy hears nothing and, by itself, says nothing.
        if let Some((seconds, begin)) = moment.split_once(" s at ")
            && begin == now
        {
            std::thread::sleep(Duration::from_secs(seconds.parse().unwrap()));
        }
        let die = || godwit_linux::signal::send_to_process(std::process::id() as i32, 9).unwrap();
        if now == moment {
            die();
        }
        // `300 ms after MOMENT`, whatever is being done then.
        if let Some((milliseconds, begin)) = moment.split_once(" ms after ")
            && begin == now
        {
            let pause = Duration::from_millis(milliseconds.parse().unwrap());
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                die();
            });
        }
    }))
}

fn migrate(pid: i32, destination: &str, moment: &str, options: source::Options) -> ExitCode {
    // `seen MOMENT`: pages carry checksums, so all of them are read.
    let (page_checksums, moment) = moment.strip_prefix("seen ").map_or((false, moment), |moment| (true, moment));
    let options = source::Options { observer: die_at(moment), page_checksums, ..options };
    match source::migrate(pid, destination, options, &mut |_| {}) {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(refusals) => {
            refusals.iter().for_each(|refusal| println!("{refusal}"));
            ExitCode::FAILURE
        }
    }
}

fn receive(address: &str, moment: &str) -> ExitCode {
    let listener = TcpListener::bind(address).unwrap();
    println!("listening");
    let options =
        destination::Options { shepherd_arguments: vec![OsString::from(moment)], ..destination::Options::default() };
    for connection in listener.incoming().flatten() {
        let options = options.clone();
        std::thread::spawn(move || match destination::receive(connection, &options, &mut |_| {}, &mut |_| {}) {
            Ok(received) => eprintln!("{received:?}"),
            Err(refusals) => refusals.iter().for_each(|refusal| eprintln!("receive: {refusal}")),
        });
    }
    ExitCode::SUCCESS
}

/// For bash: runs a program with nothing open but its standard streams.
const CLOSE_ALL: &str =
    r#"for f in /proc/self/fd/*; do n=${f##*/}; [ $n -gt 2 ] && eval "exec $n>&-"; done; exec "$0" "$@""#;
const PORT: u16 = 7300;

struct Rig {
    pair: Pair,
    directory: std::path::PathBuf,
    daemon: Child,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn executable() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

fn daemon(host: &Host, moment: &str) -> Child {
    let address = format!("{}:{PORT}", host.address());
    let command = host.command(executable()).args(["receive", &address, moment]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "listening\n");
    child
}

impl Rig {
    fn new(moment: &str, crowded: bool) -> Result<Rig, godwit_testbed::Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("godwit-moving-{}-{number}", godwit_testbed::leftover::process_name()));
        // A killed run's: numbers of namespaces are given again.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let pair = Pair::new(&Options { shared: vec![directory.clone()], ..Options::default() })?;
        if !crowded {
            // From here on, numbers that the destination does not use.
            let script = "echo 5000 >/proc/sys/kernel/ns_last_pid";
            pair.source.command("/bin/sh").args(["-c", script]).status()?;
        }
        let daemon = daemon(&pair.destination, moment);
        Ok(Rig { pair, directory, daemon })
    }

    fn new_cut(at_source: bool, moment: &str) -> Result<Rig, godwit_testbed::Error> {
        let mut rig = Rig::new("never", false)?;
        if !at_source {
            let _ = rig.daemon.kill();
            let _ = rig.daemon.wait();
            let flag = rig.directory.join("flag");
            rig.daemon = daemon(&rig.pair.destination, &format!("{moment}={}", flag.display()));
        }
        Ok(rig)
    }

    /// Waits until it is in one place only: (here, there).
    fn settled(&self) -> Result<(bool, bool), String> {
        let begin = Instant::now();
        loop {
            let (here, there) = (self.runs(&self.pair.source), self.runs(&self.pair.destination));
            if here != there {
                return Ok((here, there));
            }
            if begin.elapsed() > Duration::from_secs(30) {
                return Err(format!("here {here}, there {there}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn start(&self, name: &str) -> (u32, std::path::PathBuf) {
        self.start_large(name, STARTED_MIB)
    }

    fn start_large(&self, name: &str, mebibytes: usize) -> (u32, std::path::PathBuf) {
        let file = self.directory.join(name);
        // What this test's own starter left open is none of the program's business.
        let shell = self.pair.source.command("/bin/bash").args(["-c", CLOSE_ALL]).arg(executable());
        let pid = shell.arg("count").arg(&file).arg(mebibytes.to_string()).detach().unwrap();
        await_growth(&file).unwrap();
        (pid, file)
    }

    fn migrate(&self, pid: u32, moment: &str) -> std::process::Output {
        let destination = format!("tcp://{}:{PORT}", self.pair.destination.address());
        let command = self.pair.source.command(executable()).args(["migrate", &pid.to_string(), &destination, moment]);
        command.stderr(Stdio::inherit()).output().unwrap()
    }

    /// What commands say in the directory in /proc of a process at the source.
    fn look(&self, pid: u32, commands: &str) -> String {
        let script = format!("cd /proc/{pid} && {commands}");
        let output = self.pair.source.command("/bin/sh").args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Bytes that have left the host of a process at the source.
    fn sent(&self, pid: u32) -> u64 {
        let table = self.look(pid, "cat net/dev");
        let links = table.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
        links.filter_map(|(_, counts)| counts.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
    }

    /// Descriptors with what they are, and areas without their sizes: it allocates as it goes on.
    fn shape(&self, pid: u32) -> String {
        self.look(pid, "ls -l fd | awk '{print $9, $11}'; awk '{print $6}' maps | sort | uniq -c; grep Cpus status")
    }

    /// Whether a counting program is there, whatever its number. (The dead have no command line.)
    fn runs(&self, host: &Host) -> bool {
        let script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q ' [c]ount '";
        host.command("/bin/sh").args(["-c", script]).stderr(Stdio::null()).status().unwrap().success()
    }
}

#[rustfmt::skip]
const CUTS: [(bool, &str); 10] = [
    (true, "sent Offer"), (true, "before send"), (true, "sent AllSent"), (true, "received Ready"),
    (true, "after note \"commit sent\" in the journal"), (true, "sent Commit"),
    (false, "before build"), (false, "sent Ready"), (false, "received Commit"), (false, "after resume"),
];

/// Moments of either side, all at the same time, because each takes long; returns how many failed.
fn all_at_once(
    filter: &str,
    moments: &[(bool, &str)],
    named: impl Fn(&str, &str) -> String,
    run: impl Fn(bool, &str) -> Result<String, String> + Sync,
) -> u32 {
    let (failed, run) = (AtomicU32::new(0), &run);
    std::thread::scope(|scope| {
        for (at_source, moment) in moments {
            let name = named(if *at_source { "source" } else { "destination" }, moment);
            if !name.contains(filter) {
                continue;
            }
            let failed = &failed;
            scope.spawn(move || match run(*at_source, moment) {
                Ok(said) => println!("ok {name}: {said}"),
                Err(cause) => {
                    println!("FAILED {name}: {cause}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    failed.into_inner()
}

/// The link is cut at a moment of one side and heals after both must have noticed.
fn cuts(filter: &str) -> u32 {
    all_at_once(filter, &CUTS, |side, moment| format!("link cut at {side}, {moment}"), cut)
}

/// Of each side, what may take it long on a host that has other things to do.
#[rustfmt::skip]
const LONG_DEEDS: [(bool, &str); 7] = [
    (true, "before freeze"), (true, "before capture"), (true, "before hold stopped"),
    (false, "before examine"), (false, "before build"), (false, "before hold stopped"), (false, "before resume"),
];

/// One side is busy for longer than a link may be silent.
fn busy(filter: &str) -> u32 {
    all_at_once(filter, &LONG_DEEDS, |side, moment| format!("{side} is busy {moment}"), stalled)
}

fn stalled(at_source: bool, moment: &str) -> Result<String, String> {
    let silence = Duration::from(godwit_handoff::Patience::default().silence).as_secs();
    let stall = format!("{} s at {moment}", silence + 2);
    let (ours, theirs) = if at_source { (stall.as_str(), "never") } else { ("never", stall.as_str()) };
    let rig = Rig::new(theirs, false).map_err(|error| error.to_string())?;
    let (pid, file) = rig.start("numbers");
    let begin = Instant::now();
    let output = rig.migrate(pid, ours);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(said);
    }
    if begin.elapsed() < Duration::from_secs(silence) {
        return Err("the moment never came".to_owned());
    }
    await_growth(&file)?;
    if rig.settled()? != (false, true) {
        return Err("it runs in the wrong place".to_owned());
    }
    check_numbers(&file)?;
    Ok(format!("{:.1} s", begin.elapsed().as_secs_f64()))
}

fn cut(at_source: bool, moment: &str) -> Result<String, String> {
    let mut rig = Rig::new_cut(at_source, moment).map_err(|error| error.to_string())?;
    let (pid, file) = rig.start("numbers");
    let flag = rig.directory.join("flag");
    let moment = if at_source { format!("{moment}={}", flag.display()) } else { "never".to_owned() };
    let mover = {
        let destination = format!("tcp://{}:{PORT}", rig.pair.destination.address());
        let command = rig.pair.source.command(executable()).args(["migrate", &pid.to_string(), &destination, &moment]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let begin = Instant::now();
    while !flag.exists() {
        if begin.elapsed() > Duration::from_secs(20) {
            return Err("the moment never came".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    rig.pair.link.cut().map_err(|error| error.to_string())?;
    std::fs::remove_file(&flag).unwrap();
    for _ in 0..140 {
        std::thread::sleep(Duration::from_millis(100));
        if rig.runs(&rig.pair.source) && rig.runs(&rig.pair.destination) && goes_on_twice(&file) {
            return Err("it runs twice while the link is cut".to_owned());
        }
    }
    rig.pair.link.heal().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&mover.wait_with_output().unwrap().stdout).into_owned();
    let (here, there) = rig.settled().map_err(|error| format!("{error}; {said}"))?;
    await_growth(&file).map_err(|error| format!("{error}: here {here}, there {there}; {said}"))?;
    check_numbers(&file)?;
    Ok(format!("{}; {}", if here { "here" } else { "there" }, said.lines().next().unwrap_or_default()))
}

/// Where a program of ours runs that was begun with this word.
fn check_place(rig: &Rig, word: &str) -> (bool, bool) {
    let (head, tail) = word.split_at(1);
    let script = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q ' [{head}]{tail} '");
    let runs = |host: &Host| host.command("/bin/sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap();
    (runs(&rig.pair.source).success(), runs(&rig.pair.destination).success())
}

/// A number that is there twice was written by two.
fn goes_on_twice(file: &Path) -> bool {
    check_numbers(file).is_err()
}

/// Waits until the numbers go on.
fn await_growth(file: &Path) -> Result<(), String> {
    let length = || std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let (before, begin) = (length(), Instant::now());
    while length() < before + 20 {
        if begin.elapsed() > Duration::from_secs(20) {
            return Err("it does not go on".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The numbers must be 0, 1, 2, …: a second copy would repeat some, a lost state would leave some out.
fn check_numbers(file: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(file).unwrap();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let mut expected = 0;
    for line in complete.lines() {
        if line.parse() != Ok(expected) {
            return Err(format!("{line:?} instead of {expected}"));
        }
        expected += 1;
    }
    Ok(expected)
}

fn test(words: &[&str]) -> ExitCode {
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or("");
    if words.contains(&"--list") {
        println!("moves: test");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let mut run = |name: &str, test: &dyn Fn(&str) -> Result<(), String>| {
        if !name.contains(filter) {
            return;
        }
        let begin = Instant::now();
        match test(name) {
            Ok(()) => println!("ok {name} ({:.1} s)", begin.elapsed().as_secs_f64()),
            Err(cause) => {
                println!("FAILED {name}: {cause}");
                failed += 1;
            }
        }
    };
    if let Err(error) = Rig::new("never", false) {
        println!("skipped: {error}");
        return ExitCode::SUCCESS;
    }
    for (about, moment) in [("", "never"), (" with checksums of pages", "seen never")] {
        run(&format!("moves{about}"), &|name| moves(name, moment, STARTED_MIB, false));
        run(&format!("moves to where its numbers are taken{about}"), &|name| moves(name, moment, STARTED_MIB, true));
        run(&format!("large memory moves{about}"), &|name| moves(name, moment, SENDING_MIB, false));
    }
    run("moves with a lock on a file that both hosts see", &moves_with_lock);
    for (about, row, fault) in communication::MOVES {
        run(&format!("communicates later{about}"), &|_| communication::later(row, fault));
    }
    for moment in SOURCE_MOMENTS {
        run(&format!("source dies {moment}"), &|_| killed(moment, "never", false));
    }
    for crowded in [false, true] {
        let where_to = if crowded { "own namespace, " } else { "" };
        for moment in DESTINATION_MOMENTS {
            run(&format!("{where_to}destination dies {moment}"), &|_| killed("never", moment, crowded));
        }
    }
    run("source dies while its process sends", &|_| sending("400 ms after before send", Trouble::Died));
    run("link is cut while a process sends", &|_| sending("never", Trouble::Cut));
    run("destination dies while a process sends", &|_| sending("never", Trouble::OtherDied));
    failed += cuts(filter) + busy(filter);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn moves(name: &str, moment: &str, mebibytes: usize, crowded: bool) -> Result<(), String> {
    let rig = Rig::new("never", crowded).map_err(|error| error.to_string())?;
    let (pid, file) = rig.start_large(name, mebibytes);
    let output = rig.migrate(pid, moment);
    println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() {
        return Err(format!("{output:?}"));
    }
    await_growth(&file)?;
    if rig.runs(&rig.pair.source) || !rig.runs(&rig.pair.destination) {
        return Err("it runs in the wrong place".to_owned());
    }
    check_numbers(&file).map(drop)
}

/// Bytes of a process, in MiB: enough to be made before the freeze.
const STARTED_MIB: usize = 40;
/// Bytes of a process that sends for a while, in MiB, and how much of that leaves in a second.
const SENDING_MIB: usize = 96;
const SENDING_RATE: u64 = 40 << 20;
/// Bytes that have left when it is well under way.
const SENT_BEFORE: u64 = 12 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Died,
    OtherDied,
    Cut,
}

/// What the kernel calls the shared memory that our programs lie in; the counting program has none.
const ARENA: &str = "/dev/zero";

/// What happens while the process hands over its pages ends the move, and leaves nothing of ours in the process.
fn sending(moment: &str, trouble: Trouble) -> Result<(), String> {
    let mut rig = Rig::new("never", false).map_err(|error| error.to_string())?;
    let hosts = [&rig.pair.source, &rig.pair.destination];
    if let Err(error) = rig.pair.link.shape(hosts, SENDING_RATE, Duration::from_millis(50)) {
        println!("skipped: {error}");
        return Ok(());
    }
    let (pid, file) = rig.start_large("numbers", SENDING_MIB);
    let before = rig.shape(pid);
    let destination = format!("tcp://{}:{PORT}", rig.pair.destination.address());
    let command = rig.pair.source.command(executable()).args(["migrate", &pid.to_string(), &destination, moment]);
    let mover = command.stdout(Stdio::piped()).spawn().unwrap();
    // While that much leaves, our programs lie in the process: it hands its pages over.
    let begin = Instant::now();
    let mut sends = false;
    while !sends && begin.elapsed() < Duration::from_secs(20) {
        sends = rig.sent(pid) > SENT_BEFORE && rig.look(pid, "cat maps").contains(ARENA);
    }
    let caused = match trouble {
        Trouble::Died => Ok(()),
        Trouble::Cut => rig.pair.link.cut(),
        Trouble::OtherDied => {
            let script =
                "for p in /proc/[0-9]*; do grep -q '__godwit-[s]hepherd' $p/cmdline && kill -KILL ${p#/proc/}; done";
            rig.pair.destination.command("/bin/sh").args(["-c", script]).status().map(drop)
        }
    };
    let output = mover.wait_with_output().unwrap();
    caused.map_err(|error| error.to_string())?;
    if !sends {
        return Err("it never handed anything over".to_owned());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Err(format!("it moved all the same: {said}"));
    }
    await_growth(&file)?;
    check_numbers(&file)?;
    if trouble == Trouble::Cut {
        rig.pair.link.heal().map_err(|error| error.to_string())?;
    }
    if rig.settled()? != (true, false) {
        return Err("it runs in the wrong place".to_owned());
    }
    let after = rig.shape(pid);
    // An engine that died leaves an arena, which the next one takes away.
    let without =
        |text: &str| -> Vec<String> { text.lines().filter(|line| !line.contains(ARENA)).map(str::to_owned).collect() };
    if without(&before) != without(&after) {
        return Err(format!("it was\n{before}and is\n{after}"));
    }
    Ok(())
}

/// A lock is never nobody's: at the source until its tasks have ended, then at the destination before they run.
fn moves_with_lock(_: &str) -> Result<(), String> {
    let rig = Rig::new("never", false).map_err(|error| error.to_string())?;
    let file = rig.directory.join("locked");
    let shell = rig.pair.source.command("/bin/bash").args(["-c", CLOSE_ALL, "/usr/bin/flock"]).arg(&file);
    let pid = shell.args(["sleep", "1000"]).detach().unwrap();
    let try_lock = |host: &Host| host.command("/usr/bin/flock").arg("-n").arg(&file).arg("true").status().unwrap();
    let begin = Instant::now();
    while try_lock(&rig.pair.source).success() {
        if begin.elapsed() > Duration::from_secs(5) {
            return Err("flock does not lock".to_owned());
        }
    }
    let output = rig.migrate(pid, "never");
    println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || try_lock(&rig.pair.destination).success() {
        return Err("moved without its lock, or not at all".to_owned());
    }
    Ok(())
}

#[rustfmt::skip]
const SOURCE_MOMENTS: [&str; 24] = [
    "sent Hello", "received HelloAnswer", "sent Offer", "received Accept",
    "before note \"started\" in the journal", "after note \"started\" in the journal", "before freeze", "after freeze",
    "before capture", "after capture", "before send", "after send", "sent AllSent", "received Ready", "before hold stopped",
    "after hold stopped", "before note \"commit sent\" in the journal", "after note \"commit sent\" in the journal", "sent Commit",
    "received Resumed", "after note \"committed\" in the journal", "after kill", "before note \"done\" in the journal", "sent Goodbye",
];

#[rustfmt::skip]
const DESTINATION_MOMENTS: [&str; 22] = [
    "received Hello", "sent HelloAnswer", "received Offer", "after examine",
    "before note \"accepted\" in the journal", "after note \"accepted\" in the journal", "sent Accept", "received AllSent",
    "before build", "after build", "before hold stopped", "sent Ready", "after hold stopped", "received Commit",
    "before note \"committed\" in the journal", "after note \"committed\" in the journal", "before resume", "sent Resumed",
    "after resume", "before note \"resumed\" in the journal", "after note \"resumed\" in the journal", "received Goodbye",
];

/// One side is killed at a moment: the process must go on in exactly one place.
fn killed(source: &str, destination: &str, crowded: bool) -> Result<(), String> {
    let rig = Rig::new(destination, crowded).map_err(|error| error.to_string())?;
    let (pid, file) = rig.start("numbers");
    let output = rig.migrate(pid, source);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let here = || rig.runs(&rig.pair.source);
    let there = || rig.runs(&rig.pair.destination);
    rig.settled().map_err(|error| format!("{error}; {said}"))?;
    await_growth(&file).map_err(|error| format!("{error}: here {}, there {}; {said}", here(), there()))?;
    let place = (here(), there());
    if place.0 == place.1 {
        return Err(format!("here {}, there {}; {said}", place.0, place.1));
    }
    let numbers = check_numbers(&file)?;
    println!(
        "   {} after {numbers} numbers; {}",
        if place.0 { "here" } else { "there" },
        said.lines().next().unwrap_or("killed")
    );
    Ok(())
}

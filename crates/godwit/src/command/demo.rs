//! `godwit demo`: the main job on one machine: two hosts made of namespaces, a pipeline that works, a move while it works, and
//! the proof that its output equals an unmoved run's.
use crate::arguments::Demo;
use crate::output::{CommandResult, Output, bytes};
use godwit_image::{Code, Refusal, Subject};
use godwit_testbed::{Host, Options, Pair, leftover};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Port of the receiver in the destination host.
const PORT: u16 = 7077;
/// How long any part of the demo may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn failed(what: &str, cause: impl std::fmt::Display) -> Vec<Refusal> {
    vec![Refusal::new(Code::ENVIRONMENT, Subject::Object(what.to_owned()), cause.to_string())]
}

/// The job: several processes with pipes between them and files at the end. Its output depends on every byte.
fn job(directory: &Path, lines: u64) -> String {
    format!(
        "cd {} && seq 1 {lines} | sed 's/$/ godwits fly from Alaska to Tasmania without a stop/' \
         | gzip -9n | tee work.gz | gzip -dc | sha256sum > digest; echo $? > status",
        directory.display()
    )
}

/// A directory that goes with the demo, on storage that both hosts see.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: bool) -> Result<Scratch, Vec<Refusal>> {
        let path = PathBuf::from(format!("/var/tmp/godwit-demo-{}", leftover::process_name()));
        for part in ["moved", "unmoved"] {
            std::fs::create_dir_all(path.join(part)).map_err(|error| failed("/var/tmp", error))?;
        }
        Ok(Scratch { path, keep })
    }

    fn size(&self, part: &str) -> u64 {
        std::fs::metadata(self.path.join(part).join("work.gz")).map_or(0, |metadata| metadata.len())
    }

    fn read(&self, part: &str, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path.join(part).join(name)).ok()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // Only our own directory; what cannot be removed stays in /var/tmp.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

pub(crate) fn run(arguments: &Demo, output: &Output) -> CommandResult {
    if arguments.remove {
        let removed =
            godwit_testbed::leftover::remove_kept().map_err(|error| failed("hosts of earlier demos", error))?;
        output.line(&format!("{removed} hosts ended"));
        return Ok(ExitCode::SUCCESS);
    }
    let own = std::env::current_exe().map_err(|error| failed("this program's file", error))?;
    let mut scratch = Scratch::new(arguments.keep)?;
    output.note(
        "making two hosts on this machine: own network, processes, mounts, names, addresses, and a link between them",
    );
    let options = Options { shared: vec![scratch.path.clone()], ..Options::default() };
    let mut pair = Pair::new(&options).map_err(|error| failed("two hosts", error))?;
    let (source, destination) = (&pair.source, &pair.destination);
    output.note(&format!(
        "  {} {}   {} {}",
        source.name(),
        source.address(),
        destination.name(),
        destination.address()
    ));
    let listen = format!("{}:{PORT}", destination.address());
    let _receiver = Receiver(receiver(destination, &own, &listen)?);

    advance_numbers(source)?;
    output.note("a pipeline begins to work at the source: seq | sed | gzip | tee FILE | gzip -d | sha256sum");
    let shell = job(&scratch.path.join("moved"), arguments.lines);
    let pid = source.command("/bin/sh").args(["-c", &shell]).detach().map_err(|error| failed("the pipeline", error))?;
    let mut unmoved = unmoved(&scratch, arguments.lines)?;
    let begin = Instant::now();
    while scratch.size("moved") < 512 << 10 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    output.note(&format!("  process {pid} and its children; {} written so far", bytes(scratch.size("moved"))));

    output.note(&format!("godwit migrate {pid} tcp://{listen}"));
    let before = scratch.size("moved");
    let report = migrate(source, &own, pid, &listen)?;
    show_time_line(&report, output);
    output.note(&format!(
        "  now {} processes of it at the destination, {} at the source; {} written so far (was {} before the move)",
        processes(destination, &own),
        processes(source, &own),
        bytes(scratch.size("moved")),
        bytes(before),
    ));

    output.note("waiting for its end, and for the same work that was never moved");
    await_file(&scratch, "moved", "status", output)?;
    unmoved.wait().map_err(|error| failed("the unmoved run", error))?;
    await_file(&scratch, "unmoved", "status", output)?;
    let equal = compare(&scratch, &report, output);
    if arguments.keep {
        pair.keep().map_err(|error| failed("keeping the hosts", error))?;
        scratch.keep = true;
        output.note(&format!(
            "the hosts stand: nsenter -a -t {} (source), nsenter -a -t {} (destination); files in {}\n\
             end them with: godwit demo --remove",
            pair.source.init_pid(),
            pair.destination.init_pid(),
            scratch.path.display(),
        ));
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A receiver that ends with the demo. It must be waited for before its host can end: a host's first process does not finish dying
/// while a dead process of it has a parent outside that has not asked for its status.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        // It has ended by itself after the move; after a failure it is still there.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two fresh hosts count alike; real ones do not. The source is the one that has already run something.
fn advance_numbers(source: &Host) -> Result<(), Vec<Refusal>> {
    let advance = "echo 2000 > /proc/sys/kernel/ns_last_pid";
    let status = source.command("/bin/sh").args(["-c", advance]).status();
    status.map_err(|error| failed("the source's process numbers", error)).map(drop)
}

/// `godwit receive` in the destination host, listening.
fn receiver(destination: &Host, own: &Path, listen: &str) -> Result<Child, Vec<Refusal>> {
    let mut receiver = destination
        .command(own)
        .args(["receive", "--listen", listen, "--once"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed("the receiver", error))?;
    await_line(&mut receiver, "listening")?;
    Ok(receiver)
}

/// `godwit migrate` in the source host; its report.
fn migrate(source: &Host, own: &Path, pid: u32, listen: &str) -> Result<Value, Vec<Refusal>> {
    let child = source
        .command(own)
        .args(["migrate", "--json", &pid.to_string(), &format!("tcp://{listen}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed("godwit migrate", error))?;
    let ended = child.wait_with_output().map_err(|error| failed("godwit migrate", error))?;
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null);
    if ended.status.success() {
        Ok(report)
    } else {
        Err(failed("godwit migrate", format!("it ended with {}: {report}", ended.status)))
    }
}

/// Whether moved and unmoved work have the same output, to the last byte.
fn compare(scratch: &Scratch, report: &Value, output: &Output) -> bool {
    let equal = ["digest", "work.gz", "status"].into_iter().all(|name| {
        let moved = scratch.read("moved", name);
        moved.is_some() && moved == scratch.read("unmoved", name)
    });
    let digest = |part| String::from_utf8_lossy(&scratch.read(part, "digest").unwrap_or_default()).trim().to_owned();
    output.note(&format!("  moved:   {}", digest("moved")));
    output.note(&format!("  unmoved: {}", digest("unmoved")));
    output.note(if equal { "  the outputs are equal, to the last byte" } else { "  the outputs are DIFFERENT" });
    output.object(&json!({
        "outcome": if equal { "equal" } else { "different" },
        "migration": report,
        "digest": digest("moved"),
    }));
    equal
}

/// The same job at the same time, on this machine itself.
fn unmoved(scratch: &Scratch, lines: u64) -> Result<Child, Vec<Refusal>> {
    let shell = job(&scratch.path.join("unmoved"), lines);
    let null = || Stdio::null();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &shell]).stdin(null()).stdout(null()).stderr(null());
    command.spawn().map_err(|error| failed("the unmoved run", error))
}

fn await_line(child: &mut Child, word: &str) -> Result<(), Vec<Refusal>> {
    let Some(stdout) = child.stdout.take() else { return Err(failed("the receiver", "no standard output")) };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(|error| failed("the receiver", error))?;
    if line.contains(word) { Ok(()) } else { Err(failed("the receiver", format!("it said {line:?}"))) }
}

fn await_file(scratch: &Scratch, part: &str, name: &str, output: &Output) -> Result<(), Vec<Refusal>> {
    let begin = Instant::now();
    let mut progress = output.progress("working");
    let expected = scratch.size("unmoved").max(1);
    while scratch.read(part, name).is_none_or(|contents| contents.is_empty()) {
        if begin.elapsed() > PATIENCE {
            return Err(failed(part, "it did not end in time"));
        }
        progress.update(scratch.size(part), expected.max(scratch.size(part)));
        std::thread::sleep(Duration::from_millis(50));
    }
    progress.finish();
    Ok(())
}

/// How many processes a host has beside its first one and what we run in it.
fn processes(host: &Host, own: &Path) -> usize {
    let root = PathBuf::from(format!("/proc/{}/root/proc", host.init_pid()));
    std::fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid > 1))
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe != own))
        .count()
}

fn show_time_line(report: &Value, output: &Output) {
    let number = |name: &str| report.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    output.note(&format!("  strategy          {}", report.get("strategy").and_then(Value::as_str).unwrap_or("?")));
    output.note(&format!(
        "  preparation time  {:9.3} ms  (the process still runs at the source)",
        number("preparation_ms")
    ));
    output.note(&format!("  down time         {:9.3} ms  (it runs nowhere)", number("down_ms")));
    output.note(&format!("  post-processing   {:9.3} ms  (it runs at the destination)", number("post_ms")));
    output.note(&format!("  total             {:9.3} ms", number("total_ms")));
    output.note(&format!(
        "  {} pages in all, {} sent, {} over the link",
        number("pages_total"),
        number("pages_sent"),
        bytes(number("bytes_sent") as u64),
    ));
}

//! `cargo xtask test`: everything that must hold before a change lands, one part after the other.

mod child;
mod host;
mod package;
pub(crate) mod report;
mod tally;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use child::{Ending, cargo, isolated};
use report::{Format, Report};
use tally::Tally;

use crate::tidy::repository::{Repository, packages};
use crate::tidy::{RULES, Verdict};

/// All parts together end within this time: an hour, less what a person needs to notice.
const BUDGET: Duration = Duration::from_secs(55 * 60);

/// The one that kills godwit at random moments.
const KILLS: (&str, &str) = ("godwit-testbed", "kills");
/// The one in which something fails in each phase of each strategy.
const PHASES: (&str, &str) = ("godwit-testbed", "faults");
/// The one that tells what godwit itself needs of memory while it moves 4 GiB.
const MEMORY: (&str, &str) = ("godwit", "godwit");
/// What else happens to moves; most of the time of a cut or a stall is waiting.
const DISTURBED: [&str; 6] =
    ["--count", "48", "--jobs", "4", "--fault", "signal,twice,thief,full,checkpoint,restore,cut,stall"];
/// The package and the binary that run every workload through every path.
const MATRIX: (&str, &str) = ("godwit-testbed", "matrix");
/// The package and the binary that move real programs.
const PROGRAMS: (&str, &str) = ("godwit-testbed", "programs");

/// Runs all parts on the repository at `root`. A part that fails does not keep the later ones from running.
pub(crate) fn run(root: &Path, format: Format) -> ExitCode {
    let mut report = Report::new(format, Instant::now() + BUDGET);
    let missing = host::missing();
    if !missing.is_empty() {
        report.heading("this machine");
        for lack in missing {
            report.failed(&lack);
        }
        println!("Stopped: the tests move processes between namespaces of this machine and cannot work here.");
        report.close();
        return ExitCode::from(2);
    }

    let [has_matrix, has_programs] = [MATRIX, PROGRAMS].map(|(package, binary)| {
        packages(root).is_ok_and(|all| {
            all.iter().any(|one| one.name == package && one.binaries.iter().any(|name| name == binary))
        })
    });
    package::install(&mut report, has_programs);
    host::check_link(&mut report);
    tool(&mut report, root, "formatting", &["fmt", "--version"], &["fmt", "--all", "--check"]);
    let clippy = ["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"];
    tool(&mut report, root, "clippy", &["clippy", "--version"], &clippy);
    tidy(&mut report, root);
    let deny = ["deny", "check", "licenses", "bans", "sources"];
    tool(&mut report, root, "licences and sources of dependencies", &["deny", "--version"], &deny);
    report.skipped(
        "advisories of dependencies: they need a database from the network (run `cargo deny check advisories`)",
    );
    step(&mut report, root, "release build", &["build", "--release", "--workspace"]);
    tests(&mut report, root);
    matrix(&mut report, root, has_matrix);
    programs(&mut report, root, has_programs);
    cells(&mut report, root, "faults in each phase of each strategy", has_matrix, PHASES, &["--jobs", "12"]);
    cells(&mut report, root, "godwit's own memory", has_matrix, MEMORY, &["bench", "memory"]);
    cells(&mut report, root, "kill tests", has_matrix, KILLS, &["--count", "40"]);
    cells(&mut report, root, "disturbed moves", has_matrix, KILLS, &DISTURBED);
    report.close()
}

/// A part that is one cargo command.
fn step(report: &mut Report, root: &Path, name: &str, arguments: &[&str]) -> bool {
    report.heading(&format!("{name}: cargo {}", arguments.join(" ")));
    let ending = child::run(cargo(root, arguments, report.format()), report.deadline(), |_| {});
    report.ended(name, &ending)
}

/// A part that is one cargo command which may not be installed.
fn tool(report: &mut Report, root: &Path, name: &str, version: &[&str], arguments: &[&str]) {
    let mut probe = cargo(root, version, report.format());
    if probe.output().is_ok_and(|output| output.status.success()) {
        step(report, root, name, arguments);
    } else {
        report.skipped(&format!("{name}: `cargo {}` is not installed", arguments[0]));
    }
}

/// The rules of the house, each counted as one.
fn tidy(report: &mut Report, root: &Path) {
    report.heading("the rules of the house: cargo xtask tidy");
    let repository = match Repository::read(root) {
        Ok(repository) => repository,
        Err(message) => return report.failed(&format!("tidy: {message}")),
    };
    for rule in RULES {
        match (rule.check)(&repository) {
            Verdict::NotYet(why) => report.skipped(&format!("tidy {}: {why}", rule.name)),
            Verdict::Checked(findings) if findings.is_empty() => report.passed(1),
            Verdict::Checked(findings) => {
                for finding in &findings {
                    report.finding(rule.name, finding);
                }
                report.failed(&format!("tidy {}: {} to mend", rule.name, findings.len()));
            }
        }
    }
}

/// Unit, integration and documentation tests. Built outside, where there is a network; run inside namespaces of
/// their own, which take every process and mount with them when they end.
fn tests(report: &mut Report, root: &Path) {
    let build = ["test", "--workspace", "--no-run"];
    report.heading(&format!("tests: cargo {}", build.join(" ")));
    let ending = child::run(cargo(root, &build, report.format()), report.deadline(), |_| {});
    if !ending.is_success() {
        report.ended("building the tests", &ending);
        return;
    }
    let run = ["test", "--workspace", "--no-fail-fast", "--offline"];
    report.heading(&format!("tests: cargo {}", run.join(" ")));
    let mut tally = Tally::default();
    let command = isolated(&cargo(root, &run, report.format()));
    let ending = child::run(command, report.deadline(), |line| {
        if let Some(one) = Tally::of_test_result(line) {
            tally += one;
        }
    });
    report.counted("tests", tally, &ending);
}

/// Every workload as both users along every path without faults.
const PLAIN: [&str; 2] = [
    "--path",
    "thaw,checkpoint,restore,restore-elsewhere,migrate,there-and-back,ten-moves,numbers-in-use,migrate-pre-copy,migrate-queued,migrate-post-copy",
];
/// Every workload by one of the ten strategies, which differs from workload to workload; by all of them: `--strategies`.
const STRATEGIES: [&str; 4] = ["--strategies-each", "1", "--user", "root"];
/// The relatives of post-copy, which share all that it does but which pages wait: for what has much memory, or is otherwise their concern.
const OWING: [&str; 6] = [
    "--path",
    "migrate-assisted,migrate-on-reference,migrate-settled,migrate-interrupted,migrate-eager-dirty",
    "--user",
    "root",
    "--workload",
    "memory_large,memory_private,cow_sharing,heap,madvise,huge_transparent,mappings_10000,threads_64,tree,vfork_exec,mlock,shared_anonymous",
];
/// Faults while pages are owed.
const OWING_FAULTS: [&str; 6] = [
    "--path",
    "owing-destination-killed,owing-source-killed,owing-link-cut",
    "--user",
    "root",
    "--workload",
    "memory_large",
];
/// Faults at every step of the hand-off: for a part of the workloads, since each takes some twenty moves and a path of theirs.
/// The others: `cargo run --release -p godwit-testbed --bin matrix -- --path destination-killed,source-killed,link-cut`.
const FAULTS: [&str; 6] =
    ["--path", "destination-killed,source-killed,link-cut", "--user", "root", "--workload", "tree,pipe"];

/// With a page store, which is lost now and then: for what has memory and tasks.
const STORES: [&str; 6] = [
    "--path",
    "migrate-flushing,migrate-freeze-free,store-gone-before,store-back-before,store-back-after,store-gone-after",
    "--user",
    "root",
    "--kind",
    "memory,task,blocked",
];

/// Whose communication comes when they run: what has pipes and sockets.
const COMMUNICATING: [&str; 6] = ["--path", "migrate-freeze-free", "--user", "root", "--kind", "file,socket"];

/// The workload matrix.
fn matrix(report: &mut Report, root: &Path, has_matrix: bool) {
    cells(report, root, "workload matrix", has_matrix, MATRIX, &PLAIN);
    cells(report, root, "workload matrix by strategies", has_matrix, MATRIX, &STRATEGIES);
    cells(report, root, "workload matrix, relatives of post-copy", has_matrix, MATRIX, &OWING);
    cells(report, root, "workload matrix with faults while pages are owed", has_matrix, MATRIX, &OWING_FAULTS);
    cells(report, root, "workload matrix with faults", has_matrix, MATRIX, &FAULTS);
    cells(report, root, "workload matrix with a page store", has_matrix, MATRIX, &STORES);
    cells(report, root, "workload matrix, communication that follows", has_matrix, MATRIX, &COMMUNICATING);
}

/// Real programs that have memory, threads or many processes, once by each strategy. With a GiB of data, which takes its time:
/// `cargo run --release -p godwit-testbed --bin programs -- --strategies --program redis_large --megabytes 1024`.
const BY_STRATEGY: [&str; 3] = ["--strategies", "--program", "redis_large,python,java,make,pgbench"];

/// Real programs, each moved along every path while it works; along two of them also as a user who is not root.
fn programs(report: &mut Report, root: &Path, has_programs: bool) {
    cells(report, root, "real programs", has_programs, PROGRAMS, &[]);
    let other = ["--user", "other", "--path", "restore-elsewhere,there-and-back"];
    cells(report, root, "real programs of another user", has_programs, PROGRAMS, &other);
    cells(report, root, "real programs by each strategy", has_programs, PROGRAMS, &BY_STRATEGY);
}

/// A part that is one binary of the testbed, which ends with its counts.
fn cells(
    report: &mut Report,
    root: &Path,
    name: &str,
    is_there: bool,
    (package, binary): (&str, &str),
    arguments: &[&str],
) {
    if !is_there {
        return report.skipped(&format!("{name}: {package} has no binary `{binary}` yet"));
    }
    let run = ["run", "--release", "--offline", "-p", package, "--bin", binary, "--"];
    let run: Vec<&str> = run.into_iter().chain(arguments.iter().copied()).collect();
    report.heading(&format!("{name}: cargo {}", run.join(" ")));
    let mut tally = None;
    let command = isolated(&cargo(root, &run, report.format()));
    let ending = child::run(command, report.deadline(), |line| tally = Tally::of_closing_line(line).or(tally));
    match (tally, &ending) {
        (None, Ending::Exited(status)) if status.success() => {
            report.failed(&format!("{name}: ended without its closing line `N passed, N failed, N skipped`"));
        }
        _ => report.counted(name, tally.unwrap_or_default(), &ending),
    }
}

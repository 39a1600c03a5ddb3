//! What can be said on the command line, and the help for it.
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

/// Exit codes, as every command's help tells them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done (check: a migration would go through)
  1  refused; nothing was changed, or everything was rolled back: the process runs on where it was
  2  the command line does not make sense
  3  in doubt, or something must be recovered: see `godwit recover`
  restore without --detach exits with the program's own status (128 + signal when a signal ended it)";

/// Moves running, unmodified process trees between machines.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, about, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Arguments {
    /// One machine-readable JSON object on standard output; progress and messages go to standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What one command alone understands.
#[derive(Debug, Parser)]
struct Alone<Words: Args> {
    #[arg(long)]
    json: bool,
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    words: Words,
}

impl Arguments {
    /// What was said. To describe all commands takes longer than to understand one of them: where a command's own description suffices,
    /// the others are not made. What it does not understand is left to all of them, so that there is one kind of message.
    pub(crate) fn understand(words: &[OsString]) -> Result<Arguments, clap::Error> {
        let alone = match words.get(1).and_then(|word| word.to_str()) {
            Some("checkpoint") => Alone::understand(words, Command::Checkpoint),
            Some("restore") => Alone::understand(words, Command::Restore),
            _ => None,
        };
        alone.map_or_else(|| Arguments::try_parse_from(words), Ok)
    }
}

impl<Words: Args> Alone<Words> {
    fn understand(words: &[OsString], command: impl FnOnce(Words) -> Command) -> Option<Arguments> {
        let Alone { json, quiet, words } = Alone::try_parse_from(&words[1..]).ok()?;
        Some(Arguments { json, quiet, command: command(words) })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what a move would do to every object of a running tree; freezes and changes nothing.
    Check(Check),
    /// Move a running tree to another host.
    ///
    /// Ctrl-C (SIGINT, SIGTERM, SIGHUP): before the tree is handed over the move is undone, and it runs on here. Afterwards all memory
    /// that this host still owes it leaves at once, and then the command ends.
    Migrate(Migrate),
    /// Take trees from other hosts.
    Receive(Receive),
    /// Keep pages of processes that move by flushing or freeze-free, for the hosts that they come from and go to.
    Pages(Pages),
    /// Settle what an engine that was killed left behind; without an option, asks the other side.
    Recover(Recover),
    /// Tell who owes memory to whom after a move: what still lies at the source of a process that runs elsewhere.
    Residual,
    /// End the dependency of processes that run here: fetch all that they are owed.
    Settle(Settle),
    /// Write a running tree to a directory.
    Checkpoint(Checkpoint),
    /// Bring a checkpoint back to life.
    Restore(Restore),
    /// Look into a checkpoint.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Show the main job on this machine: two hosts, a working pipeline, a move, the proof that nothing was lost.
    Demo(Demo),
    /// Measure what moves cost on this machine, each beside its limit, measured in the same run.
    Bench(Bench),
    /// Tell what this host can and cannot do, and what to change; exits with 1 when nothing would work here.
    Doctor,
    /// Write the manual pages of all commands into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
    /// Explain the strategies: how memory can move, and when which is best.
    Strategies,
    /// Tell more about an error code, or list them all.
    Explain {
        /// A code such as GW1102.
        code: Option<String>,
    },
}

/// Whose dependency is to end.
#[derive(Debug, Args)]
pub(crate) struct Settle {
    /// A process, or the number of a migration (see `godwit residual`); without one, all that run here.
    #[arg(value_name = "PID|MIGRATION")]
    pub(crate) which: Option<String>,
}

/// Decisions about descriptors whose other side is outside the tree.
#[derive(Debug, Args)]
pub(crate) struct Edges {
    /// What to do with a descriptor whose other side is outside the tree: FD=file:/PATH (open this at the destination),
    /// FD=null, FD=inherit (restore's own descriptor of this number), FD=close. FD is a number of the root process, or
    /// PID:FD of any other; the choice holds for the open description, whoever in the tree has it.
    #[arg(long = "edge", value_name = "[PID:]FD=CHOICE")]
    pub(crate) edges: Vec<String>,
}

/// What the user knows about the processor features that the tree uses.
#[derive(Debug, Args)]
pub(crate) struct Processor {
    /// Processor features (as in /proc/cpuinfo) that the tree does not use, though the source has them: the destination may
    /// lack them. A program that does use one dies there.
    #[arg(long, value_name = "FLAG,…", value_delimiter = ',')]
    pub(crate) unused_processor_flags: Vec<String>,
}

impl Processor {
    pub(crate) fn unused(&self) -> BTreeSet<String> {
        self.unused_processor_flags.iter().cloned().collect()
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Check {
    /// Root of the tree.
    pub(crate) pid: i32,
    /// Ask this destination, too, whether it would take the tree (see migrate), and foresee what each strategy would cost.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: Option<String>,
    /// Watch for a tenth of a second what the tree writes, which tells what each strategy would cost. Nothing else of check stops
    /// the tree; this does once, for about a millisecond.
    #[arg(long, requires = "to")]
    pub(crate) watch: bool,
    /// Show what is carried, too, not only what needs attention.
    #[arg(long, short)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) edges: Edges,
    #[command(flatten)]
    pub(crate) processor: Processor,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Migrate {
    /// Root of the tree.
    pub(crate) pid: i32,
    /// tcp://HOST:PORT of a `godwit receive`, or ssh://[USER@]HOST (runs `godwit receive` there through your own ssh).
    pub(crate) destination: String,
    /// How memory moves: a name, or a row such as 'prepare=rounds(6,30%) down=rest post=none'; see `godwit strategies`. auto: what
    /// suits the objective best, as far as a short look at the tree and the link can tell (for which the tree is stopped once more).
    #[arg(long, default_value = "total-copy")]
    pub(crate) strategy: String,
    /// What auto is to keep small: downtime, total (time), slowdown (work that the tree cannot do), independence (the time from the
    /// stop until it needs nothing of this host).
    #[arg(long, default_value = "downtime", value_parser = objective)]
    pub(crate) objective: godwit_strategy::Objective,
    /// Most rounds in which pages are sent while the tree runs.
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u32>,
    /// Stop the tree when so little is left to be sent: pages (64), a share of all pages (5%), or what leaves in so long (10ms).
    #[arg(long, value_name = "LIMIT")]
    pub(crate) limit: Option<godwit_strategy::Enough>,
    /// Stop the tree when what is left to be sent leaves in so long (10ms). A tree that writes faster than the link carries
    /// is stopped after the last round all the same.
    #[arg(long, value_name = "TIME", conflicts_with = "limit")]
    pub(crate) max_downtime: Option<godwit_strategy::Enough>,
    /// Most bytes per second that leave, to the destination and to a page store together (800k, 100M, 1G; 1k is 1000). Faults of a
    /// process that waits for its pages are bytes, too.
    #[arg(long, value_name = "RATE")]
    pub(crate) bwlimit: Option<godwit_handoff::bucket::Rate>,
    /// The page store of flushing and freeze-free: tcp://HOST:PORT of a `godwit pages` that both hosts reach under this name, or a
    /// directory that both see under this path.
    #[arg(long, value_name = "STORE")]
    pub(crate) pages: Option<String>,
    /// Pack pages on their way (LZ4): `auto` where the link is measured to be slower than that takes, `always`, or `never`.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) compression: godwit_migrate::source::Compression,
    /// For ssh: the godwit program at the destination.
    #[arg(long, value_name = "PATH")]
    pub(crate) remote_program: Option<PathBuf>,
    /// Send memory with checksums of our own. Without them TCP's or ssh's have to do, as for any other transfer: then large memory
    /// goes over tcp:// straight from the process and into it, which is several times as fast, since nobody has to read it on its
    /// way. Whoever does not trust the link takes ssh://, or this.
    #[arg(long)]
    pub(crate) page_checksums: bool,
    #[command(flatten)]
    pub(crate) edges: Edges,
    #[command(flatten)]
    pub(crate) processor: Processor,
    /// For tests: `die:STEP`, `pause:STEP`, `list:PATH` or `time:PATH`.
    #[arg(long, hide = true)]
    pub(crate) observe: Option<String>,
}

fn objective(text: &str) -> Result<godwit_strategy::Objective, String> {
    let names = || godwit_strategy::OBJECTIVES.map(|(name, _)| name).join(", ");
    godwit_strategy::Objective::named(text).ok_or_else(|| format!("an objective is one of {}", names()))
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Address and port to listen on; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// End after the first tree has come and its source knows.
    #[arg(long)]
    pub(crate) once: bool,
    /// Speak over standard input and output (what ssh:// runs).
    #[arg(long, conflicts_with = "listen")]
    pub(crate) stdio: bool,
    /// For tests: `die:STEP`, `pause:STEP`, `list:PATH` or `time:PATH`.
    #[arg(long, hide = true)]
    pub(crate) observe: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pages {
    /// Address and port to listen on; port 0 takes a free one and prints it. Both hosts must reach it. Whoever does can read and write what
    /// is kept if he knows the number of a migration: listen where only they are.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: String,
    /// Where the pages are kept, a file for each migration; made if it is not there. A store that ended goes on where it was when it
    /// is started with the same directory again.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Most bytes of all of them, such as 512M or 20G.
    #[arg(long, value_name = "BYTES", default_value = "64G")]
    pub(crate) limit: Bytes,
    /// Say that pages are kept only when they are on the disk: then they outlive a crash of this host, and not only of this program.
    #[arg(long)]
    pub(crate) durable: bool,
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
        let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let count: Option<u64> = digits.parse().ok();
        count
            .and_then(|count| count.checked_mul(1 << shift))
            .map(Bytes)
            .ok_or_else(|| "expected a number such as 512M or 20G".to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Decide a doubt: the process does not run at the destination; let it go on here.
    #[arg(long, value_name = "MIGRATION")]
    pub(crate) resume: Option<String>,
    /// Decide a doubt: the process runs at the destination, or is to end; end it here.
    #[arg(long, value_name = "MIGRATION", conflicts_with = "resume")]
    pub(crate) discard: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Checkpoint {
    /// Root of the tree.
    pub(crate) pid: i32,
    /// Directory for the checkpoint; made if it is not there.
    pub(crate) directory: PathBuf,
    /// The tree goes on after the checkpoint instead of ending.
    #[arg(long)]
    pub(crate) leave_running: bool,
    #[command(flatten)]
    pub(crate) edges: Edges,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Restore {
    /// Directory of the checkpoint.
    pub(crate) directory: PathBuf,
    /// Print the root's number alone and leave the tree to init, instead of waiting for its end.
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) processor: Processor,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the two hosts standing for looking around.
    #[arg(long)]
    pub(crate) keep: bool,
    /// End the hosts that earlier demos left standing.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) remove: bool,
    /// How many lines the pipeline works through.
    #[arg(long, default_value_t = 6_000_000)]
    pub(crate) lines: u64,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Only cases whose names contain this; may be given several times. An unknown name lists all.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// How often each case is measured, after one time to warm up.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 7)]
    pub(crate) repetitions: usize,
    /// Write the JSON object, which --json prints, to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write the tables to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write when each side took each step, in ns of the clock, to files of this directory: CASE-N.source
    /// and CASE-N.destination. Both hosts must see it: not below /tmp
    #[arg(long, value_name = "DIR")]
    pub(crate) timelines: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare all strategies: small and large processes, quiet and restless ones, over slow and fast links.
    Strategies(BenchStrategies),
    /// What godwit itself needs of memory while it moves a process of 4 GiB, on both hosts; exits with 1 where that is more than 64 MiB.
    Memory(BenchMemory),
}

#[derive(Debug, Args)]
pub(crate) struct BenchMemory {
    /// These processes, as `bench strategies` calls them, separated by commas, instead of 4-gib and 4-gib-1.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) cases: Vec<String>,
    /// These strategies, instead of total-copy, pre-copy, post-copy and assisted-post-copy.
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchStrategies {
    /// Only these processes, separated by commas. An unknown name lists all.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) cases: Vec<String>,
    /// Only these links: 10, 100, 1000 (Mbit/s), unshaped.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) links: Vec<String>,
    /// Only these strategies; several times, since a row of one's own may have commas. The whole table otherwise.
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Vec<String>,
    /// How often each is measured.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 3)]
    pub(crate) repetitions: usize,
    /// Leave out moves that would take longer, in seconds; the page says which.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) longest: u64,
    /// Begin nothing after so many seconds. With --data, the next run goes on.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) at_most: Option<u64>,
    /// Keep what was measured in this file (JSON); what it already holds is not measured again.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Write the page to this file, and its drawings to a directory beside it (FILE without its end).
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Measure nothing: write the page of the data.
    #[arg(long, requires = "data", requires = "markdown")]
    pub(crate) page_only: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Print what is inside: tree, memory, descriptors, sizes.
    Show {
        /// Directory of the checkpoint.
        directory: PathBuf,
        /// Print every mapping, too.
        #[arg(long)]
        map: bool,
    },
    /// Check every checksum.
    Verify {
        /// Directory of the checkpoint.
        directory: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_alone_understands_what_all_of_them_do() {
        for line in [
            "checkpoint 7 /x",
            "checkpoint --json 7 /x --leave-running --edge fd:1=null -q",
            "restore /x",
            "restore /x --detach --quiet --unused-processor-flags a,b --json",
        ] {
            let words: Vec<OsString> = ["godwit"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let all = Arguments::try_parse_from(&words).unwrap();
            let alone = match all.command {
                Command::Checkpoint(_) => Alone::understand(&words, Command::Checkpoint),
                _ => Alone::understand(&words, Command::Restore),
            };
            assert_eq!(format!("{alone:?}"), format!("{:?}", Some(all)), "{line}");
        }
    }

    #[test]
    fn what_no_command_understands_is_told_by_all() {
        for line in
            ["checkpoint", "checkpoint seven /x", "restore", "restore /x --help", "restore /x --nonsense", "nonsense"]
        {
            let words: Vec<OsString> = ["godwit"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let (found, all) = (Arguments::understand(&words), Arguments::try_parse_from(&words));
            assert_eq!(found.unwrap_err().to_string(), all.unwrap_err().to_string(), "{line}");
        }
    }
}

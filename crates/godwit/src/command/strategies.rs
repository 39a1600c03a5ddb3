//! `godwit strategies`: the ways in which memory can move, each as the row that a user could write.
use crate::output::{CommandResult, Output};
use godwit_strategy::{Row, TABLE, needs_tracking, notation};
use serde_json::json;
use std::process::ExitCode;

/// How a row is written, for whoever wants one of his own.
const NOTATION: &str = "\
A row of one's own has steps for each phase, joined by +; what is left out is none:
  prepare=rounds(6,30%) down=rest post=none
  all, modified, working, stale, rest   this set, once
  rounds(N) rounds(N,LIMIT)             what was written since the last round, N times at most or until LIMIT is left
  quiet(K,N) quiet(K,N,LIMIT)           the same, but a page waits until it was not written for K rounds
  faults(SET)                           after the resumption: only what is asked for
LIMIT: pages (64), a share of all pages (30%), or what leaves in so long (10ms).";

fn value(row: &Row) -> serde_json::Value {
    json!({
        "name": row.name, "row": notation(row), "tracks_writes": needs_tracking(row), "seen_in": row.seen_in, "about": row.about,
    })
}

pub(crate) fn run(output: &Output) -> CommandResult {
    output.object(&json!({ "strategies": TABLE.iter().map(value).collect::<Vec<_>>() }));
    for row in TABLE {
        output.line(&format!("{}\n  {}\n  {}", row.name, notation(row), row.about));
        if needs_tracking(row) {
            output.line("  Needs a source that tells what is written: Linux 6.7 or later (godwit doctor).");
        }
        output.line(&format!("  Seen in: {}\n", row.seen_in));
    }
    output.line(
        "auto\n  None of its own: a short look at the tree (what it writes in a tenth of a second) and at the link (what it carries) tells what\n  \
         each of these would cost, and the one that keeps --objective smallest is taken. `godwit check PID --to DESTINATION` shows the costs.\n",
    );
    output.line(NOTATION);
    Ok(ExitCode::SUCCESS)
}

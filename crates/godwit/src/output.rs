//! What goes to standard output and what to standard error: results for people or one JSON object; progress, refusals.
use godwit_image::{Code, Refusal, Subject};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Where and how to print.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

/// A command's result: its exit code, or why it was refused.
pub(crate) type CommandResult = Result<ExitCode, Vec<Refusal>>;

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Output {
        Output { json, quiet }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line of a result for people; nothing in JSON mode.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            write_stdout(text);
        }
    }

    /// A line about what is going on; it goes to standard error, so that standard output holds results only.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// The result object; nothing in human mode.
    pub(crate) fn object(&self, value: &Value) {
        if self.json {
            write_stdout(&value.to_string());
        }
    }

    /// Says why nothing was done.
    pub(crate) fn refusals(&self, refusals: &[Refusal]) -> ExitCode {
        if self.json {
            write_stdout(
                &json!({ "outcome": "refused", "refusals": refusals.iter().map(refusal_value).collect::<Vec<_>>() })
                    .to_string(),
            );
        }
        for refusal in refusals {
            eprintln!("godwit: {refusal}");
            for choice in &refusal.choices {
                eprintln!("        you can: {choice}");
            }
            if !refusal.rolled_back.is_empty() {
                eprintln!("        rolled back: {}", refusal.rolled_back);
            }
            if let Some(row) = refusal.code.row() {
                eprintln!("        {} (godwit explain {})", row.remedy, refusal.code);
            }
        }
        match refusals.first().map(|refusal| refusal.code) {
            Some(Code::USAGE) => ExitCode::from(2),
            Some(Code::IN_DOUBT) => ExitCode::from(3),
            _ => ExitCode::from(1),
        }
    }

    /// A progress line that overwrites itself on a terminal, and stays away elsewhere.
    pub(crate) fn progress(&self, what: &'static str) -> Progress {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        let template = "{msg} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
        // The template is a constant; were it wrong, the plain bar would do.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress { bar: bar.with_style(style) }
    }
}

fn write_stdout(text: &str) {
    // A reader that went away (head) is no error of ours.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A refusal as JSON.
pub(crate) fn refusal_value(refusal: &Refusal) -> Value {
    json!({
        "code": refusal.code.to_string(),
        "title": refusal.code.title(),
        "subject": refusal.subject.to_string(),
        "cause": refusal.cause,
        "choices": refusal.choices,
        "rolled_back": refusal.rolled_back,
    })
}

/// Progress of a transfer of bytes: a bar with rate and remaining time, on a terminal only.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Reports bytes done of bytes in all.
    pub(crate) fn update(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Clears the line.
    pub(crate) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// So many of something.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// So many processes.
pub(crate) fn processes(count: u64) -> String {
    counted(count, "process", "processes")
}

/// A usage error.
pub(crate) fn usage(what: &str, cause: impl Into<String>) -> Vec<Refusal> {
    vec![Refusal::new(Code::USAGE, Subject::Object(what.to_owned()), cause)]
}

/// Says what is wrong with a command line, or answers with help and version; where one object was asked for, in one as well.
pub(crate) fn misunderstood(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args().any(|argument| argument == "--json") {
        let text = error.to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let refusal = Refusal::new(Code::USAGE, Subject::Object("command line".to_owned()), cause);
        write_stdout(&json!({ "outcome": "refused", "refusals": [refusal_value(&refusal)] }).to_string());
    }
    // Whoever does not listen misses the text, and sees the exit code.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// A failed operation of the system that a command needs.
pub(crate) fn failure(what: &str, error: &dyn std::fmt::Display) -> Vec<Refusal> {
    vec![Refusal::new(Code::ENVIRONMENT, Subject::Object(what.to_owned()), error.to_string())]
}

//! What goes to standard output and what to standard error: results for people or one JSON object; progress, refusals.
use godwit_image::{Code, Refusal, Subject};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Where and how to print.
#[derive(Debug)]
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
        let show = !self.quiet && std::io::stderr().is_terminal();
        Progress { what, show, begin: Instant::now(), last: None }
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

/// Progress of a transfer of bytes.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    show: bool,
    begin: Instant,
    last: Option<Instant>,
}

impl Progress {
    /// Reports bytes done of bytes in all.
    pub(crate) fn update(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now - last < Duration::from_millis(100));
        if !self.show || (soon && done < total) {
            return;
        }
        self.last = Some(now);
        let elapsed = (now - self.begin).as_secs_f64().max(1e-6);
        let rate = done as f64 / elapsed;
        let left = if rate > 0.0 { total.saturating_sub(done) as f64 / rate } else { 0.0 };
        let width = 30;
        let filled = (done.saturating_mul(width)).checked_div(total).unwrap_or(width).min(width) as usize;
        let bar: String = (0..width as usize).map(|cell| if cell < filled { '█' } else { '░' }).collect();
        eprint!(
            "\r{} {bar} {} of {}, {}/s, {left:.1} s left \x1b[K",
            self.what,
            bytes(done),
            bytes(total),
            bytes(rate as u64)
        );
    }

    /// Clears the line.
    pub(crate) fn finish(&mut self) {
        if self.show && self.last.is_some() {
            eprint!("\r\x1b[K");
        }
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

/// A usage error.
pub(crate) fn usage(what: &str, cause: impl Into<String>) -> Vec<Refusal> {
    vec![Refusal::new(Code::USAGE, Subject::Object(what.to_owned()), cause)]
}

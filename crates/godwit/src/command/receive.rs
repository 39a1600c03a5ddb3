//! `godwit receive`: takes trees from other hosts.
use crate::arguments::Receive;
use crate::output::{CommandResult, Output, failure, processes, usage};
use godwit_image::Refusal;
use godwit_linux::poll::{self, Readiness};
use godwit_migrate::destination::{self, Options, Received};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::PipeWriter;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A source whose link was cut before it had the answer asks again for a minute before it tells its user that it is in doubt. Whoever
/// takes one tree only stays for so long when the tree has come.
const QUESTIONS: Duration = Duration::from_secs(90);

pub(crate) fn run(arguments: &Receive, output: &Output) -> CommandResult {
    let observed = arguments.observe.iter().flat_map(|text| [OsString::from("--observe"), OsString::from(text)]);
    let options = Options { shepherd_arguments: observed.collect(), ..Options::default() };
    if arguments.stdio {
        let observer = super::observer(arguments.observe.as_deref());
        let received = destination::receive_over_standard_streams(&options, observer, &mut |_| {})?;
        output.note(&sentence(&received));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(address) = &arguments.listen else {
        return Err(usage("receive", "expected --listen ADDRESS:PORT or --stdio"));
    };
    let listener = TcpListener::bind(address).map_err(|error| failure(address, &error))?;
    godwit_migrate::transport::tcp::prepare(&listener);
    let local = listener.local_addr().map_err(|error| failure(address, &error))?;
    // Whoever started us may wait for this line; port 0 becomes a number here.
    output.line(&format!("listening on {local}"));
    output.object(&json!({ "outcome": "listening", "address": local.to_string() }));
    let mut last_question = None;
    loop {
        if let Some(end) = last_question
            && !await_question(&listener, end).map_err(|error| failure(address, &error))?
        {
            output.note("the source has not said that it knows: should it ask later, `godwit receive` answers");
            return Ok(ExitCode::SUCCESS);
        }
        let (connection, peer) = listener.accept().map_err(|error| failure(address, &error))?;
        let options = Options { answer_only: last_question.is_some(), ..options.clone() };
        let received = serve(connection, &listener, options, arguments.once, output);
        let moved = received.as_ref().is_ok_and(|received| received.outcome == "moved");
        let acknowledged = received.as_ref().is_ok_and(|received| received.acknowledged);
        let value = match &received {
            Ok(received) => serde_json::to_value(received).unwrap_or_default(),
            Err(refusals) => {
                json!({ "outcome": "refused", "refusals": refusals.iter().map(crate::output::refusal_value).collect::<Vec<Value>>() })
            }
        };
        output.object(&value);
        match received {
            Ok(received) => output.line(&sentence(&received)),
            Err(refusals) => {
                for refusal in &refusals {
                    output.note(&format!("{peer}: {refusal}"));
                }
            }
        }
        if arguments.once && acknowledged {
            return Ok(ExitCode::SUCCESS);
        }
        if arguments.once && moved {
            last_question = Some(Instant::now() + QUESTIONS);
        }
    }
}

/// Whether a source asks before `end`.
fn await_question(listener: &TcpListener, end: Instant) -> std::io::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let ready = poll::wait(&[(listener.as_fd(), Readiness::READABLE)], Some(left))?;
        if ready.iter().any(|ready| ready.readable) {
            return Ok(true);
        }
        // A signal ends the wait early, too.
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// One connection: here and now when only one tree is awaited, else beside the others.
fn serve(
    connection: std::net::TcpStream,
    listener: &TcpListener,
    options: Options,
    once: bool,
    output: &Output,
) -> Result<Received, Vec<Refusal>> {
    if once {
        let mut others = None;
        let further = options.clone();
        // The tree may be owed pages: they come over further connections, and over newer ones when a link was lost.
        let mut resumed = |_: i32| others = Others::accept(listener, &further);
        return destination::receive(connection, &options, &mut resumed, &mut |_| {});
    }
    let output = output.clone();
    std::thread::spawn(move || match destination::receive(connection, &options, &mut |_| {}, &mut |_| {}) {
        Ok(received) => {
            output.object(&serde_json::to_value(&received).unwrap_or_default());
            output.line(&sentence(&received));
        }
        Err(refusals) => refusals.iter().for_each(|refusal| output.note(&format!("godwit: {refusal}"))),
    });
    Ok(Received { outcome: "accepted".to_owned(), ..Received::default() })
}

/// Whoever takes in further connections while the one tree is being served.
struct Others {
    end: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Others {
    /// Begins to. Without it a link that is lost stays lost.
    fn accept(listener: &TcpListener, options: &Options) -> Option<Others> {
        let listener = listener.try_clone().ok()?;
        let (ear, end) = std::io::pipe().ok()?;
        let options = Options { answer_only: true, ..options.clone() };
        let accept = move || {
            loop {
                let files = [(listener.as_fd(), Readiness::READABLE), (ear.as_fd(), Readiness::READABLE)];
                match poll::wait(&files, None) {
                    Ok(ready) if ready[1].readable => return,
                    Ok(ready) if ready[0].readable => {}
                    Ok(_) => continue,
                    Err(_) => return,
                }
                let Ok((connection, _)) = listener.accept() else { continue };
                let options = options.clone();
                // What comes of it is said by who has the tree.
                std::thread::spawn(move || {
                    destination::receive(connection, &options, &mut |_| {}, &mut |_| {}).map(drop)
                });
            }
        };
        let thread = std::thread::Builder::new().name("others".to_owned()).spawn(accept).ok()?;
        Some(Others { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It only ever waits for us and for connections.
            let _ = thread.join();
        }
    }
}

fn sentence(received: &Received) -> String {
    match received.outcome.as_str() {
        "moved" => format!(
            "process {} runs here now, from {}: {}, {} pages",
            received.pid,
            received.source,
            processes(received.processes),
            received.pages
        ),
        other => format!("{other} ({})", received.source),
    }
}

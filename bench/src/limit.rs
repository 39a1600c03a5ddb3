//! The limits, measured in the same run as what they limit: a raw TCP stream over the same link, one that carries memory, an empty request
//! and answer, a copy in memory, one call injected into a stopped process.
use crate::error::{Doing, Error, program};
use crate::program::Programs;
use crate::summary::Summary;
use godwit_engine::freeze;
use godwit_engine::injector::Injector;
use godwit_engine::preparation::Preparation;
use godwit_image::Refusal;
use godwit_linux::program::Program;
use godwit_testbed::Pair;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of one raw stream.
const STREAM_BYTES: u64 = 1 << 30;
/// Requests per connection.
const REQUESTS: u32 = 400;
/// Bytes of one copy in memory: more than any cache.
const COPY_BYTES: usize = 256 << 20;
/// Injected calls.
const CALLS: usize = 400;
const SYS_GETPID: i64 = 39;

/// Values of every limit, as they come.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Raw TCP stream, bytes per second.
    pub stream: Vec<f64>,
    /// The same from memory into memory, none of which is in a cache, bytes per second.
    pub carry: Vec<f64>,
    /// Request and answer of 4 KiB, s.
    pub request: Vec<f64>,
    /// Copy in memory, bytes per second.
    pub copy: Vec<f64>,
    /// One injected call, s.
    pub call: Vec<f64>,
}

impl Limits {
    /// Measures everything once more.
    ///
    /// # Errors
    /// A program cannot be run.
    pub fn measure(&mut self, pair: &Pair, programs: &Programs, port: u16, repetitions: usize) -> Result<(), Error> {
        for _ in 0..repetitions {
            let nanoseconds = converse(pair, programs, port, "send", STREAM_BYTES)?;
            self.stream.extend(nanoseconds.iter().map(|time| STREAM_BYTES as f64 / time * 1e9));
            let nanoseconds = converse(pair, programs, port, "carry", STREAM_BYTES)?;
            self.carry.extend(nanoseconds.iter().map(|time| STREAM_BYTES as f64 / time * 1e9));
        }
        // The first ones warm the connection up.
        let times = converse(pair, programs, port, "ask", u64::from(REQUESTS))?;
        self.request.extend(times.iter().skip(REQUESTS as usize / 10).map(|time| time / 1e9));
        self.copy(repetitions);
        self.call()
    }

    fn copy(&mut self, repetitions: usize) {
        let from = vec![0x5a_u8; COPY_BYTES];
        let mut to = vec![0xa5_u8; COPY_BYTES];
        for _ in 0..repetitions {
            let begin = Instant::now();
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
            self.copy.push(COPY_BYTES as f64 / begin.elapsed().as_secs_f64());
        }
    }

    fn call(&mut self) -> Result<(), Error> {
        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .doing("start a process to inject calls into")?;
        let times = injected(child.id().cast_signed());
        // Frozen or not, it is ours, and ends.
        let ended = child.kill().and_then(|()| child.wait()).doing("end the process that calls were injected into");
        self.call.extend(times?.into_iter().map(|time| time.as_secs_f64()));
        ended.map(drop)
    }

    /// The least time, in s, in which so many bytes can come over the link with one answer.
    #[must_use]
    pub fn least(&self, bytes: u64) -> Option<f64> {
        let stream = Summary::of(self.stream.iter().copied())?;
        let request = Summary::of(self.request.iter().copied())?;
        Some(bytes as f64 / stream.median + request.median)
    }
}

fn injected(pid: i32) -> Result<Vec<Duration>, Error> {
    // Until it has become the program that it is to be.
    std::thread::sleep(Duration::from_millis(20));
    let refused = |refusal: Refusal| Error::Refused(refusal.to_string());
    let mut frozen = freeze::freeze(pid, Preparation::of(pid)).map_err(refused)?;
    let first = frozen.processes.first_mut().ok_or_else(|| Error::Refused("nothing was frozen".to_owned()))?;
    let mut injector = Injector::install(first).map_err(refused)?;
    let mut question = Program::new();
    let step = question.call("getpid", SYS_GETPID, []);
    let questions = [(0, question)];
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begin = Instant::now();
        let ran = injector.run(&questions).map_err(refused)?;
        times.push(begin.elapsed());
        let answer = ran.first().and_then(|ran| ran.result("getpid", step).ok());
        if answer != Some(u64::from(pid.unsigned_abs())) {
            return Err(program("an injected getpid", format!("{answer:?} instead of {pid}")));
        }
    }
    injector.remove().map_err(refused)?;
    frozen.release();
    Ok(times)
}

/// Runs `stream` at both ends; returns the times that the source prints, ns.
pub(crate) fn converse(pair: &Pair, programs: &Programs, port: u16, what: &str, count: u64) -> Result<Vec<f64>, Error> {
    let stream = programs.compile("stream")?;
    let (address, port) = (pair.destination.address().to_string(), port.to_string());
    let server = pair.destination.command(&stream).args(["serve", &address, &port]);
    let mut server = server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing("hear from the raw stream's server")?;
    }
    let result = if line.trim() == "listening" {
        let count = count.to_string();
        pair.source.command(&stream).args([what, &address, &port, &count]).output().map_err(Error::from)
    } else {
        Err(program("the raw stream's server", line))
    };
    if result.is_err() {
        // It may wait for a client that never comes.
        let _ = server.kill();
    }
    server.wait().doing("wait for the raw stream's server")?;
    let output = result?;
    let times: Vec<f64> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.parse().ok()).collect();
    if output.status.success() && !times.is_empty() {
        Ok(times)
    } else {
        Err(program("the raw stream's client", String::from_utf8_lossy(&output.stderr)))
    }
}

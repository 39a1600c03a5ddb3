//! Any bytes to every parser of /proc: the first byte selects the parser, the rest is the text. Nothing may panic.
//! Run: `cargo +nightly fuzz run proc`.
#![no_main]

use godwit_linux::proc;
use libfuzzer_sys::fuzz_target;

/// Gives the text to one parser; what comes out is of no interest here.
type Parse = fn(&[u8]);

/// Appended to only: the place of a parser is part of the corpus.
const PARSERS: &[Parse] = &[
    |text| drop(proc::maps::parse(text)),
    |text| drop(proc::smaps::parse(text)),
    |text| drop(proc::stat::parse(text)),
    |text| drop(proc::status::parse(text)),
    |text| drop(proc::fdinfo::parse(text)),
    |text| drop(proc::locks::parse(text)),
    |text| drop(proc::timers::parse(text)),
    mountinfo,
    |text| drop(proc::children::parse(text)),
    |text| drop(proc::directory::parse("task", text, &mut Vec::new())),
    |text| drop(proc::cmdline::parse(text)),
    |text| drop(proc::auxv::parse(text)),
    |text| drop(proc::comm::parse(text)),
    |text| assert!(proc::link::parse(text).is_none_or(|(name, _)| name.len() < text.len())),
    |text| drop(proc::cgroup::parse(text)),
    |text| drop(proc::timens_offsets::parse(text)),
    |text| drop(proc::oom_score_adj::parse(text)),
    |text| drop(proc::id_map::parse(text)),
    |text| drop(proc::personality::parse(text)),
    |text| drop(proc::timerslack::parse(text)),
    |text| drop(proc::syscall::parse(text)),
    |text| drop(proc::sysvipc::parse(text)),
    |text| drop(proc::sys::parse(text)),
    |text| drop(proc::sys::parse_line(text)),
    |text| drop(proc::cpuinfo::parse(text)),
    |text| drop(proc::meminfo::parse(text)),
    |text| drop(proc::uptime::parse(text)),
];

fn mountinfo(text: &[u8]) {
    for mount in proc::mountinfo::parse(text).unwrap_or_default() {
        let _: Vec<Vec<u8>> = proc::mountinfo::options(&mount.super_options).collect();
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((selector, text)) = data.split_first() else { return };
    if let Some(parse) = PARSERS.get(usize::from(*selector) % PARSERS.len()) {
        parse(text);
    }
});

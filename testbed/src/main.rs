//! The testbed's own program: the first process of hosts in tests, and hosts to look around in.

use std::process::ExitCode;
use std::{env, thread};

use godwit_testbed::{Error, Options, Pair, entry, leftover};

fn main() -> ExitCode {
    entry();
    let word = env::args().nth(1).unwrap_or_default();
    let result = match word.as_str() {
        "up" => up(),
        "down" => leftover::remove_kept().map(|ended| println!("{ended} hosts ended")),
        "stand" => stand(),
        _ => {
            eprintln!(
                "testbed up: two hosts with a link, until testbed down\ntestbed stand: the same, until this program ends"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn up() -> Result<(), Error> {
    let mut pair = Pair::new(&Options::default())?;
    pair.keep()?;
    describe(&pair);
    Ok(())
}

fn stand() -> Result<(), Error> {
    let pair = Pair::new(&Options::default())?;
    describe(&pair);
    loop {
        thread::park();
    }
}

fn describe(pair: &Pair) {
    for host in [&pair.source, &pair.destination] {
        println!("{} {} : nsenter -a -t {} bash", host.name(), host.address(), host.init_pid());
    }
}

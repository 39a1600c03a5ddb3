//! Every message and every action with everything that can go wrong at it, to a depth; at random beyond it.

mod harness;

use godwit_deterministic::{Exhaustive, Random};

use harness::fault::Chooser;
use harness::pair::Pair;

/// Runs of one enumeration; panics with the story of the first violation.
fn enumerate(depth: usize) -> u64 {
    let mut generator = Exhaustive::new();
    let mut runs = 0;
    while generator.more() {
        let mut pair = Pair::new(Chooser::All(&mut generator, depth), |_, _| {});
        let result = pair.run();
        drop(pair);
        runs += 1;
        if let Err(violation) = result {
            let choices = generator.choices();
            let mut again = Pair::new(Chooser::Again(Exhaustive::replay(&choices), depth), |_, _| {});
            again.trace = Some(String::new());
            let _ = again.run();
            panic!("{violation}\nchoices {choices:?}\n{}", again.trace.unwrap_or_default());
        }
    }
    runs
}

fn random(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let run = |trace: bool| {
            let mut random = Random::new(seed);
            let rarity = 3 + random.below(60);
            let mut pair = Pair::new(Chooser::Dice(random, rarity), |_, _| {});
            pair.trace = trace.then(String::new);
            let result = pair.run();
            (result, pair.trace)
        };
        if let (Err(violation), _) = run(false) {
            panic!("{violation}\nseed {seed}\n{}", run(true).1.unwrap_or_default());
        }
    }
}

#[test]
fn nothing_goes_wrong() {
    let mut pair = Pair::new(Chooser::Never, |_, _| {});
    pair.trace = Some(String::new());
    let result = pair.run();
    assert_eq!(result, Ok(()), "{}", pair.trace.unwrap_or_default());
    println!("{}", pair.trace.unwrap_or_default());
}

#[test]
fn every_combination_of_two_faults() {
    let runs = enumerate(1);
    println!("{runs} runs with one fault");
    let runs = enumerate(2);
    println!("{runs} runs with two faults");
}

#[test]
fn many_faults_at_random() {
    random(0..20_000);
}

#[test]
#[ignore]
fn deep() {
    println!("{} runs with three faults", enumerate(3));
}
#[test]
#[ignore]
fn wide() {
    random(1_000_000..1_010_000);
}

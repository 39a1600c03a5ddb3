//! Every message and every action with everything that can go wrong at it, to a depth; at random beyond it.
//!
//! Deeper: `HANDOFF_FAULTS=3 HANDOFF_DEATHS=5 HANDOFF_SEEDS=1000000 cargo test -p godwit-handoff --test enumeration -- --nocapture`

mod harness;

use godwit_deterministic::{Exhaustive, Random};
use godwit_handoff::mark;

use harness::dependence::Stores;
use harness::fault::{Chooser, Menu};
use harness::pair::Pair;

/// A number that the environment may raise.
#[allow(clippy::disallowed_methods, reason = "a test may be asked to work harder; what it tests is given everything")]
fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("the setting is a number"),
        Err(_) => usual,
    }
}

/// How the tasks at the destination depend on the source's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tasks {
    /// Not at all.
    Alone,
    /// They cannot run before those have ended.
    Await,
    /// Those cannot end before all of their pages are there.
    Owe,
    /// Those cannot end before all of their pages are in a page store.
    Store(Stores),
}

impl Tasks {
    fn of(self, pair: Pair<'_>) -> Pair<'_> {
        let stores = if let Tasks::Store(when) = self { Some(when) } else { None };
        let owes = self == Tasks::Owe || stores.is_some();
        pair.awaiting(self == Tasks::Await).owing(owes).storing(stores)
    }
}

/// Runs every combination of up to `depth` faults; panics with the story of the first violation.
fn enumerate(menu: Menu, depth: usize, tasks: Tasks) -> u64 {
    let mut generator = Exhaustive::new();
    let mut runs = 0;
    while generator.more() {
        let result = tasks.of(Pair::new(Chooser::All(&mut generator, menu, depth), |_, _| {})).run();
        runs += 1;
        if let Err(violation) = result {
            let choices = generator.choices();
            let mut again = Pair::new(Chooser::Again(Exhaustive::replay(&choices), menu, depth), |_, _| {});
            again = tasks.of(again);
            again.trace = Some(String::new());
            let repeated = again.run();
            assert_eq!(repeated, Err(violation.clone()), "a run must be repeatable");
            panic!("{violation}\nchoices {choices:?}\n{}", again.trace.unwrap_or_default());
        }
    }
    runs
}

/// One run with faults at random.
fn dice(seed: u64, trace: bool) -> (Result<(), String>, String) {
    let mut random = Random::new(seed);
    let rarity = 3 + random.below(60);
    let tasks = match seed % 8 {
        3 | 7 => Tasks::Await,
        1 => Tasks::Owe,
        4 => Tasks::Store(Stores::Before),
        5 => Tasks::Store(Stores::After),
        _ => Tasks::Alone,
    };
    let mut pair = tasks.of(Pair::new(Chooser::Dice(random, rarity), |_, _| {}));
    pair.trace = trace.then(String::new);
    let result = pair.run();
    (result, pair.trace.unwrap_or_default())
}

/// One test, because the marks at its end count what the whole program has reached.
#[test]
fn no_combination_of_faults_breaks_an_invariant_and_every_rare_branch_is_reached() {
    assert_eq!(enumerate(Menu::Everything, 0, Tasks::Alone), 1);
    let depth = setting("HANDOFF_FAULTS", 2) as usize;
    let runs = enumerate(Menu::Everything, depth, Tasks::Alone);
    println!("{runs} runs with up to {depth} faults");
    println!("{} runs with a fault, of tasks that await the source's", enumerate(Menu::Everything, 1, Tasks::Await));
    println!("{} runs with faults, of tasks that are owed pages", enumerate(Menu::Everything, depth, Tasks::Owe));
    assert!(runs > 50_000, "the enumeration has shrunk to {runs} runs");
    for mark in mark::ALL {
        println!("{:>10} times: {}", mark.hits(), mark.name());
        assert!(mark.hits() > 0, "not reached: {}", mark.name());
    }
}

#[test]
fn no_combination_of_more_deaths_and_cuts_breaks_an_invariant() {
    let depth = setting("HANDOFF_DEATHS", 3) as usize;
    println!("{} runs with up to {depth} deaths and cuts", enumerate(Menu::Deaths, depth, Tasks::Alone));
    println!("{} of tasks that are owed pages", enumerate(Menu::Deaths, depth, Tasks::Owe));
    for when in [Stores::Before, Stores::After] {
        println!("{} of tasks whose pages are in a store", enumerate(Menu::Everything, 1, Tasks::Store(when)));
        println!("{} with deaths and cuts", enumerate(Menu::Deaths, 2, Tasks::Store(when)));
    }
}

#[test]
fn no_fault_breaks_an_invariant_when_the_tasks_await_the_end_of_the_sources() {
    println!("{} runs with faults", enumerate(Menu::Everything, 2, Tasks::Await));
    println!("{} runs with deaths and cuts", enumerate(Menu::Deaths, 2, Tasks::Await));
}

#[test]
fn many_faults_at_random_break_no_invariant() {
    let seeds = setting("HANDOFF_SEEDS", 50_000);
    for seed in 0..seeds {
        if let (Err(violation), _) = dice(seed, false) {
            panic!("{violation}\nseed {seed}\n{}", dice(seed, true).1);
        }
    }
    println!("{seeds} seeds");
}

//! Rows as text: how a user writes one, and how one is shown.
//!
//! `prepare=rounds(6,30%) down=rest post=none`: for each phase its steps, joined by `+`. What is left out is `none`.
//!
//! * `all`, `modified`, `working`, `stale`, `rest`: the set is sent once.
//! * `communication`: what lies unread in pipes, FIFOs and Unix sockets, after the resumption.
//! * `rounds(N)`, `rounds(N,LIMIT)`: what was written since the last round, at most N times, or until LIMIT is left.
//! * `quiet(K,N)`, `quiet(K,N,LIMIT)`: the same, but a page waits until it has not been written for K rounds.
//! * `faults(SET)`: only what is asked for; the rest of the set stays owed. After the resumption a set is otherwise pushed, and what is
//!   asked for goes first.
//! * `STEP@store`: from (or to) the page store.
//!
//! LIMIT is a number of pages (`64`), a share of all pages (`30%`), or what leaves in so long (`10ms`).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::row::{Enough, Order, Origin, Phase, Row, Set, Step, Until};
use crate::table::TABLE;
use crate::validate::{Flaw, validate};

/// Why a text is no strategy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadRow {
    /// There is none of this name, and it is no row either.
    Unknown(String),
    /// It looks like a row, and this part of it means nothing.
    BadStep(String),
    /// It is a row that cannot be used.
    Flawed(Flaw),
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRow::Unknown(name) => {
                write!(f, "no strategy is called {name:?}; there is")?;
                for (position, row) in TABLE.iter().enumerate() {
                    write!(f, "{}{}", if position == 0 { " " } else { ", " }, row.name)?;
                }
                write!(f, ", or a row such as 'prepare=rounds(6,30%) down=rest post=none'")
            }
            BadRow::BadStep(part) => write!(f, "{part:?} is no step of a strategy; see `godwit strategies`"),
            BadRow::Flawed(flaw) => write!(f, "this row cannot be used: {flaw}"),
        }
    }
}

impl core::error::Error for BadRow {}

/// What a user changes in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Knobs {
    /// Most rounds of each step of rounds.
    pub rounds: Option<u32>,
    /// How little may be left.
    pub enough: Option<Enough>,
}

impl Knobs {
    /// The row as the user wants it.
    ///
    /// # Errors
    /// [`Flaw`] if it cannot be used then.
    pub fn apply(&self, row: &Row) -> Result<Row, Flaw> {
        let turned = row.steps.iter().map(|step| match step.until {
            Until::Limit { enough, rounds } => Step {
                until: Until::Limit { enough: self.enough.unwrap_or(enough), rounds: self.rounds.unwrap_or(rounds) },
                ..*step
            },
            _ => *step,
        });
        let row = Row { steps: Cow::Owned(turned.collect()), ..row.clone() };
        validate(&row, true).map(|()| row)
    }
}

/// The row of a name in the table, or the one that is written here.
///
/// # Errors
/// [`BadRow`], whose text says what there is.
pub fn parse(text: &str) -> Result<Row, BadRow> {
    let text = text.trim();
    if let Some(row) = TABLE.iter().find(|row| row.name == text) {
        return Ok(row.clone());
    }
    if !text.contains('=') {
        return Err(BadRow::Unknown(text.into()));
    }
    let mut steps = Vec::new();
    for word in text.split_whitespace() {
        let bad = || BadRow::BadStep(word.into());
        let (phase, list) = word.split_once('=').ok_or_else(bad)?;
        let phase = match phase {
            "prepare" => Phase::Preparation,
            "down" => Phase::Down,
            "post" => Phase::PostProcessing,
            _ => return Err(bad()),
        };
        for part in list.split('+').filter(|part| *part != "none") {
            steps.push(step(phase, part).ok_or_else(|| BadRow::BadStep(part.into()))?);
        }
    }
    let mut row = Row { name: "".into(), steps: steps.into(), seen_in: "".into(), about: "".into() };
    validate(&row, true).map_err(BadRow::Flawed)?;
    row.name = notation(&row).into();
    Ok(row)
}

fn step(phase: Phase, text: &str) -> Option<Step> {
    let (text, from) = match text.strip_suffix("@store") {
        Some(text) => (text, Origin::Store),
        None => (text, Origin::Source),
    };
    let (name, arguments) = match text.split_once('(') {
        None => (text, Vec::new()),
        Some((name, rest)) => (name, rest.strip_suffix(')')?.split(',').map(str::trim).collect()),
    };
    let number = |at: usize| arguments.get(at)?.parse::<u32>().ok();
    let limit = |at: usize| arguments.get(at).map_or(Some(Enough::default()), |text| enough(text));
    let order = if phase == Phase::PostProcessing { Order::FaultsFirst } else { Order::Push };
    let rounds = |set, at: usize| {
        (arguments.len() <= at + 2).then_some(())?;
        Some((set, Until::Limit { enough: limit(at + 1)?, rounds: number(at)? }, order))
    };
    let (set, until, order) = match name {
        "rounds" => rounds(Set::DirtySinceRound, 0)?,
        "quiet" => rounds(Set::Quiet(number(0)?), 1)?,
        "faults" => (named(arguments.first()?).filter(|_| arguments.len() == 1)?, Until::Never, Order::FaultsOnly),
        _ => (named(name).filter(|_| arguments.is_empty())?, Until::Sent, order),
    };
    Some(Step { phase, set, until, order, from })
}

/// The sets that are called by a word.
const SETS: [(&str, Set); 6] = [
    ("all", Set::All),
    ("modified", Set::Modified),
    ("working", Set::Working),
    ("stale", Set::Stale),
    ("rest", Set::Rest),
    ("communication", Set::Communication),
];

fn named(name: &str) -> Option<Set> {
    SETS.iter().find(|(word, _)| *word == name).map(|(_, set)| *set)
}

impl core::str::FromStr for Enough {
    type Err = BadRow;

    fn from_str(text: &str) -> Result<Enough, BadRow> {
        enough(text).ok_or_else(|| BadRow::BadStep(text.into()))
    }
}

fn enough(text: &str) -> Option<Enough> {
    if let Some(share) = text.strip_suffix('%') {
        return Some(Enough { percent: share.parse().ok().filter(|share| *share <= 100)?, ..Enough::default() });
    }
    for (unit, nanoseconds) in [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)] {
        if let Some(count) = text.strip_suffix(unit) {
            let nanoseconds = count.parse::<u64>().ok()?.checked_mul(nanoseconds)?;
            return Some(Enough { nanoseconds, ..Enough::default() });
        }
    }
    text.parse().ok().map(Enough::pages)
}

/// A row as a user would write it.
pub fn notation(row: &Row) -> String {
    let phases = [(Phase::Preparation, "prepare"), (Phase::Down, "down"), (Phase::PostProcessing, "post")];
    let of_phase = |(phase, name): (Phase, &str)| {
        let steps: Vec<String> = row.steps.iter().filter(|step| step.phase == phase).map(of_step).collect();
        format!("{name}={}", if steps.is_empty() { "none".to_string() } else { steps.join("+") })
    };
    phases.map(of_phase).join(" ")
}

fn of_step(step: &Step) -> String {
    let word = |set: Set| SETS.iter().find(|(_, named)| *named == set).map_or("rest", |(word, _)| *word);
    let text = match (step.set, step.until) {
        (Set::Quiet(quiet), Until::Limit { enough, rounds }) => format!("quiet({quiet},{rounds}{})", limit(&enough)),
        (_, Until::Limit { enough, rounds }) => format!("rounds({rounds}{})", limit(&enough)),
        (set, Until::Never) => format!("faults({})", word(set)),
        (set, Until::Sent) => word(set).to_string(),
    };
    text + if step.from == Origin::Store { "@store" } else { "" }
}

fn limit(enough: &Enough) -> String {
    match *enough {
        Enough { nanoseconds, .. } if nanoseconds > 0 => match (nanoseconds % 1_000_000, nanoseconds / 1_000_000) {
            (0, milliseconds) => format!(",{milliseconds}ms"),
            _ => format!(",{}us", nanoseconds / 1_000),
        },
        Enough { percent, .. } if percent > 0 => format!(",{percent}%"),
        Enough { pages: 0, .. } => String::new(),
        Enough { pages, .. } => format!(",{pages}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "prepare=none down=all post=none",
            "prepare=rounds(6,30%) down=rest post=none",
            "prepare=all+quiet(2,9,64) down=rest post=none",
            "prepare=rounds(3,10ms)+rounds(1,1500us) down=rest post=none",
            "prepare=all down=working post=stale+faults(rest)@store",
            "prepare=none down=modified@store post=faults(all)@store",
            "prepare=none down=none post=communication+all",
        ] {
            assert_eq!(parse(text).map(|row| row.name.into_owned()).as_deref(), Ok(text));
        }
        let short = parse("  prepare=rounds(6)  down=rest").unwrap();
        assert_eq!(short.name, "prepare=rounds(6) down=rest post=none");
        // Every row of the table can be written.
        for row in TABLE {
            assert_eq!(parse(&notation(row)).map(|own| own.steps), Ok(row.steps.clone()), "{}", row.name);
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let answer = parse("teleport").unwrap_err().to_string();
        assert!(answer.starts_with("no strategy is called \"teleport\"; there is total-copy, pre-copy, "), "{answer}");
        for (text, part) in [
            ("prepare=rounds down=rest", "rounds"),
            ("prepare=rounds(1,2,3) down=rest", "rounds(1,2,3)"),
            ("prepare=rounds(1,101%) down=rest", "rounds(1,101%)"),
            ("prepare=quiet(1) down=rest", "quiet(1)"),
            ("prepare=all(2) down=rest", "all(2)"),
            ("down=", ""),
            ("down=everything", "everything"),
            ("later=all", "later=all"),
            ("down=all now", "now"),
            ("down=rounds(3", "rounds(3"),
        ] {
            assert_eq!(parse(text), Err(BadRow::BadStep(part.into())), "{text}");
        }
        assert_eq!(parse("prepare=all"), Err(BadRow::Flawed(Flaw::PageForgotten)));
        assert_eq!(parse("down=all prepare=all"), Err(BadRow::Flawed(Flaw::OutOfOrder(1))));
        assert_eq!(parse("prepare=rounds(0) down=rest"), Err(BadRow::Flawed(Flaw::NoRounds(0))));
        for (text, step) in [
            ("prepare=communication down=rest", 0),
            ("down=communication+rest", 0),
            ("post=rest+faults(communication)", 1),
            ("post=communication@store+rest", 0),
            ("down=rest post=communication", 1),
            ("down=all@store post=communication+faults(all)@store", 1),
        ] {
            assert_eq!(parse(text), Err(BadRow::Flawed(Flaw::CommunicationMisplaced(step))), "{text}");
        }
        assert!("12%".parse::<Enough>().is_ok() && "x".parse::<Enough>().is_err());
    }

    #[test]
    fn knobs_turn_what_has_rounds() {
        let row = parse("queued-pre-copy").unwrap();
        let knobs = Knobs { rounds: Some(3), enough: Some(Enough { percent: 5, ..Enough::default() }) };
        let turned = knobs.apply(&row).unwrap();
        assert_eq!(notation(&turned), "prepare=all+quiet(1,3,5%) down=rest post=none");
        assert_eq!((turned.name, Knobs::default().apply(&row)), ("queued-pre-copy".into(), Ok(row.clone())));
        assert_eq!(Knobs { rounds: Some(0), enough: None }.apply(&row), Err(Flaw::NoRounds(1)));
    }
}

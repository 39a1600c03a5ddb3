//! The table itself: one row per strategy.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use crate::row::{Order, Origin, Phase, Row, Set, Step, Until};

/// Every strategy that can be asked for by name.
pub static TABLE: &[Row] = &[Row {
    name: Cow::Borrowed("total-copy"),
    steps: Cow::Borrowed(&[Step {
        phase: Phase::Down,
        set: Set::All,
        until: Until::Sent,
        order: Order::Push,
        from: Origin::Source,
    }]),
    seen_in: Cow::Borrowed("Charlotte, Amoeba, RHODOS"),
}];

/// There is no strategy of this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownStrategy {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no strategy is called {:?}; there is", self.name)?;
        for (position, row) in TABLE.iter().enumerate() {
            write!(f, "{}{}", if position == 0 { " " } else { ", " }, row.name)?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownStrategy {}

/// The row called `name`.
///
/// # Errors
/// [`UnknownStrategy`] if the table has none; its text lists those that exist.
pub fn parse(name: &str) -> Result<&'static Row, UnknownStrategy> {
    TABLE.iter().find(|row| row.name == name).ok_or_else(|| UnknownStrategy { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;
    use alloc::string::ToString;

    #[test]
    fn every_row_is_found_by_its_name_and_is_sound() {
        for row in TABLE {
            assert_eq!(parse(&row.name).map(|found| &found.name), Ok(&row.name));
            assert_eq!(validate(row, true), Ok(()), "{}", row.name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let answer = parse("teleport").unwrap_err().to_string();
        assert_eq!(answer, "no strategy is called \"teleport\"; there is total-copy");
    }
}

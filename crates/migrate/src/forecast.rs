//! What each strategy would cost for a running tree and a link, and which of them suits the user: a short tracked sample of what the
//! tree writes, a probe of the link, and the predictions of `godwit_strategy`.
use crate::link_probe;
use crate::sample::{Sampled, sample};
use crate::source::{AUTO, Options};
use godwit_image::{Code, Refusal, Subject};
use godwit_strategy::{
    Costs, LinkProfile, Objective, Origin, Prediction, Profile, Row, TABLE, choose, predict, validate,
};

/// What is assumed where a link cannot be measured: 1 Gbit/s and 1 ms there and back.
const ASSUMED: LinkProfile = LinkProfile { bytes_per_second: 125e6, round_trip_ms: 1.0 };

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Priced {
    /// The strategy.
    pub row: &'static Row,
    /// What it would cost, or why it cannot be used.
    pub price: Result<Prediction, String>,
}

/// What was found out, and what it means.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The tree.
    pub profile: Profile,
    /// Why what it writes is not known, if so.
    pub untracked: Option<String>,
    /// The link.
    pub link: LinkProfile,
    /// Whether the link was measured; otherwise it is assumed.
    pub is_measured: bool,
    /// Every strategy, in the order of the table.
    pub priced: Vec<Priced>,
}

/// Whether a forecast may stop the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Once, for as long as it takes to begin tracking what it writes.
    Writes,
    /// Not at all: it is taken to write nothing.
    Nothing,
}

/// Finds out what each strategy would cost.
///
/// # Errors
/// The tree is gone, or the destination cannot be reached.
pub fn forecast(pid: i32, destination: &str, options: &Options, watch: Watch) -> Result<Forecast, Refusal> {
    let program = options.remote_program.clone();
    let (sample, link) = std::thread::scope(|scope| {
        let link = scope.spawn(|| link_probe::probe(destination, program));
        (sample(pid, watch), link.join())
    });
    let link = link.unwrap_or_else(|_| Err(Refusal::new(Code::LINK_LOST, Subject::Host, "the probe ended")))?;
    let Sampled { profile, untracked, tracks } = sample?;
    let costs = Costs::default();
    let price = |row: &'static Row| Priced {
        row,
        price: usable(row, tracks, options.pages.is_some())
            .map(|()| predict(row, &profile, &link.unwrap_or(ASSUMED), &costs)),
    };
    let priced = TABLE.iter().map(price).collect();
    Ok(Forecast { priced, untracked, link: link.unwrap_or(ASSUMED), is_measured: link.is_some(), profile })
}

/// Puts the strategy that is to be used in the place of [`AUTO`]; why it was chosen. Nothing where the user named one.
pub(crate) fn take(pid: i32, destination: &str, options: &mut Options) -> Result<Option<String>, Refusal> {
    if options.strategy != AUTO {
        return Ok(None);
    }
    let (forecast, objective) = (forecast(pid, destination, options, Watch::Writes)?, options.objective);
    let chosen = forecast
        .choose(objective)
        .ok_or_else(|| Refusal::new(Code::UNSUPPORTED, Subject::Object(AUTO.to_owned()), forecast.reason(objective)))?;
    options.strategy = chosen.row.name.to_string();
    Ok(Some(forecast.reason(objective)))
}

/// Why a row cannot be used here.
fn usable(row: &Row, tracks: bool, has_store: bool) -> Result<(), String> {
    validate(row, tracks).map_err(|flaw| flaw.to_string())?;
    if !has_store && row.steps.iter().any(|step| step.from == Origin::Store) {
        return Err("it needs a page store (--pages)".to_owned());
    }
    Ok(())
}

impl Forecast {
    /// The strategy that suits an objective best.
    #[must_use]
    pub fn choose(&self, objective: Objective) -> Option<&Priced> {
        let prices: Vec<Option<Prediction>> = self.priced.iter().map(|priced| priced.price.clone().ok()).collect();
        choose(objective, &prices).and_then(|at| self.priced.get(at))
    }

    /// Why the strategy of an objective was chosen, in a sentence.
    #[must_use]
    pub fn reason(&self, objective: Objective) -> String {
        let Some(chosen) = self.choose(objective) else { return "no strategy reaches this objective".to_owned() };
        let cost = |priced: &Priced| priced.price.as_ref().map_or(f64::INFINITY, |price| objective.cost(price));
        let others = self.priced.iter().filter(|priced| priced.row.name != chosen.row.name);
        let next =
            others.filter(|priced| cost(priced).is_finite()).min_by(|one, other| cost(one).total_cmp(&cost(other)));
        let writes = match self.profile.written.last() {
            Some((time, last)) => format!("{last} of them written in {time:.0} ms"),
            None => "what it writes is not known".to_owned(),
        };
        let than = next.map_or_else(String::new, |next| format!(", {} {:.1} ms", next.row.name, cost(next)));
        format!(
            "for {}: {} is foreseen to cost {:.1} ms{than}; {} pages, {writes}; {:.1} MB/s and {:.2} ms{}",
            objective.name(),
            chosen.row.name,
            cost(chosen),
            self.profile.pages + self.profile.untracked_pages,
            self.link.bytes_per_second / 1e6,
            self.link.round_trip_ms,
            if self.is_measured { "" } else { " (assumed)" },
        )
    }
}

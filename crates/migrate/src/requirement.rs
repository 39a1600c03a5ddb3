//! What a tree needs of its destination: said before anything is frozen, examined there against what the host has.
use godwit_engine::check::Examination;
use godwit_engine::demand::Demand;
use godwit_engine::ground::{self, Ground};
use godwit_engine::pieces::Pieces;
use godwit_image::codec;
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The needs, as the source's driver sends them in its Offer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Requirements {
    /// The source host, its clocks as the tree sees them.
    pub(crate) host: HostFacts,
    /// What the tree demands.
    pub(crate) demand: Demand,
    /// Large memory comes without checksums of its own, so that nobody has to see it on its way.
    #[serde(default)]
    pub(crate) unseen: bool,
    /// The page store from which pages come when the tree runs.
    #[serde(default)]
    pub(crate) store: Option<String>,
    /// How many of the demand's needs had no room in the message.
    #[serde(default)]
    pub(crate) left_out: u64,
}

impl Requirements {
    pub(crate) fn of(examination: &Examination, host: HostFacts, unseen: bool) -> Requirements {
        Requirements { host, demand: examination.demand.clone(), unseen, store: None, left_out: 0 }
    }

    /// The bytes. What does not fit into a message is left out: of very many areas, which are made when they come, and of very many
    /// files, which are found when they are opened; how many, the destination is told, and says so.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut requirements = self.clone();
        loop {
            let bytes = codec::encode(&requirements).unwrap_or_default();
            let pieces = &mut requirements.demand.foresight.pieces;
            if bytes.len() <= BYTES_MAX || (requirements.demand.needs.is_empty() && *pieces == Pieces::default()) {
                return bytes;
            }
            if std::mem::take(pieces) != Pieces::default() {
                continue;
            }
            let needs = &mut requirements.demand.needs;
            let left = needs.len() / 2;
            requirements.left_out += (needs.len() - left) as u64;
            needs.truncate(left);
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Requirements, Refusal> {
        codec::decode(bytes).map_err(|error| {
            Refusal::new(Code::MALFORMED, Subject::Object("requirements".to_owned()), error.to_string())
        })
    }

    /// What this host cannot give, but for numbers that are taken.
    fn examine(&self, ground: &Ground) -> Vec<Refusal> {
        ground.lacks(&self.demand, &self.host)
    }

    /// That not everything could be asked for beforehand.
    fn unexamined(&self) -> Option<Refusal> {
        let cause = format!(
            "{} of the files and features that it needs are looked for only when it is stopped, because there are so many: it goes on at the source if one is missing",
            self.left_out
        );
        let subject = Subject::Object("what the tree needs".to_owned());
        (self.left_out > 0).then(|| Refusal::new(Code::DIFFERS_THERE, subject, cause))
    }

    /// The numbers that belong to somebody else here.
    fn taken(&self) -> Vec<Refusal> {
        ground::taken(&self.demand)
    }

    /// Whether this host can take the tree, and where. `may_be_elsewhere`: it may get a PID namespace of its own.
    pub(crate) fn judge(self, may_be_elsewhere: bool) -> Judgement {
        let ground = Ground::read();
        let mut refusals = self.examine(&ground);
        let mut changes = ground.changes(&self.demand, &self.host);
        changes.extend(self.unexamined());
        let taken = self.taken();
        // In a namespace of its own the first process is not the tree's.
        let elsewhere = may_be_elsewhere && !self.demand.numbers.contains(&1) && ground.can_make_number_namespaces();
        if refusals.is_empty() && !taken.is_empty() && elsewhere {
            let Demand { numbers, leaders, .. } = self.demand;
            let numbers = numbers.into_iter().chain(leaders.into_keys()).collect();
            return Judgement::Elsewhere(numbers, changes);
        }
        if !elsewhere {
            refusals.extend(taken);
        }
        if refusals.is_empty() { Judgement::Here(changes) } else { Judgement::Refused(refusals) }
    }
}

/// What a destination says to requirements.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// They are met; what will differ all the same.
    Here(Vec<Refusal>),
    /// They are met in a PID namespace of the tree's own; the numbers that are to be free there, and what will differ all the same.
    Elsewhere(BTreeSet<i32>, Vec<Refusal>),
    /// They are not.
    Refused(Vec<Refusal>),
}

/// Bytes of requirements that a message holds.
const BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_engine::resource::Need;

    fn own(demand: Demand) -> Requirements {
        Requirements { host: godwit_engine::host::facts(), demand, unseen: false, store: None, left_out: 0 }
    }

    #[test]
    fn this_host_can_give_what_it_has_and_nothing_more() {
        let ground = Ground::read();
        assert_eq!(own(Demand { memory_bytes: 1 << 20, ..Demand::default() }).examine(&ground), []);
        let greedy = own(Demand { memory_bytes: u64::MAX, ..Demand::default() }).examine(&ground);
        assert_eq!(greedy.iter().map(|refusal| refusal.code).collect::<Vec<_>>(), [Code::DESTINATION_LACKS]);
        let taken = own(Demand { numbers: [std::process::id() as i32].into(), ..Demand::default() }).taken();
        assert_eq!(taken.iter().map(|refusal| refusal.code).collect::<Vec<_>>(), [Code::PID_IN_USE]);
    }

    #[test]
    fn needs_come_back_as_they_were_and_nonsense_is_refused() {
        let need = |number: usize| (Subject::Process(7), Need::path(format!("/tmp/{number:0100}"), 0o100_000));
        let needs = own(Demand { needs: (0..10).map(need).collect(), ..Demand::default() });
        assert_eq!(Requirements::decode(&needs.encode()), Ok(needs));
        assert_eq!(Requirements::decode(b"nonsense").unwrap_err().code, Code::MALFORMED);
        let many = own(Demand { needs: (0..10_000).map(need).collect(), ..Demand::default() });
        let sent = Requirements::decode(&many.encode()).unwrap();
        assert!(many.encode().len() <= BYTES_MAX && (1000..10_000).contains(&sent.demand.needs.len()));
        // What is left out is said.
        assert_eq!(sent.demand.needs.len() as u64 + sent.left_out, 10_000);
        let told = |left_out| match (Requirements { left_out, ..own(Demand::default()) }).judge(false) {
            Judgement::Here(changes) => changes.into_iter().map(|change| change.cause).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(0), [""; 0]);
        let causes = told(17);
        assert!(causes.len() == 1 && causes[0].starts_with("17 of the files and features"), "{causes:?}");
    }
}

//! Single stories: what the machines say, do and answer where it is not a matter of faults.

mod harness;

use godwit_deterministic::{Duration, Instant};
use godwit_handoff::{
    Action, BootId, Capabilities, Deed, Destination, DestinationConfig, Doubt, Event, Message, Opaque, Outcome, Packet,
    Patience, Reason, Record, Settlement, Side, Source, Stage, Step, Totals, Unsupported, Value, Verdict, Versions,
};
use godwit_strategy::{Enough, Order, Origin, Phase, Row, Set, Until};

use harness::fault::{Chooser, Fault};
use harness::pair::{MIGRATION, Pair, source_config};

const HERE: BootId = BootId([1; 16]);
const THERE: BootId = BootId([2; 16]);
const NOW: Instant = Instant::from_nanoseconds(1_000_000_000);

fn packet(message: Message) -> Event {
    Event::Received(Packet { migration: MIGRATION, message })
}

fn actions(mut poll: impl FnMut() -> Option<Action>) -> Vec<Action> {
    std::iter::from_fn(&mut poll).collect()
}

fn messages(mut poll: impl FnMut() -> Option<Packet>) -> Vec<Message> {
    std::iter::from_fn(&mut poll).map(|packet| packet.message).collect()
}

fn deeds(mut poll: impl FnMut() -> Option<Action>) -> Vec<Deed> {
    std::iter::from_fn(&mut poll).map(|action| action.deed()).collect()
}

fn destination() -> Destination {
    Destination::new(
        NOW,
        DestinationConfig {
            migration: MIGRATION,
            boot: THERE,
            versions: Versions::SUPPORTED,
            capabilities: Capabilities::default(),
            patience: Patience::default(),
        },
    )
}

/// A source that has sent its offer.
fn offering(configure: impl FnOnce(&mut godwit_handoff::SourceConfig)) -> Source {
    let mut config = source_config(HERE);
    configure(&mut config);
    let mut source = Source::new(config).expect("the machine can run the row");
    source.handle(NOW, Event::Start);
    let answer = Message::HelloAnswer { version: 1, boot: THERE, capabilities: Capabilities::default() };
    source.handle(NOW, packet(answer));
    let said = messages(|| source.poll_message());
    assert!(matches!(said[..], [Message::Hello { .. }, Message::Offer { .. }]));
    source
}

/// A source that is in doubt, over a link that is up.
fn doubting() -> Source {
    let record =
        Record { side: Side::Source, stage: Stage::CommitSent, migration: MIGRATION, boot: HERE, details: Vec::new() };
    let mut source = Source::recover(NOW, &record, HERE, Patience::default()).expect("there is something to recover");
    assert_eq!(actions(|| source.poll_action()), [Action::Reconnect]);
    source.handle(NOW, Event::LinkUp);
    assert_eq!(messages(|| source.poll_message()), [Message::Query]);
    source
}

#[test]
fn the_timeline_of_a_move_has_the_words_of_the_field() {
    let mut pair = Pair::new(Chooser::Never, |_, _| {});
    assert_eq!(pair.run(), Ok(()));
    let source = pair.source.as_ref().expect("nothing died");
    let time = source.timeline();
    assert_eq!(source.outcome(), Some(&Outcome::Moved));
    // Every message takes 100 µs and every action 50 µs in this world.
    let microseconds = |count| Some(Duration::from_microseconds(count));
    assert_eq!(time.preparation(), microseconds(50), "one journal entry");
    assert_eq!(time.down(), microseconds(10 * 50 + 4 * 100), "ten actions, four messages");
    assert_eq!(time.post_processing(), microseconds(3 * 50), "two journal entries and the kill");
    assert_eq!(time.initial(), time.requested.zip(time.resumed).map(|(from, to)| to.since(from)));
    assert_eq!(time.total(), Some(time.initial().unwrap() + time.post_processing().unwrap()));
    assert!(pair.destination.as_ref().expect("nothing died").is_ended());
}

#[test]
fn everything_twice_is_as_good_as_once() {
    let mut pair = Pair::new(Chooser::Each(Fault::Double), |_, _| {});
    assert_eq!(pair.run_until_quiet(), Ok(()));
    assert_eq!(pair.source.as_ref().and_then(Source::outcome), Some(&Outcome::Moved));
    assert_eq!(pair.run(), Ok(()));
}

#[test]
fn a_dry_run_freezes_nothing_and_notes_nothing() {
    let mut pair = Pair::new(Chooser::Never, |source, _| source.dry_run = true);
    assert_eq!(pair.run(), Ok(()));
    assert_eq!(pair.source.as_ref().and_then(Source::outcome), Some(&Outcome::Checked));
    assert_eq!(pair.destination.as_ref().and_then(Destination::outcome), Some(&Outcome::Checked));
    assert!(pair.host(Side::Source).journal.is_empty() && pair.host(Side::Destination).journal.is_empty());
    assert!(pair.world.source.run());
}

#[test]
fn a_refusal_comes_before_the_freeze_and_with_all_its_reasons() {
    let refusals = vec![Opaque::from("no such file"), Opaque::from("PID 7 is taken")];
    let mut destination = destination();
    let hello = Message::Hello { versions: Versions::SUPPORTED, boot: HERE, capabilities: Capabilities::default() };
    destination.handle(NOW, packet(hello));
    let offer = Message::Offer { dry_run: false, strategy: "total-copy".to_owned(), requirements: b"needs".to_vec() };
    destination.handle(NOW, packet(offer));
    let examine =
        Action::Examine { dry_run: false, strategy: "total-copy".to_owned(), requirements: b"needs".to_vec() };
    assert_eq!(actions(|| destination.poll_action()), [examine]);
    destination.handle(NOW, Event::Refused(refusals.clone()));
    let said = messages(|| destination.poll_message());
    assert_eq!(said.last(), Some(&Message::Refuse { refusals: refusals.clone() }));
    assert!(destination.is_ended());

    let mut source = offering(|_| {});
    source.handle(NOW, packet(Message::Refuse { refusals: refusals.clone() }));
    assert_eq!(actions(|| source.poll_action()), []);
    let expected = Outcome::RolledBack { by: Side::Destination, reason: Reason::Refused(refusals) };
    assert_eq!(source.outcome(), Some(&expected));
}

#[test]
fn both_sides_learn_why_there_is_no_common_version() {
    let newer = Versions { oldest: 7, newest: 9 };
    let mut pair = Pair::new(Chooser::Never, |source, _| source.versions = newer);
    assert_eq!(pair.run(), Ok(()));
    let reason = Reason::NoCommonVersion { source: newer, destination: Versions::SUPPORTED };
    let expected = Outcome::RolledBack { by: Side::Destination, reason };
    assert_eq!(pair.source.as_ref().and_then(Source::outcome), Some(&expected));
    assert_eq!(pair.destination.as_ref().and_then(Destination::outcome), Some(&expected));
}

#[test]
fn a_strategy_that_the_destination_does_not_have_is_refused() {
    let mut pair = Pair::new(Chooser::Never, |source, _| source.row.name = "teleport".into());
    assert_eq!(pair.run(), Ok(()));
    let reason = Reason::UnknownStrategy("teleport".to_owned());
    let expected = Outcome::RolledBack { by: Side::Destination, reason };
    assert_eq!(pair.source.as_ref().and_then(Source::outcome), Some(&expected));
}

#[test]
fn what_each_side_can_do_reaches_the_other() {
    let mut pair = Pair::new(Chooser::Never, |source, destination| {
        source.capabilities.set("kernel", Value::Text("6.1".to_owned()));
        destination.capabilities.set("time namespace", Value::Flag(true)).set("cpus", Value::Number(2));
    });
    assert_eq!(pair.run(), Ok(()));
    let there = pair.source.as_ref().and_then(Source::peer).expect("they have met");
    assert_eq!((there.version, there.boot), (1, THERE));
    assert!(there.capabilities.has("time namespace"));
    assert_eq!(there.capabilities.number("cpus"), Some(2));
    let here = pair.destination.as_ref().and_then(Destination::peer).expect("they have met");
    assert_eq!((here.boot, here.capabilities.text("kernel")), (HERE, Some("6.1")));
}

fn step(phase: Phase, set: Set, until: Until) -> godwit_strategy::Step {
    godwit_strategy::Step { phase, set, until, order: Order::Push, from: Origin::Source }
}

#[test]
fn a_row_with_rounds_is_walked_before_the_freeze() {
    let steps = vec![
        step(Phase::Preparation, Set::All, Until::Sent),
        step(Phase::Preparation, Set::DirtySinceRound, Until::Limit { enough: Enough::pages(4), rounds: 9 }),
        step(Phase::Down, Set::Rest, Until::Sent),
    ];
    let mut source = offering(|config| {
        config.row = Row { name: "rounds".into(), steps: steps.into(), seen_in: "".into(), about: "".into() };
    });
    source.handle(NOW, packet(Message::Accept { changes: Vec::new() }));
    assert_eq!(deeds(|| source.poll_action()), [Deed::Journal(Stage::Started)]);
    source.handle(NOW, Event::noted(Stage::Started));
    for (step, round, left) in [(0, 1, 100), (1, 2, 50), (1, 3, 3)] {
        assert_eq!(source.step(), Some(Step::Prepare));
        assert_eq!(actions(|| source.poll_action()), [Action::Send { step, round }]);
        source.handle(NOW, Event::Sent { round, left: left.into() });
        // A doubled report is not taken for the next round's.
        source.handle(NOW, Event::Sent { round, left: left.into() });
    }
    assert_eq!(actions(|| source.poll_action()), [Action::Freeze]);
    source.handle(NOW, Event::Done(Deed::Freeze));
    assert_eq!(actions(|| source.poll_action()), [Action::Capture, Action::Send { step: 2, round: 4 }]);
    // Capture and pages may end in either order; only then is everything flushed.
    source.handle(NOW, Event::Sent { round: 4, left: 0.into() });
    assert_eq!(actions(|| source.poll_action()), []);
    source.handle(NOW, Event::Done(Deed::Capture));
    assert_eq!(actions(|| source.poll_action()), [Action::Finish]);
    let totals = Totals { pages: 9, bytes: 8, checksum: 7 };
    source.handle(NOW, Event::AllSent(totals));
    assert_eq!(messages(|| source.poll_message()), [Message::AllSent(totals)]);
}

#[test]
fn a_row_that_needs_a_page_store_is_refused() {
    let mut config = source_config(HERE);
    let steps =
        vec![godwit_strategy::Step { from: Origin::Store, ..step(Phase::PostProcessing, Set::All, Until::Sent) }];
    config.row = Row { name: "post-copy".into(), steps: steps.into(), seen_in: "".into(), about: "".into() };
    assert_eq!(Source::new(config).err(), Some(Unsupported { step: 0 }));
}

#[test]
fn what_moves_keeps_the_time_outs_away() {
    let mut source = offering(|_| {});
    source.handle(NOW, packet(Message::Accept { changes: Vec::new() }));
    source.handle(NOW, Event::noted(Stage::Started));
    source.handle(NOW, Event::Done(Deed::Freeze));
    let patience = Patience::default().transfer;
    let mut now = NOW;
    for _ in 0..5 {
        now += patience - Duration::from_milliseconds(1);
        source.handle(now, packet(Message::Heartbeat));
        source.handle(now, Event::Moved { pages: 1, bytes: 4_096 });
        source.handle(now, Event::Timeout);
        assert_eq!(source.step(), Some(Step::Transfer));
    }
    assert_eq!(source.moved(), (5, 20_480));
    now += patience;
    source.handle(now, packet(Message::Heartbeat));
    source.handle(now, Event::Timeout);
    assert_eq!(messages(|| source.poll_message()).last(), Some(&Message::Abort(Reason::TimedOut(Step::Transfer))));
}

#[test]
fn a_roll_back_walks_the_table_upwards() {
    let mut source = offering(|_| {});
    source.handle(NOW, packet(Message::Accept { changes: Vec::new() }));
    source.handle(NOW, Event::noted(Stage::Started));
    source.handle(NOW, Event::Done(Deed::Freeze));
    source.handle(NOW, Event::Done(Deed::Capture));
    source.handle(NOW, Event::Sent { round: 1, left: 0.into() });
    source.handle(NOW, Event::AllSent(Totals::default()));
    source.handle(NOW, packet(Message::Ready { root: 7 }));
    source.handle(NOW, Event::Done(Deed::HoldStopped));
    let _ = (deeds(|| source.poll_action()), messages(|| source.poll_message()));
    source.handle(NOW, Event::Cancel);
    assert_eq!(messages(|| source.poll_message()), [Message::Abort(Reason::Cancelled)]);
    let order = [
        Deed::Journal(Stage::RolledBack),
        Deed::ReleaseHold,
        Deed::StopSending,
        Deed::Thaw,
        Deed::StopSending,
        Deed::Journal(Stage::Done),
    ];
    for deed in order {
        assert_eq!(source.outcome(), None);
        assert_eq!(deeds(|| source.poll_action()), [deed]);
        source.handle(NOW, Event::Done(deed));
    }
    assert_eq!(messages(|| source.poll_message()), [Message::Goodbye]);
    assert_eq!(source.outcome(), Some(&Outcome::RolledBack { by: Side::Source, reason: Reason::Cancelled }));
    assert_eq!(source.timeline().down(), Some(Duration::ZERO));
}

#[test]
fn only_a_person_settles_what_the_destination_does_not_know() {
    for (settlement, first) in
        [(Settlement::Kill, Deed::Journal(Stage::Committed)), (Settlement::Resume, Deed::Journal(Stage::RolledBack))]
    {
        let mut source = doubting();
        source.handle(NOW, Event::Settle(settlement));
        assert_eq!(deeds(|| source.poll_action()), [], "not before the doubt was reported");
        source.handle(NOW, packet(Message::Answer(Verdict::Unknown)));
        assert_eq!(source.outcome(), Some(&Outcome::InDoubt(Doubt::Unknown)));
        assert_eq!(source.poll_timeout(), None, "asking again would give the same answer");
        assert_eq!(deeds(|| source.poll_action()), []);
        source.handle(NOW, Event::Settle(settlement));
        assert_eq!(deeds(|| source.poll_action()), [first]);
    }
}

#[test]
fn a_doubt_is_reported_and_still_settled_by_a_late_answer() {
    let mut source = doubting();
    let mut now = NOW;
    while source.outcome().is_none() {
        now = source.poll_timeout().expect("it goes on asking");
        source.handle(now, Event::Timeout);
        if actions(|| source.poll_action()).contains(&Action::Reconnect) {
            source.handle(now, Event::LinkLost);
        }
    }
    assert_eq!(source.outcome(), Some(&Outcome::InDoubt(Doubt::NoAnswer)));
    assert_eq!(now.since(NOW), Patience::default().doubt);
    while !actions(|| source.poll_action()).contains(&Action::Reconnect) {
        now = source.poll_timeout().expect("it goes on asking");
        source.handle(now, Event::Timeout);
    }
    source.handle(now, Event::LinkUp);
    source.handle(now, packet(Message::Answer(Verdict::Committed)));
    assert_eq!(source.outcome(), None);
    assert_eq!(deeds(|| source.poll_action()), [Deed::Journal(Stage::Committed)]);
}

#[test]
fn a_source_does_not_believe_messages_out_of_turn() {
    let mut source = offering(|_| {});
    for message in [Message::Ready { root: 7 }, Message::Resumed, Message::Answer(Verdict::Committed), Message::Commit]
    {
        source.handle(NOW, packet(message));
    }
    assert_eq!(source.step(), Some(Step::Agree));
    assert_eq!(actions(|| source.poll_action()), []);
}

#[test]
fn a_destination_gives_up_on_a_commit_out_of_turn() {
    let mut destination = destination();
    destination.handle(NOW, packet(Message::Commit));
    assert_eq!(messages(|| destination.poll_message()), [Message::Abort(Reason::OutOfTurn(Step::Greet))]);
    assert_eq!(actions(|| destination.poll_action()), []);
    assert!(destination.is_ended());
}

#[test]
fn a_commit_that_comes_too_late_is_answered() {
    let boot = THERE;
    let side = Side::Destination;
    let record = Record { side, stage: Stage::Accepted, migration: MIGRATION, boot, details: Vec::new() };
    let mut destination = Destination::recover(NOW, MIGRATION, Some(&record), boot, Patience::default());
    destination.handle(NOW, Event::LinkUp);
    for _ in 0..2 {
        destination.handle(NOW, packet(Message::Commit));
        assert_eq!(messages(|| destination.poll_message()), [Message::Answer(Verdict::Aborted)]);
        while let Some(action) = destination.poll_action() {
            destination.handle(NOW, Event::Done(action.deed()));
        }
    }
    destination.handle(NOW, packet(Message::Goodbye));
    assert_eq!(deeds(|| destination.poll_action()), [Deed::Journal(Stage::Done)]);
}

#[test]
fn a_journal_of_the_other_side_or_of_the_past_is_not_recovered() {
    let record = |side, stage| Record { side, stage, migration: MIGRATION, boot: HERE, details: Vec::new() };
    let recover = |record: &Record| Source::recover(NOW, record, HERE, Patience::default()).is_some();
    assert!(recover(&record(Side::Source, Stage::Started)));
    assert!(!recover(&record(Side::Source, Stage::Done)));
    assert!(!recover(&record(Side::Destination, Stage::Committed)));
    for record in [record(Side::Source, Stage::Committed), record(Side::Destination, Stage::Done)] {
        let mut destination = Destination::recover(NOW, MIGRATION, Some(&record), HERE, Patience::default());
        destination.handle(NOW, Event::LinkUp);
        destination.handle(NOW, packet(Message::Query));
        assert_eq!(messages(|| destination.poll_message()), [Message::Answer(Verdict::Unknown)]);
        assert_eq!(actions(|| destination.poll_action()), []);
    }
}

#[test]
fn a_host_that_was_started_anew_does_not_touch_tasks_of_its_earlier_boot() {
    let record =
        Record { side: Side::Source, stage: Stage::Started, migration: MIGRATION, boot: HERE, details: vec![] };
    let mut source = Source::recover(NOW, &record, THERE, Patience::default()).expect("there is something to note");
    while let Some(action) = source.poll_action() {
        assert!(matches!(&action, Action::WriteJournal(record) if record.boot == HERE), "{action:?}");
        source.handle(NOW, Event::Done(action.deed()));
    }
    assert_eq!(source.outcome(), Some(&Outcome::Lost));
}

//! The engine stays small whatever it moves: pages pass through it in pieces.
use godwit_bench::case::ENGINE_MEMORY_MAX;
use godwit_bench::{Error, Plan};
use std::path::PathBuf;

#[test]
fn a_gibibyte_passes_through_a_small_engine() {
    let plan = Plan {
        only: ["1-gib", "gib-checked", "1000-threads"].map(str::to_owned).to_vec(),
        repetitions: 1,
        godwit: PathBuf::from(env!("CARGO_BIN_EXE_godwit")),
        timelines: None,
    };
    let report = match godwit_bench::run(&plan, &mut |text| println!("{text}")) {
        Ok(report) => report,
        Err(Error::Refused(reason)) => return println!("skipped: {reason}"),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(report.measured.len(), 3);
    for measured in &report.measured {
        assert_eq!(measured.trouble, None, "{}", measured.case.name);
        let peak = measured.peak().expect("it was watched");
        assert!(peak > 1 << 20, "{}: nothing was seen: {:?}", measured.case.name, measured.peaks);
        assert!(peak < ENGINE_MEMORY_MAX, "{}: {peak} bytes: {:?}", measured.case.name, measured.peaks);
    }
}

//! Processes that are not there, not ours, or not for godwit to move: each says so, and nothing is touched.
use crate::scene::{GODWIT, Receiver, Scratch, godwit, json, pair};
use godwit_linux::namespace::User;
use godwit_testbed::holder::{Holder, Start};
use std::process::Output;

fn assert_refused(what: &str, output: &Output, code: &str, cause: &str) {
    assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
    let said = json(output);
    let refusals = said["refusals"].as_array().unwrap_or_else(|| panic!("{what}: {said}"));
    let told = |refusal: &&serde_json::Value| {
        refusal["code"] == code && refusal["cause"].as_str().is_some_and(|text| text.contains(cause))
    };
    assert!(refusals.iter().any(|refusal| told(&refusal)), "{what}: {said}");
}

#[test]
fn who_is_not_there_is_named() {
    let scratch = Scratch::new("strangers");
    let Some(pair) = pair(&scratch) else { return };
    let place = scratch.path("place").display().to_string();
    for pid in ["0", "-1", "4194304", "2147483647"] {
        for arguments in [vec!["check", "--json", "--", pid], vec!["checkpoint", "--json", "--", pid, &place]] {
            assert_refused(pid, &godwit(&pair.source, &arguments), "GW1001", "exist");
        }
        let migrate = godwit(&pair.source, &["migrate", "--json", "--", pid, "tcp://10.77.0.2:1"]);
        assert_refused(pid, &migrate, "GW1001", "exist");
    }
    for nonsense in ["x", "1.5", "99999999999"] {
        assert_eq!(godwit(&pair.source, &["check", nonsense]).status.code(), Some(2), "{nonsense}");
    }
}

#[test]
fn godwit_does_not_move_itself() {
    let scratch = Scratch::new("itself");
    let Some(pair) = pair(&scratch) else { return };
    let place = scratch.path("place").display().to_string();
    for (who, command) in [("itself", "exec "), ("its parent", ""), ("its grandparent", "sh -c ")] {
        for arguments in ["check --json $P".to_string(), format!("checkpoint --json $P {place}")] {
            let call = format!("{GODWIT} {arguments}");
            let script = match command {
                "sh -c " => format!("export P=$$; sh -c '{call}; exit $?'; exit $?"),
                _ => format!("export P=$$; {command}{call}; exit $?"),
            };
            let output = pair.source.command("/bin/sh").args(["-c", &script]).output().expect("sh");
            assert_refused(who, &output, "GW1103", "the godwit that is to move it");
        }
    }
}

/// Of another user's process not even its memory map may be seen; nothing is guessed.
#[test]
fn who_has_no_rights_is_told() {
    let scratch = Scratch::new("rights");
    let Some(pair) = pair(&scratch) else { return };
    let other = || Some(User { user: 1000, group: 1000, supplementary: Vec::new() });
    // Wherever this test was built, everybody can run this.
    let program = scratch.path("godwit");
    std::fs::copy(GODWIT, &program).expect("a copy");
    let Ok(Start::Holds(holder)) = Holder::start(&pair.source, "none", None) else { panic!("no process") };
    let (before, pid) = (holder.switches(), holder.pid.to_string());
    let place = scratch.path("place").display().to_string();
    for arguments in [vec!["check", "--json", &pid], vec!["checkpoint", "--json", &pid, &place]] {
        let output = pair.source.command(&program).args(&arguments).user(other()).output().expect("godwit runs");
        assert_refused("no rights", &output, "GW1002", "Permission denied");
    }
    let output = pair.source.command(&program).args(["migrate", "--json", &pid, "tcp://10.77.0.2:1"]).user(other());
    assert_refused("no rights", &output.output().expect("godwit runs"), "GW1002", "Permission denied");
    assert!(before.is_some() && holder.switches() == before && holder.goes_on(), "it was frozen");
}

/// A tree that ends at any moment of a command: an answer that says so, or a success just before; never anything else.
#[test]
fn who_vanishes_midway_is_no_riddle() {
    let scratch = Scratch::new("vanishes");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let destination = receiver.destination();
    let mut codes = std::collections::BTreeMap::new();
    for round in 0..90 {
        let command = ["check", "checkpoint", "migrate"][round % 3];
        let place = scratch.path(&format!("place{round}")).display().to_string();
        // Up to where a command has usually ended.
        let (first, last) = (round * 2 / 3, round / 3);
        let script = format!("sleep 0.0{first:02} & sleep 100 & sleep 0.0{last:02}; kill -9 $!; wait");
        let pid = pair.source.command("/bin/sh").args(["-c", &script]).detach().expect("a tree").to_string();
        let mut arguments = vec!["--json", command, &pid];
        arguments.extend((command == "checkpoint").then_some(["--leave-running", &place]).into_iter().flatten());
        arguments.extend((command == "migrate").then_some(destination.as_str()));
        let output = godwit(&pair.source, &arguments);
        let code = match output.status.code() {
            Some(0) => "done".to_owned(),
            Some(1) => json(&output)["refusals"][0]["code"].as_str().unwrap_or("blocked").to_owned(),
            other => panic!("{command} round {round}: {other:?}: {output:?}"),
        };
        assert!(["done", "GW1001", "GW1005"].contains(&code.as_str()), "{command} round {round}: {output:?}");
        *codes.entry((command, code)).or_insert(0) += 1;
    }
    println!("{codes:?}");
}

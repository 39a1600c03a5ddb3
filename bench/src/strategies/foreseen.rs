//! What `godwit check --watch` foresees for a process before it is moved: what auto would choose.
use super::cell::begin;
use super::record::Foreseen;
use super::workload::Workload;
use crate::error::{Doing, Error, program};
use crate::measurement::{PATIENCE, Place, await_listening};
use godwit_strategy::OBJECTIVES;
use serde_json::Value;
use std::process::Stdio;

/// Asks. The process is not moved.
///
/// # Errors
/// It does not go on, or nothing is foreseen.
pub fn ask(place: &Place<'_>, workload: &Workload, link: &str, number: u16) -> Result<Foreseen, Error> {
    let (subject, board) = begin(place, workload, number)?;
    let address = format!("{}:{}", place.pair.destination.address(), 20_000 + number);
    let receiver = place.pair.destination.command(place.godwit).args(["receive", "--listen", &address]);
    let mut receiver = receiver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let asked = await_listening(&mut receiver).and_then(|()| {
        let (pid, to) = (subject.pid.to_string(), format!("tcp://{address}"));
        Ok(place.pair.source.command(place.godwit).args(["check", "--json", &pid, "--watch", "--to", &to]).output()?)
    });
    // It has taken nothing, and waits for more.
    let ended = receiver.kill().and_then(|()| receiver.wait());
    let output = asked?;
    ended.doing("end godwit receive")?;
    board.verify(PATIENCE)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let value: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null);
    read(&value["forecast"], workload.name, link)
        .ok_or_else(|| program("godwit check --watch", format!("it foresees {}", value["forecast"])))
}

fn read(forecast: &Value, workload: &str, link: &str) -> Option<Foreseen> {
    let mut foreseen = Foreseen {
        workload: workload.to_owned(),
        link: link.to_owned(),
        bytes_per_second: forecast["link_bytes_per_second"].as_f64()?,
        ..Foreseen::default()
    };
    for (name, _) in OBJECTIVES {
        let strategy = forecast["chosen"][name]["strategy"].as_str()?;
        foreseen.chosen.insert(name.to_owned(), strategy.to_owned());
    }
    for price in forecast["strategies"].as_array()? {
        if let (Some(strategy), Some(down)) = (price["strategy"].as_str(), price["down_ms"].as_f64()) {
            let of = |name: &str| price[name].as_f64().unwrap_or(f64::MAX);
            foreseen.prices.insert(strategy.to_owned(), [down, of("total_ms"), of("delay_ms")]);
        }
    }
    Some(foreseen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_check_says_is_understood() {
        let chosen = json!({ "strategy": "post-copy", "reason": "it is" });
        let value = json!({
            "link_bytes_per_second": 1e6,
            "chosen": { "downtime": chosen, "total": chosen, "slowdown": chosen, "independence": chosen },
            "strategies": [
                { "strategy": "post-copy", "down_ms": 4.0, "total_ms": 50.0, "delay_ms": 9.0 },
                { "strategy": "flushing", "unusable": "no store" },
            ],
        });
        let foreseen = read(&value, "getpid", "10").unwrap();
        assert_eq!(foreseen.chosen["total"], "post-copy");
        assert_eq!((foreseen.prices.len(), foreseen.prices["post-copy"]), (1, [4.0, 50.0, 9.0]));
        assert!(read(&json!({ "refused": "gone" }), "getpid", "10").is_none());
    }
}

//! What each strategy would cost, as `godwit check --to` shows it.
use crate::output::{Output, bytes};
use godwit_image::Refusal;
use godwit_migrate::forecast::{Forecast, Priced};
use godwit_strategy::OBJECTIVES;
use serde_json::{Value, json};

/// For machines. Nothing is foreseen where it failed.
pub(crate) fn value(forecast: Option<&Result<Forecast, Refusal>>) -> Value {
    let Some(forecast) = forecast else { return Value::Null };
    let forecast = match forecast {
        Ok(forecast) => forecast,
        Err(refusal) => return json!({ "refused": refusal.to_string() }),
    };
    let priced = |priced: &Priced| match &priced.price {
        Ok(price) => json!({
            "strategy": priced.row.name,
            "preparation_ms": price.preparation_ms,
            "down_ms": price.down_ms,
            "post_ms": price.post_ms,
            "total_ms": price.total_ms,
            "delay_ms": price.delay_ms,
            "transfers": price.transfers,
        }),
        Err(why) => json!({ "strategy": priced.row.name, "unusable": why }),
    };
    let chosen = OBJECTIVES.map(|(name, objective)| {
        let strategy = forecast.choose(objective).map(|chosen| chosen.row.name.to_string());
        (name.to_owned(), json!({ "strategy": strategy, "reason": forecast.reason(objective) }))
    });
    json!({
        "pages": forecast.profile.pages,
        "untracked_pages": forecast.profile.untracked_pages,
        "written": forecast.profile.written,
        "untracked": forecast.untracked,
        "link_bytes_per_second": forecast.link.bytes_per_second,
        "link_round_trip_ms": forecast.link.round_trip_ms,
        "link_is_measured": forecast.is_measured,
        "strategies": forecast.priced.iter().map(priced).collect::<Vec<_>>(),
        "chosen": chosen.into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

/// For people.
pub(crate) fn show(forecast: &Result<Forecast, Refusal>, output: &Output) {
    let forecast = match forecast {
        Ok(forecast) => forecast,
        Err(refusal) => return output.line(&format!("what each strategy would cost cannot be foreseen: {refusal}")),
    };
    let link = if forecast.is_measured { "the link carries" } else { "the link is taken to carry" };
    output.line(&format!(
        "{} of its own, {link} {}/s, {:.2} ms there and back; foreseen, in ms:",
        bytes(forecast.profile.pages * 4096),
        bytes(forecast.link.bytes_per_second as u64),
        forecast.link.round_trip_ms
    ));
    if let Some(why) = &forecast.untracked {
        output.line(&format!("  what it writes is not known: {why}"));
    }
    output.line("  strategy            preparation        down        post       total  late by     pages");
    for priced in &forecast.priced {
        match &priced.price {
            Ok(price) => output.line(&format!(
                "  {:<20}{:>11.1} {:>11.1} {:>11} {:>11.1} {:>8.0} {:>9}",
                priced.row.name,
                price.preparation_ms,
                price.down_ms,
                price.post_ms.map_or_else(|| "endless".to_owned(), |post| format!("{post:.1}")),
                price.total_ms,
                price.delay_ms,
                price.transfers
            )),
            Err(why) => output.line(&format!("  {:<20}cannot be used: {why}", priced.row.name)),
        }
    }
    for (name, objective) in OBJECTIVES {
        if let Some(chosen) = forecast.choose(objective) {
            output.line(&format!("  --strategy auto --objective {name}: {}", chosen.row.name));
        }
    }
}

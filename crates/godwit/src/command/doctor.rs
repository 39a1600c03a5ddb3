//! `godwit doctor`: what this host can and cannot do, and what to change.
use crate::output::{CommandResult, Output, bytes};
use godwit_engine::host;
use godwit_linux::features::{self, Features, Row, Support, TABLE, Weight, capability};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Yama's restricted mode: only descendants may be traced without CAP_SYS_PTRACE.
const PTRACE_SCOPE_FREE: u8 = 0;
const CAP_SYS_PTRACE: u8 = 19;

fn word(support: Support) -> &'static str {
    match support {
        Support::Works => "ok",
        Support::Missing(_) => "missing",
        Support::NotAllowed(_) => "not allowed",
    }
}

fn weight(row: &Row) -> &'static str {
    match row.weight {
        Weight::Required => "required",
        Weight::Some => "some programs",
        Weight::Better => "better with it",
    }
}

/// What stands in the way of everything, by name.
fn obstacles(features: &Features) -> Vec<String> {
    let mut found: Vec<String> = features.lacking().iter().map(|row| row.name.to_owned()).collect();
    if features.host.ptrace_scope > PTRACE_SCOPE_FREE && !features.host.may(CAP_SYS_PTRACE) {
        found.push(format!("ptrace_scope {}", features.host.ptrace_scope));
    }
    found
}

fn feature_value(row: &Row, support: Support) -> Value {
    let mut value = json!({
        "name": row.name,
        "needed_to": row.group.title(),
        "purpose": row.purpose,
        "weight": weight(row),
        "status": word(support),
    });
    if let Support::Missing(error) | Support::NotAllowed(error) = support {
        value["kernel_says"] = json!(error.to_string());
        value["without"] = json!(row.without);
        value["change"] = json!(row.remedy);
    }
    value
}

fn object(features: &Features, obstacles: &[String]) -> Value {
    let facts = host::facts();
    let of_host = &features.host;
    json!({
        "host": facts.name,
        "kernel": facts.kernel,
        "machine": facts.machine,
        "user": of_host.user,
        "features": TABLE.iter().map(|row| feature_value(row, features.support(row.feature))).collect::<Vec<_>>(),
        "capabilities": capability::TABLE.iter().map(|row| json!({
            "name": format!("CAP_{}", row.name),
            "status": if of_host.may(row.number) { "ok" } else { "not allowed" },
            "without": format!("cannot {}", row.without),
        })).collect::<Vec<_>>(),
        "userfaultfd_features": of_bits(features.userfaultfd),
        "process_number_max": of_host.process_number_max,
        "memory_bytes": of_host.memory_bytes,
        "memory_available_bytes": of_host.memory_available_bytes,
        "huge_pages": of_host.huge_pages.iter().map(|pages| json!({
            "bytes": pages.bytes, "total": pages.total, "free": pages.free,
        })).collect::<Vec<_>>(),
        "extended_state_mask": of_bits(of_host.extended_state_mask),
        "extended_state_bytes": of_host.extended_state_bytes,
        "ptrace_scope": of_host.ptrace_scope,
        "under_seccomp": of_host.under_seccomp,
        "obstacles": obstacles,
        "outcome": if obstacles.is_empty() { "able" } else { "unable" },
    })
}

fn of_bits(bits: u64) -> String {
    format!("{bits:#x}")
}

fn line(output: &Output, status: &str, name: &str, text: &str) {
    output.line(&format!("  {status:<12} {name:<26} {text}"));
}

fn print_features(features: &Features, output: &Output) {
    let mut group = None;
    for row in TABLE {
        if group != Some(row.group) {
            group = Some(row.group);
            output.line(&format!("\nto {}", row.group.title()));
        }
        let support = features.support(row.feature);
        match support {
            Support::Works => line(output, word(support), row.name, row.purpose),
            Support::Missing(error) | Support::NotAllowed(error) => {
                let text =
                    format!("{}; without it {}; to change it: {} ({error})", row.purpose, row.without, row.remedy);
                line(output, word(support), row.name, &text);
            }
        }
    }
}

fn print_rights(features: &Features, output: &Output) {
    let host = &features.host;
    output.line(&format!("\nrights of this process (user {})", host.user));
    for row in capability::TABLE {
        let name = format!("CAP_{}", row.name);
        if host.may(row.number) {
            line(output, "ok", &name, row.without);
        } else {
            line(output, "not allowed", &name, &format!("cannot {}", row.without));
        }
    }
    if host.ptrace_scope > PTRACE_SCOPE_FREE {
        let text = "Yama lets a process trace only its own children (1), only root trace (2), nobody trace (3)";
        let status = if host.may(CAP_SYS_PTRACE) && host.ptrace_scope < 3 { "ok" } else { "not allowed" };
        line(output, status, &format!("ptrace_scope {}", host.ptrace_scope), text);
    }
    if host.under_seccomp {
        line(output, "not allowed", "seccomp", "this process runs under a seccomp filter, which may forbid more");
    }
}

fn print_sizes(features: &Features, output: &Output) {
    let host = &features.host;
    output.line("\nsizes");
    line(output, "", "process numbers", &format!("up to {}", host.process_number_max.saturating_sub(1)));
    let memory = format!("{} of {} available", bytes(host.memory_available_bytes), bytes(host.memory_bytes));
    line(output, "", "memory", &memory);
    for pages in &host.huge_pages {
        let text = format!("{} free of {}", pages.free, pages.total);
        line(output, "", &format!("huge pages of {}", bytes(pages.bytes)), &text);
    }
    let state = format!("{} bytes, components {:#x}", host.extended_state_bytes, host.extended_state_mask);
    line(output, "", "extended processor state", &state);
}

pub(crate) fn run(output: &Output) -> CommandResult {
    let features = features::probe();
    let obstacles = obstacles(&features);
    output.object(&object(&features, &obstacles));
    let facts = host::facts();
    output.line(&format!("{}: Linux {}, {}", facts.name, facts.kernel, facts.machine));
    print_features(&features, output);
    print_rights(&features, output);
    print_sizes(&features, output);
    let verdict = if obstacles.is_empty() {
        "\ncheckpoint, restore and migrate work here".to_owned()
    } else {
        format!("\ncheckpoint, restore and migrate do not work here as this user: {}", obstacles.join(", "))
    };
    output.line(&verdict);
    Ok(if obstacles.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::features::Feature;

    #[test]
    fn a_host_is_unable_only_without_something_required() {
        assert!(obstacles(&Features::all()).is_empty());
        assert!(obstacles(&Features::all().without(Feature::SoftDirty)).is_empty());
        assert_eq!(obstacles(&Features::all().without(Feature::ChosenNumbers)), ["set-tid"]);
        let mut scoped = Features::all();
        scoped.host.ptrace_scope = 1;
        assert_eq!(obstacles(&scoped), ["ptrace_scope 1"]);
        scoped.host.capabilities = 1 << CAP_SYS_PTRACE;
        assert!(obstacles(&scoped).is_empty());
    }

    #[test]
    fn what_is_missing_says_what_to_change() {
        let features = Features::all().without(Feature::TimeNamespaces);
        let value = object(&features, &[]);
        let rows = value["features"].as_array().cloned().unwrap_or_default();
        assert_eq!(rows.len(), TABLE.len());
        let row = rows.iter().find(|row| row["name"] == "time-namespaces").cloned().unwrap_or_default();
        assert_eq!(row["status"], "missing");
        assert!(row["change"].as_str().is_some_and(|text| text.contains("CONFIG_TIME_NS")));
    }
}

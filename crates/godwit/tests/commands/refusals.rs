//! For each object that a move refuses: a process that holds it, and what `check`, `migrate` and `checkpoint` say of it. They
//! name it with the reason and a choice, and nobody has frozen the process for a moment.
use crate::scene::{Receiver, Scratch, godwit, json, pair};
use godwit_engine::resource::refused;
use godwit_testbed::Pair;
use godwit_testbed::holder::{self, Holder, Start};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// When it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// By `check` already, and by the others before they freeze anything.
    Seen,
    /// The kernel shows it to nobody outside: `check` says that it cannot tell, the others refuse when they have frozen it, and
    /// let it go on.
    Frozen,
}
use When::{Frozen, Seen};

/// The object that is held; the code; a part of the cause; when.
type Case = (&'static str, &'static str, &'static str, When);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("blocked_continuation", "GW1104", "SIGCONT waits and is blocked", Seen),
    ("io_uring", "GW1103", "io_uring: requests in flight", Seen),
    ("perf_event", "GW1103", "performance event", Seen),
    ("bpf", "GW1103", "BPF object", Seen),
    ("userfaultfd", "GW1103", "userfaultfd", Seen),
    ("userfaultfd_memory", "GW1103", "manages this memory itself", Seen),
    ("fanotify", "GW1103", "fanotify group", Seen),
    ("landlock_ruleset", "GW1103", "Landlock ruleset", Seen),
    ("landlock_domain", "GW1103", "Landlock", Frozen),
    ("seccomp_notifier", "GW1103", "seccomp notifier", Seen),
    ("seccomp_supervised", "GW1103", "another process answers some of its calls", Frozen),
    ("kvm", "GW1103", "virtual machine (KVM)", Seen),
    ("kvm_machine", "GW1103", "virtual machine (KVM)", Seen),
    ("mount_context", "GW1103", "mount under construction", Seen),
    ("detached_mount", "GW1103", "as seen from here", Seen),
    ("secret_memory", "GW1103", "secret memory", Seen),
    ("secret_mapping", "GW1103", "secret memory", Seen),
    ("aio", "GW1103", "asynchronous I/O context", Seen),
    ("namespace_net", "GW1103", "handle of a network namespace", Seen),
    ("namespace_mnt", "GW1103", "handle of a mount namespace", Seen),
    ("namespace_pid", "GW1103", "handle of a PID namespace", Seen),
    ("namespace_user", "GW1103", "handle of a user namespace", Seen),
    ("namespace_uts", "GW1103", "handle of a UTS namespace", Seen),
    ("namespace_ipc", "GW1103", "handle of an IPC namespace", Seen),
    ("namespace_cgroup", "GW1103", "handle of a cgroup namespace", Seen),
    ("namespace_time", "GW1103", "handle of a time namespace", Seen),
    ("tun", "GW1103", "TUN/TAP device", Seen),
    ("fuse", "GW1103", "FUSE connection", Seen),
    ("loop_control", "GW1103", "loop device control", Seen),
    ("kernel_log", "GW1103", "kernel log", Seen),
    ("physical_memory", "GW1103", "physical memory", Seen),
    ("ports", "GW1103", "I/O ports", Seen),
    ("registers_of_processor", "GW1103", "model-specific registers", Seen),
    ("vsock_device", "GW1103", "device", Seen),
    ("disk", "GW1103", "disk", Seen),
    ("console", "GW1104", "", Seen),
    ("tcp_fresh", "GW1104", "TCP socket", Seen),
    ("tcp_listening", "GW1104", "listening", Seen),
    ("tcp_listening_6", "GW1104", "[::1]", Seen),
    ("tcp_connected", "GW1104", "established", Seen),
    ("tcp_outside", "GW1104", "established", Seen),
    ("tcp_in_flight", "GW1104", "in flight", Frozen),
    ("udp", "GW1104", "UDP socket", Seen),
    ("udp_6", "GW1104", "UDP6 socket", Seen),
    ("mptcp", "GW1104", "MPTCP socket", Seen),
    ("raw", "GW1104", "raw", Seen),
    ("packet", "GW1104", "packet socket", Seen),
    ("netlink", "GW1104", "NETLINK_ROUTE", Seen),
    ("vsock", "GW1104", "socket", Seen),
    ("xdp", "GW1104", "socket", Seen),
    ("alg", "GW1104", "socket", Seen),
    ("pipe_outside", "GW1102", "outside the tree it is held by process", Seen),
    ("pipe_reader_outside", "GW1102", "outside the tree it is held by process", Seen),
    ("fifo_outside", "GW1102", "outside the tree it is held by process", Seen),
    ("unix_outside", "GW1102", "", Seen),
    ("unix_client_outside", "GW1102", "", Seen),
    ("terminal_outside", "GW1102", "terminal", Seen),
    ("terminal_master_outside", "GW1102", "", Seen),
    ("pidfd_outside", "GW1102", "", Seen),
    ("memory_file_outside", "GW1102", "which is outside the tree, shares it", Seen),
    ("shared_memory_outside", "GW1102", "which is outside the tree, shares it", Seen),
    ("unlinked_outside", "GW1102", "which is outside the tree, shares it", Seen),
    ("sysv_memory_outside", "GW1102", "another process shares it", Seen),
    ("queue_outside", "GW1102", "outside the tree", Seen),
    ("owner_outside", "GW1102", "F_SETOWN", Seen),
    ("proc_outside", "GW1103", "which is outside the tree", Seen),
    ("epoll_member_outside", "GW1102", "is held outside the tree only", Seen),
    ("lease", "GW1103", "lease", Seen),
    ("directory_notification", "GW1103", "F_NOTIFY", Seen),
    ("removed_directory", "GW1103", "was removed", Seen),
    ("removed_working_directory", "GW1103", "was removed", Seen),
    ("hidden_name", "GW1103", "cannot be found", Seen),
    ("replaced_handle", "GW1103", "was removed", Seen),
    ("name_not_text", "GW1103", "not UTF-8", Seen),
    ("socket_name_not_text", "GW1104", "not UTF-8", Seen),
    ("removed_fifo", "GW1104", "the FIFO was removed", Seen),
    ("unread_inotify", "GW1105", "unread", Seen),
    ("proc_of_ended", "GW1103", "has ended", Seen),
    ("pressure_trigger", "GW1103", "pressure trigger", Seen),
    ("protection_key", "GW1104", "protection key", Seen),
    ("keyring", "GW1104", "session keyring", Frozen),
    ("mount_namespace", "GW1104", "mnt namespace", Seen),
    ("network_namespace", "GW1104", "net namespace", Seen),
    ("ipc_namespace", "GW1104", "ipc namespace", Seen),
    ("uts_namespace", "GW1104", "uts namespace", Seen),
    ("cgroup_namespace", "GW1104", "cgroup namespace", Seen),
    ("user_namespace", "GW1104", "user namespace", Seen),
    ("time_namespace_for_children", "GW1104", "time namespace", Seen),
    ("number_namespace", "GW1104", "PID namespace below", Seen),
    ("descriptors_shared_with_sibling", "GW1104", "shares its", Seen),
    ("tracer", "GW1006", "traces it", Seen),
    ("torn_session", "GW1104", "have several parents", Seen),
    ("timer_of_device_clock", "GW1103", "belongs to a device", Seen),
];

/// What holders hold for other tests.
const HARMLESS: [&str; 4] = ["none", "files", "unlinked", "memory"];

/// Those rows of the table of refused objects that a machine without such devices cannot hold.
#[rustfmt::skip]
const ELSEWHERE: &[&str] = &[
    "BPF type information", "detached mount", "fence of a graphics driver", "passed-through device", "graphics object", "buffer of a device",
    "vhost-net device", "vhost-vsock device", "passed-through device (VFIO)", "watchdog", "HPET timer", "virtual input device",
    "device mapper", "input device", "frame buffer", "video device", "sound device", "graphics processor (NVIDIA)",
    "graphics processor (DRM)",
];

fn matches(refusal: &Value, code: &str, cause: &str) -> bool {
    refusal["code"] == code && refusal["cause"].as_str().is_some_and(|text| text.contains(cause))
}

/// What is wrong with the refusals of an answer.
fn judge_refusals(command: &str, refusals: &[Value], (_, code, cause, _): &Case) -> Result<(), String> {
    let Some(refusal) = refusals.iter().find(|refusal| matches(refusal, code, cause)) else {
        return Err(format!("{command} does not say {code} {cause:?}: {refusals:?}"));
    };
    match refusal["choices"].as_array().is_some_and(|choices| !choices.is_empty()) {
        true => Ok(()),
        false => Err(format!("{command} gives no choice: {refusal}")),
    }
}

fn judge_check(answer: &Value, case: &Case) -> Result<(), String> {
    let findings = answer["findings"].as_array().cloned().unwrap_or_default();
    let with = |verdict: &'static str| findings.iter().filter(move |finding| finding["verdict"] == verdict).cloned();
    if case.3 == Frozen {
        let unexpected: Vec<Value> = with("blocks").collect();
        return match with("undecided").count() {
            0 => Err(format!("check says nothing of what it cannot see: {findings:?}")),
            _ if unexpected.is_empty() => Ok(()),
            _ => Err(format!("check refuses something else: {unexpected:?}")),
        };
    }
    let refusals: Vec<Value> = with("blocks").map(|finding| finding["refusal"].clone()).collect();
    judge_refusals("check", &refusals, case)
}

/// One object, all commands.
fn try_case(pair: &Pair, scratch: &Scratch, receiver: &Receiver, case: &Case) -> Result<Option<String>, String> {
    let (object, _, _, when) = case;
    let holder = match Holder::start(&pair.source, object, None).map_err(|error| error.to_string())? {
        Start::Holds(holder) => holder,
        Start::Skipped(reason) => return Ok(Some(reason)),
    };
    let before = holder.switches();
    let (pid, directory) = (holder.pid.to_string(), scratch.path(object));
    let watching = AtomicBool::new(true);
    let seen_stopped = AtomicBool::new(false);
    let judged = std::thread::scope(|scope| {
        scope.spawn(|| {
            while watching.load(Ordering::Relaxed) {
                seen_stopped.fetch_or(holder.is_stopped(), Ordering::Relaxed);
            }
        });
        let judged = try_commands(pair, receiver, &holder, &directory, case);
        watching.store(false, Ordering::Relaxed);
        judged
    });
    judged?;
    if *when == Seen && (holder.switches() != before || seen_stopped.load(Ordering::Relaxed)) {
        return Err(format!("it was frozen: {before:?} switches before, {:?} after", holder.switches()));
    }
    if *when == Frozen && holder.switches() == before {
        return Err("it was not frozen: is the witness no witness?".to_owned());
    }
    if directory.exists() {
        return Err("something was written".to_owned());
    }
    if !holder.goes_on() {
        return Err("it does not go on".to_owned());
    }
    pair.source.command("/bin/kill").args(["-9", &pid]).status().map_err(|error| error.to_string())?;
    Ok(None)
}

fn try_commands(
    pair: &Pair,
    receiver: &Receiver,
    holder: &Holder,
    directory: &std::path::Path,
    case: &Case,
) -> Result<(), String> {
    let pid = holder.pid.to_string();
    let before = holder.switches();
    let check = godwit(&pair.source, &["check", "--json", &pid]);
    let wanted = if case.3 == Seen { 1 } else { 0 };
    judge_check(&json(&check), case)?;
    if check.status.code() != Some(wanted) {
        return Err(format!("check exits with {:?}", check.status.code()));
    }
    if holder.switches() != before {
        return Err("check froze it".to_owned());
    }
    let (target, place) = (receiver.destination(), directory.display().to_string());
    for command in [["migrate", &pid, &target], ["checkpoint", &pid, &place]] {
        let answer = godwit(&pair.source, &["--json", command[0], command[1], command[2]]);
        if answer.status.code() != Some(1) {
            return Err(format!("{} exits with {:?}: {answer:?}", command[0], answer.status.code()));
        }
        let object = json(&answer);
        judge_refusals(command[0], object["refusals"].as_array().map_or(&[], Vec::as_slice), case)?;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        if !said.contains(case.1) || !said.contains("you can: ") {
            return Err(format!("{} tells people nothing: {said}", command[0]));
        }
    }
    Ok(())
}

#[test]
fn what_is_refused_is_named_and_was_never_frozen() {
    let scratch = Scratch::new("refusals");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let only = std::env::var("GODWIT_TEST_ONLY").unwrap_or_default();
    let held: BTreeSet<String> = holder::names(&pair.source).expect("a holder").into_iter().collect();
    let cases = CASES.iter().map(|case| case.0.to_owned()).chain(HARMLESS.map(str::to_owned)).collect();
    assert_eq!(held, cases, "the holder's objects and the cases differ");
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if only.is_empty() || only.split(',').any(|name| name == case.0) {
                        let outcome = try_case(&pair, &scratch, &receiver, case);
                        outcomes.lock().expect("nobody panics").insert(case.0, outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("nobody panics");
    for (object, outcome) in &outcomes {
        match outcome {
            Ok(None) => println!("{object}: refused, by name"),
            Ok(Some(reason)) => println!("{object}: skipped: {reason}"),
            Err(wrong) => println!("{object}: WRONG: {wrong}"),
        }
    }
    let wrong: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).map(|(object, _)| object).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), outcomes.len());
}

#[test]
fn every_row_of_refused_objects_is_held_here_or_known_to_be_elsewhere() {
    for row in refused::TABLE {
        let held = CASES
            .iter()
            .any(|case| !case.2.is_empty() && (case.2.starts_with(row.name) || row.name.starts_with(case.2)));
        assert!(held || ELSEWHERE.contains(&row.name), "{}: no case holds one", row.name);
    }
}

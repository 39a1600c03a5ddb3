//! `godwit image`: what is inside a checkpoint, for a person.
use crate::output::{CommandResult, Output, bytes, counted, processes};
use godwit_engine::resource::KINDS;
use godwit_image::codec::{self, Value};
use godwit_image::layout::{Checkpoint, PageIndex};
use godwit_image::memory::{AddressSpace, Backing};
use godwit_image::task::{State, Task};
use godwit_image::{Envelope, ObjectId};
use godwit_migrate::checkpoint;
use jiff::Timestamp;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn verify(directory: &Path, output: &Output) -> CommandResult {
    let mut progress = output.progress("verify");
    let checked = checkpoint::verify(directory, &mut |done, total| progress.update(done, total));
    progress.finish();
    let checked = checked.map_err(|refusal| vec![refusal])?;
    let page_bytes: u64 = checked.pages.iter().map(PageIndex::bytes).sum();
    output.object(&json!({ "outcome": "sound", "page_bytes": page_bytes, "processes": checked.tree.tasks.len() }));
    output.line(&format!("sound: {}, {} of memory", processes(checked.tree.tasks.len() as u64), bytes(page_bytes)));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn show(directory: &Path, map: bool, output: &Output) -> CommandResult {
    let checkpoint = checkpoint::open(directory).map_err(|refusal| vec![refusal])?;
    if output.is_json() {
        let value = serde_json::to_value(&checkpoint.tree).unwrap_or_default();
        output.object(&json!({ "created": checkpoint.created, "tree": value, "pages": checkpoint.pages }));
        return Ok(ExitCode::SUCCESS);
    }
    let host = &checkpoint.tree.host;
    output.line(&format!(
        "taken on {} ({}, Linux {}), {}",
        host.name,
        host.machine,
        host.kernel,
        moment(checkpoint.created)
    ));
    for task in &checkpoint.tree.tasks {
        show_task(task, &checkpoint, output);
    }
    for space in &checkpoint.tree.spaces {
        show_space(space, &checkpoint, map, output);
    }
    for table in &checkpoint.tree.tables {
        output.line(&format!("\nfile table {}", table.id));
        for slot in &table.slots {
            let cloexec = if slot.close_on_exec { " close-on-exec" } else { "" };
            output.line(&format!("  {:>5}{cloexec}  {}", slot.descriptor, describe(&checkpoint, slot.description)));
        }
    }
    output.line("\nobjects");
    for envelope in &checkpoint.tree.objects {
        output.line(&format!("  {:>5}  {}", envelope.id.to_string(), object(envelope)));
    }
    Ok(ExitCode::SUCCESS)
}

/// A moment in seconds after 1970, as RFC 3339 has it.
fn moment(seconds: u64) -> String {
    let known = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    known.map_or_else(|| format!("{seconds} s after 1970"), |timestamp| timestamp.to_string())
}

fn show_task(task: &Task, checkpoint: &Checkpoint, output: &Output) {
    let depth = depth(task, checkpoint);
    let state = match task.state {
        State::Running => String::new(),
        State::Stopped(signal) => format!(", stopped by signal {signal}"),
        State::Zombie(status) => format!(", zombie with status {status:#x}"),
    };
    let name =
        task.threads.first().map_or_else(String::new, |thread| String::from_utf8_lossy(&thread.name).into_owned());
    let user = task.threads.first().map_or(0, |thread| thread.credentials.user[1]);
    output.line(&format!(
        "{}{} {name} (user {user}, group {}, session {}, {}{state})",
        "  ".repeat(depth),
        task.pid,
        task.group,
        task.session,
        counted(task.threads.len() as u64, "thread", "threads"),
    ));
    for thread in task.threads.iter().filter(|thread| !thread.note.is_empty()) {
        output.line(&format!("{}  thread {}: {}", "  ".repeat(depth), thread.tid, thread.note));
    }
}

fn depth(task: &Task, checkpoint: &Checkpoint) -> usize {
    let tasks = &checkpoint.tree.tasks;
    let mut depth = 0;
    let mut parent = task.parent;
    while let Some(found) = tasks.iter().find(|other| other.pid == parent) {
        depth += 1;
        parent = found.parent;
        // Hostile images may have circles; a tree is never deeper than it has tasks.
        if depth > tasks.len() {
            break;
        }
    }
    depth
}

fn show_space(space: &AddressSpace, checkpoint: &Checkpoint, map: bool, output: &Output) {
    let saved: u64 = checkpoint.pages.iter().filter(|index| index.owner == space.id).map(PageIndex::bytes).sum();
    let mapped: u64 = space.areas.iter().map(godwit_image::memory::Area::bytes).sum();
    output.line(&format!(
        "\naddress space {}: {} of {}, {} saved, program {}",
        space.id,
        counted(space.areas.len() as u64, "mapping", "mappings"),
        bytes(mapped),
        bytes(saved),
        describe(checkpoint, space.executable),
    ));
    for area in space.areas.iter().filter(|_| map) {
        let letter = |bit: u32, letter: char| if area.protection & bit != 0 { letter } else { '-' };
        let what = match &area.backing {
            Backing::File { object, offset } => format!("{} at {offset:#x}", describe(checkpoint, *object)),
            Backing::Anonymous | Backing::Kernel => area.name.clone(),
        };
        output.line(&format!(
            "  {:x}-{:x} {}{}{}{} {what}",
            area.start,
            area.end,
            letter(1, 'r'),
            letter(2, 'w'),
            letter(4, 'x'),
            if area.has(godwit_image::memory::AreaFlags::SHARED) { 's' } else { 'p' },
        ));
    }
}

fn describe(checkpoint: &Checkpoint, id: ObjectId) -> String {
    checkpoint.tree.object(id).map_or_else(|| format!("object {id}"), |envelope| format!("{id} {}", object(envelope)))
}

fn object(envelope: &Envelope) -> String {
    let name = KINDS
        .iter()
        .find(|kind| kind.id() == envelope.kind)
        .map_or_else(|| format!("unknown kind {}", envelope.kind.0), |kind| kind.name().to_owned());
    let state = match codec::decode::<Value>(&envelope.payload) {
        Ok(value) => short(&value),
        Err(error) => error.to_string(),
    };
    format!("{name} {state}")
}

/// A field whose number means something to a person, else as any value.
fn field(name: &str, value: &Value) -> String {
    match (name, value.as_integer().and_then(|number| u64::try_from(number).ok())) {
        ("flags", Some(flags)) => open_flags(flags),
        // The kernel's split of st_rdev: makedev(3).
        ("device_number", Some(number)) => {
            let major = (number >> 8 & 0xfff) | (number >> 32 & !0xfff);
            let minor = (number & 0xff) | (number >> 12 & !0xff);
            format!("{major}:{minor}")
        }
        _ => short(value),
    }
}

/// The flags of open(2) on x86_64, by name; what has none stays a number.
fn open_flags(flags: u64) -> String {
    const ACCESS: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
    // O_LARGEFILE is what the kernel adds to every open, and says nothing.
    const LARGE_FILE: u64 = 0o100_000;
    const NAMES: [(u64, &str); 10] = [
        (0o2000, "O_APPEND"),
        (0o4000, "O_NONBLOCK"),
        (0o4_010_000, "O_SYNC"),
        (0o10000, "O_DSYNC"),
        (0o20000, "O_ASYNC"),
        (0o40000, "O_DIRECT"),
        (0o200_000, "O_DIRECTORY"),
        (0o400_000, "O_NOFOLLOW"),
        (0o1_000_000, "O_NOATIME"),
        (0o10_000_000, "O_PATH"),
    ];
    let mut words = vec![ACCESS[(flags & 3) as usize].to_owned()];
    let mut left = flags & !3 & !LARGE_FILE;
    for (bits, name) in NAMES {
        if left & bits == bits {
            words.push(name.to_owned());
            left &= !bits;
        }
    }
    if left != 0 {
        words.push(format!("{left:#o}"));
    }
    words.join("|")
}

/// A self-describing value on one line.
fn short(value: &Value) -> String {
    const BYTES_SHOWN: usize = 16;
    match value {
        Value::Integer(number) => i128::from(*number).to_string(),
        Value::Bytes(raw) => {
            let shown: String = raw.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
            if raw.len() > BYTES_SHOWN { format!("{shown}… ({} bytes)", raw.len()) } else { shown }
        }
        Value::Float(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => "none".to_owned(),
        Value::Tag(_, inner) => short(inner),
        Value::Array(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let fields: Vec<String> = entries
                .iter()
                .map(|(key, value)| match key {
                    Value::Text(name) => format!("{name}={}", field(name, value)),
                    other => format!("{}={}", short(other), short(value)),
                })
                .collect();
            format!("{{{}}}", fields.join(" "))
        }
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_open_have_their_names() {
        assert_eq!(open_flags(0o100_000), "O_RDONLY");
        assert_eq!(open_flags(0o102_001), "O_WRONLY|O_APPEND");
        assert_eq!(open_flags(0o4_014_002), "O_RDWR|O_NONBLOCK|O_SYNC");
        assert_eq!(open_flags(0o1_000_000_000_003), "O_ACCMODE|0o1000000000000");
    }

    #[test]
    fn device_numbers_are_shown_as_major_and_minor() {
        assert_eq!(field("device_number", &Value::from(259)), "1:3");
        assert_eq!(field("position", &Value::from(259)), "259");
    }

    #[test]
    fn moments_are_shown_as_dates() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(u64::MAX), format!("{} s after 1970", u64::MAX));
    }
}

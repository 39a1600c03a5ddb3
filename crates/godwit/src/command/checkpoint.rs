//! `godwit checkpoint`: a running tree to a directory.
use crate::arguments::Checkpoint;
use crate::output::{CommandResult, Output, bytes, processes};
use godwit_image::layout::PageIndex;
use godwit_migrate::saving;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(arguments: &Checkpoint, output: &Output) -> CommandResult {
    let failed = |error: std::io::Error| crate::output::failure("cancellation", &error);
    let saving = saving::Options {
        capture: super::options(&arguments.edges)?,
        leave_running: arguments.leave_running,
        cancel: Some(godwit_migrate::cancellation().map_err(failed)?),
        ..saving::Options::default()
    };
    let mut progress = output.progress("checkpoint");
    let saved = saving::save(arguments.pid, &arguments.directory, &saving, &mut |done, total| {
        progress.update(done, total);
    });
    progress.finish();
    let saving::Saved { checkpoint: written, frozen: down } = saved?;
    let page_bytes: u64 = written.pages.iter().map(PageIndex::bytes).sum();
    output.object(&json!({
        "outcome": if arguments.leave_running { "checkpointed, running" } else { "checkpointed, ended" },
        "pid": arguments.pid,
        "processes": written.tree.tasks.len(),
        "threads": written.tree.tasks.iter().map(|task| task.threads.len()).sum::<usize>(),
        "objects": written.tree.objects.len(),
        "page_bytes": page_bytes,
        "frozen_ms": down.as_secs_f64() * 1e3,
    }));
    output.line(&format!(
        "{}, {} of memory in {}; frozen for {:.1} ms; the tree {}",
        processes(written.tree.tasks.len() as u64),
        bytes(page_bytes),
        arguments.directory.display(),
        down.as_secs_f64() * 1e3,
        if arguments.leave_running { "runs on" } else { "has ended here" },
    ));
    Ok(ExitCode::SUCCESS)
}

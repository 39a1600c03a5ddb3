//! `godwit checkpoint`: a running tree to a directory.
use crate::arguments::Checkpoint;
use crate::output::{CommandResult, Output, bytes, processes};
use godwit_engine::{capture, check, freeze};
use godwit_image::layout::PageIndex;
use godwit_linux::features;
use godwit_migrate::checkpoint;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn run(arguments: &Checkpoint, output: &Output) -> CommandResult {
    let one = |refusal| vec![refusal];
    let options = super::options(&arguments.edges)?;
    let refusals = check::examine(arguments.pid, &options, &features::probe()).map_err(one)?.refusals();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let begin = Instant::now();
    let mut frozen = Some(freeze::freeze(arguments.pid).map_err(one)?);
    let mut progress = output.progress("checkpoint");
    let host = godwit_engine::host::facts();
    let written = capture::capture_at_a_good_moment(&mut frozen, &options, &host).and_then(|captives| {
        checkpoint::write(captives, &arguments.directory, &mut |done, total| progress.update(done, total))
    });
    progress.finish();
    let written = match written {
        Ok(written) => written,
        Err(mut refusal) => {
            drop(frozen);
            refusal.rolled_back = "the tree runs on".to_owned();
            return Err(vec![refusal]);
        }
    };
    match frozen {
        Some(frozen) if !arguments.leave_running => frozen.kill(),
        frozen => drop(frozen),
    }
    let down = begin.elapsed();
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

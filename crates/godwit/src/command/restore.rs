//! `godwit restore`: a checkpoint back to life.
use crate::arguments::Restore;
use crate::output::{CommandResult, Output};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::ptrace::{self, Event};
use godwit_linux::signal;
use godwit_migrate::{checkpoint, reviving};
use serde_json::json;
use std::process::ExitCode;

/// Every signal but SIGTRAP: what arrives while the tree is half built waits.
const MASK: u64 = !(1 << 4);

pub(crate) fn run(arguments: &Restore, output: &Output) -> CommandResult {
    let mut progress = output.progress("restore");
    let before = signal::set_own_mask(MASK);
    let unused = arguments.processor.unused();
    let restored = checkpoint::restore(&arguments.directory, &unused, &mut |done, total| progress.update(done, total));
    progress.finish();
    let root = restored.and_then(|(restorer, changes)| {
        changes.iter().for_each(|change| output.note(&change.to_string()));
        reviving::resume(restorer, &arguments.directory).map_err(|refusal| vec![refusal])
    });
    signal::set_own_mask(before);
    let root = root.map_err(|mut refusals| {
        for refusal in &mut refusals {
            refusal.rolled_back = "nothing of it runs; the checkpoint is unchanged".to_owned();
        }
        refusals
    })?;
    if arguments.detach {
        output.object(&json!({ "outcome": "restored", "pid": root }));
        output.line(&root.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        match ptrace::wait(root) {
            Ok(Event::Ended(status)) => {
                let code = if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) };
                output.object(&json!({ "outcome": "ended", "pid": root, "status": code }));
                return Ok(ExitCode::from(code as u8));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(vec![Refusal::new(Code::PROCESS_VANISHED, Subject::Process(root), error.to_string())]);
            }
        }
    }
}

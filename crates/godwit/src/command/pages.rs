//! `godwit pages`: a page store.
use crate::arguments::Pages;
use crate::output::{CommandResult, Output, failure};
use godwit_migrate::store::server::{self, Settings};
use serde_json::json;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn run(arguments: &Pages, output: &Output) -> CommandResult {
    let address = &arguments.listen;
    let listener = TcpListener::bind(address).map_err(|error| failure(address, &error))?;
    let local = listener.local_addr().map_err(|error| failure(address, &error))?;
    // Whoever started us may wait for this line; port 0 becomes a number here.
    output.line(&format!("listening on {local}"));
    output.object(&json!({ "outcome": "listening", "address": local.to_string() }));
    let settings = Settings { directory: arguments.dir.clone(), limit: arguments.limit.0, durable: arguments.durable };
    let note = output.clone();
    server::serve(&listener, settings, Arc::new(move |text: &str| note.note(text))).map_err(|refusal| vec![refusal])?;
    Ok(ExitCode::SUCCESS)
}

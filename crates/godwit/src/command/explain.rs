//! `godwit explain`: the table of codes.
use crate::output::{CommandResult, Output, usage};
use godwit_image::code::{Code, Row, TABLE};
use serde_json::json;
use std::process::ExitCode;

fn value(row: &Row) -> serde_json::Value {
    json!({ "code": row.code.to_string(), "title": row.title, "explanation": row.explanation, "remedy": row.remedy })
}

pub(crate) fn run(code: Option<&str>, output: &Output) -> CommandResult {
    let Some(text) = code else {
        output.object(&json!({ "codes": TABLE.iter().map(value).collect::<Vec<_>>() }));
        for row in TABLE {
            output.line(&format!("{}  {}", row.code, row.title));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let number = text.trim_start_matches("GW").trim_start_matches("gw").parse().ok().map(Code);
    let Some(row) = number.and_then(Code::row) else {
        return Err(usage(text, "no such code; godwit explain lists them"));
    };
    output.object(&value(row));
    output.line(&format!("{} {}\n\n{}\n\nWhat to do: {}", row.code, row.title, row.explanation, row.remedy));
    Ok(ExitCode::SUCCESS)
}

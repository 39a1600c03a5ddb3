//! The table of codes: each is explained, each is said somewhere, and what it advises exists.
use crate::scene::{GODWIT, json};
use godwit_image::code::TABLE;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Options of other programs that advice names.
const FOREIGN_OPTIONS: &[&str] = &["--memlock", "--pid", "--fork", "--mount-proc"];
/// Words that follow the program's name in a sentence, and are no commands.
const NO_COMMANDS: &[&str] =
    &["as", "at", "there", "that", "inside", "from", "with", "let", "lets", "needs", "command", "image", "holds"];

fn run(arguments: &[&str]) -> Output {
    Command::new(GODWIT).args(arguments).stdin(Stdio::null()).output().expect("godwit runs")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All sources of products.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> =
        fs::read_dir(root().join("crates")).expect("crates").flatten().map(|entry| entry.path().join("src")).collect();
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).expect("a directory").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                found.push((path, text));
            }
        }
    }
    found
}

/// The string that begins the argument of each call of `choice`.
fn choices(text: &str) -> impl Iterator<Item = &str> {
    text.split(".choice(").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().trim_start_matches("format!(").trim_start();
        rest.strip_prefix('"')?.split('"').next()
    })
}

/// What an advice names and does not exist.
fn missing<'a>(advice: &'a str, commands: &BTreeSet<String>, options: &BTreeSet<String>) -> Vec<&'a str> {
    let words: Vec<&str> = advice
        .split([' ', ',', ';', ':', '(', ')', '\n', '{', '}', '=', '…', '|'])
        .filter(|word| !word.is_empty())
        .collect();
    let mut wrong = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let plain = word.trim_end_matches('.');
        if plain.starts_with("--") && !options.contains(plain) && !FOREIGN_OPTIONS.contains(&plain) {
            wrong.push(*word);
        }
        if plain.starts_with("docs/") && !root().join(plain).exists() {
            wrong.push(*word);
        }
        let before = index.checked_sub(1).map(|index| words[index]);
        let is_name = plain.chars().all(|letter| letter.is_ascii_lowercase()) && !plain.is_empty();
        if before == Some("godwit") && is_name && !commands.contains(plain) && !NO_COMMANDS.contains(&plain) {
            wrong.push(*word);
        }
    }
    wrong
}

#[test]
fn every_code_is_explained_under_every_spelling() {
    let list = json(&run(&["explain", "--json"]));
    assert_eq!(list["codes"].as_array().map(Vec::len), Some(TABLE.len()));
    for row in TABLE {
        let number = row.code.0.to_string();
        for spelling in [format!("GW{number}"), format!("gw{number}"), number.clone()] {
            let output = run(&["explain", &spelling]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{spelling}: {output:?}");
            assert!(
                [row.title, row.explanation, row.remedy].iter().all(|part| said.contains(part)),
                "{spelling}: {said}"
            );
        }
        let one = json(&run(&["explain", "--json", &number]));
        assert_eq!((&one["title"], &one["remedy"]), (&row.title.into(), &row.remedy.into()));
    }
    assert_eq!(run(&["explain", "GW0000"]).status.code(), Some(2));
}

#[test]
fn every_code_is_said_somewhere() {
    let sources = sources();
    let table = sources.iter().find(|(path, _)| path.ends_with("image/src/code.rs")).expect("the table").1.clone();
    let names: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(" = "))
        .filter(|(name, rest)| {
            name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
                && rest.starts_with(|digit: char| digit.is_ascii_digit())
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), TABLE.len());
    for name in names {
        let said = format!("Code::{name}");
        let by = |(path, text): &&(PathBuf, String)| !path.ends_with("image/src/code.rs") && text.contains(&said);
        assert!(sources.iter().any(|source| by(&source)), "nobody says {name}");
    }
}

#[test]
fn what_is_advised_exists() {
    let help = String::from_utf8_lossy(&run(&["--help"]).stdout).into_owned();
    let listed =
        help.split("Commands:").nth(1).expect("a list of commands").split("Options:").next().unwrap_or_default();
    let mut commands: BTreeSet<String> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(commands.contains("migrate") && commands.len() > 10, "{commands:?}");
    commands.remove("help");
    let mut options = BTreeSet::new();
    for command in &commands {
        let help = String::from_utf8_lossy(&run(&[command, "--help"]).stdout).into_owned();
        let words = help.split([' ', ',', '\n', '[', ']', '=', '`']);
        options.extend(words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches('.').to_owned()));
    }
    assert!(options.contains("--edge") && !options.contains("--pid-namespace"));
    let mut wrong = Vec::new();
    for row in TABLE {
        for text in [row.explanation, row.remedy] {
            wrong.extend(missing(text, &commands, &options).into_iter().map(|word| format!("{}: {word}", row.code)));
        }
    }
    let mut count = 0;
    for (path, text) in sources() {
        for choice in choices(&text) {
            count += 1;
            wrong.extend(
                missing(choice, &commands, &options)
                    .into_iter()
                    .map(|word| format!("{}: {word}: {choice}", path.display())),
            );
        }
    }
    assert!(count > 60, "only {count} choices were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The rule notices what it is for.
    assert_eq!(
        missing("restore it (--pid-namespace), or godwit resurrect", &commands, &options),
        ["--pid-namespace", "resurrect"]
    );
}

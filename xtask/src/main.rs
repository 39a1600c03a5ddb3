//! The chores of the house: `cargo xtask tidy`, `cargo xtask test`, `cargo xtask ci`.

mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use test::report::Format;
use tidy::repository::Repository;
use tidy::{RULES, Verdict};

const HELP: &str = "\
The chores of Godwit.

Usage: cargo xtask COMMAND

  tidy            check the rules of the house that the compiler does not know
  tidy --bless    first renew what a machine may renew: the hashes in docs/, shrunken entries of the ratchet
  man             write the manual pages, docs/man, anew from what the command line knows of itself
  test            everything: what the tests need, formatting, lints, tidy, licences, build, tests, workload matrix, kill tests
                  (as root; installs missing Debian packages; leaves no process, mount or namespace behind)
  ci              the same, written for a CI log

Exit status: 0 all well, 1 something failed, 2 this machine or this command line cannot work.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["tidy"] => tidy(false),
        ["tidy", "--bless"] => tidy(true),
        ["man"] => man(),
        ["test"] => test::run(&root(), Format::Plain),
        ["ci"] => test::run(&root(), Format::Ci),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("xtask: there is no `{}`\n\n{HELP}", arguments.join(" "));
            ExitCode::from(2)
        }
    }
}

/// Manual pages; a test of the commands compares them.
fn man() -> ExitCode {
    let write = |directory: &Path| {
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "-p", "godwit", "--", "man"]).arg(directory).current_dir(root());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("godwit man: {other:?}")),
        }
    };
    match renew(&root().join("docs/man"), write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(1)
        }
    }
}

/// Puts a directory that is written anew in the place of an old one, which stays where the writing fails. What the new one does not
/// have any more goes with the old one.
fn renew(directory: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let fresh = directory.with_extension("new");
    // Of a run that was killed.
    let _ = std::fs::remove_dir_all(&fresh);
    let renewed = write(&fresh).and_then(|()| {
        let named = |error: std::io::Error| format!("{}: {error}", directory.display());
        if directory.exists() {
            std::fs::remove_dir_all(directory).map_err(named)?;
        }
        std::fs::rename(&fresh, directory).map_err(named)
    });
    let _ = std::fs::remove_dir_all(&fresh);
    renewed
}

/// The root of the repository that this program was built from.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

fn tidy(is_blessing: bool) -> ExitCode {
    match try_tidy(is_blessing) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(2)
        }
    }
}

/// Runs all rules and returns how many do not hold.
fn try_tidy(is_blessing: bool) -> Result<usize, String> {
    let root = root();
    let mut repository = Repository::read(&root)?;
    if is_blessing {
        for path in tidy::bless(&root, &repository)? {
            println!("blessed {path}");
        }
        repository = Repository::read(&root)?;
    }
    let (mut held, mut broken, mut skipped) = (0, 0, 0);
    for rule in RULES {
        match (rule.check)(&repository) {
            Verdict::NotYet(why) => {
                skipped += 1;
                println!("{}: not yet: {why}", rule.name);
            }
            Verdict::Checked(findings) if findings.is_empty() => held += 1,
            Verdict::Checked(findings) => {
                broken += 1;
                for finding in findings {
                    println!("{finding} [{}]", rule.name);
                }
            }
        }
    }
    println!("{held} passed, {broken} failed, {skipped} skipped");
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_cannot_be_written_anew_stays() {
        let directory = std::env::temp_dir().join(format!("godwit-renew-{}", std::process::id())).join("man");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("old"), "").unwrap();
        let half = |fresh: &Path| {
            fs::create_dir(fresh).unwrap();
            fs::write(fresh.join("new"), "").unwrap();
            Err("the build fails".to_owned())
        };
        let names =
            || -> Vec<_> { fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
        assert_eq!(renew(&directory, half), Err("the build fails".to_owned()));
        assert_eq!(names(), ["old"]);
        assert_eq!(renew(&directory, |fresh| half(fresh).or(Ok(()))), Ok(()));
        assert_eq!(names(), ["new"]);
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }
}

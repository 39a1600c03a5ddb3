//! The repository as the rules see it: its files as text, its packages as Cargo understands them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use serde_json::Value;

use super::source::Source;

/// What all rules look at. Read once; a test makes one from texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repository {
    /// Every `.rs` file, in the order of its path.
    pub(crate) sources: Vec<Source>,
    /// Every other text file that a rule may ask for (`.toml`, `.md`, `.txt`), by path.
    pub(crate) texts: BTreeMap<String, String>,
    /// The members of the workspace.
    pub(crate) packages: Vec<Package>,
    /// Every value that an entry of the ratchet had in the history that this clone knows, newest first, as
    /// `(entry, value)`.
    pub(crate) ratchet_history: Vec<(String, usize)>,
}

/// One member of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    /// Its name for Cargo.
    pub(crate) name: String,
    /// Its folder from the root of the repository.
    pub(crate) folder: String,
    /// What it depends on.
    pub(crate) dependencies: Vec<Dependency>,
    /// The names of its binaries.
    pub(crate) binaries: Vec<String>,
}

/// One dependency of a package.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// The package depended on (its own name, also where it was renamed).
    pub(crate) name: String,
    /// Only tests and examples use it.
    pub(crate) is_for_tests: bool,
}

/// Folders that hold no source of ours.
const SKIPPED_FOLDERS: [&str; 4] = ["target", ".git", "corpus", "artifacts"];

impl Repository {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// A file that cannot be read, or a workspace that Cargo does not understand.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut repository = Self { packages: packages(root)?, ..Self::default() };
        repository.read_folder(root, root).map_err(|error| format!("reading {}: {error}", root.display()))?;
        repository.mark_test_modules();
        repository.ratchet_history = ratchet_history(root);
        Ok(repository)
    }

    /// The Rust file at `path`.
    pub(crate) fn source(&self, path: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.path == path)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
                    self.read_folder(root, &path)?;
                }
                continue;
            }
            let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => self.sources.push(Source::new(below, fs::read_to_string(&path)?)),
                Some("toml" | "md" | "txt") => {
                    // A golden text of a test may be anything; only text is of interest here.
                    if let Ok(text) = fs::read_to_string(&path) {
                        self.texts.insert(below, text);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A file whose module is declared under `#[cfg(test)]` is a test, and so is what lies below it.
    pub(crate) fn mark_test_modules(&mut self) {
        let mut tests = Vec::new();
        for source in &self.sources {
            let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
            let below = match file {
                "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
                _ => source.path.trim_end_matches(".rs").to_owned(),
            };
            tests.extend(source.test_modules().into_iter().map(|module| format!("{below}/{module}")));
        }
        for source in &mut self.sources {
            let is_below = |module: &String| {
                source.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            };
            source.is_test |= tests.iter().any(is_below);
        }
    }
}

/// Asks Cargo for the members of the workspace at `root`.
///
/// # Errors
/// What Cargo said, or that it could not be started.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("starting cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("reading cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(packages.iter().map(|package| package_of(package, root)).collect())
}

fn package_of(package: &Value, root: &Path) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = text(&package["manifest_path"]);
    let folder = Path::new(&manifest).parent().unwrap_or(Path::new(""));
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    Package {
        name: text(&package["name"]),
        folder: folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned(),
        dependencies: list(&package["dependencies"])
            .iter()
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                is_for_tests: dependency["kind"].as_str() == Some("dev"),
            })
            .collect(),
        binaries: list(&package["targets"])
            .iter()
            .filter(|target| list(&target["kind"]).iter().any(|kind| kind == "bin"))
            .map(|target| text(&target["name"]))
            .collect(),
    }
}

/// The values that the ratchet's entries ever had. Empty where there is no git or no history: then only the file
/// itself binds.
fn ratchet_history(root: &Path) -> Vec<(String, usize)> {
    let output = Command::new("git")
        .args(["log", "--format=", "-p", "--unified=0", "--", super::ratchet::PATH])
        .current_dir(root)
        .output();
    let Ok(output) = output else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .filter_map(super::ratchet::parse_line)
        .collect()
}

//! Finds and reads the files that the configuration's `commands` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Place, SourceFile};
use crate::config::Config;

/// A file of `commands`, read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Arc<SourceFile>,
    /// Where paths in it begin.
    pub(super) directory: PathBuf,
}

/// Each file once, in the order of the list and of the alphabet; what cannot be read is a mistake.
pub(super) fn find(config: &Config) -> Vec<Result<Found, Diagnostic>> {
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut files = Vec::new();
    for pattern in &config.commands {
        match paths(config, pattern) {
            Ok(paths) => files.extend(paths.iter().filter(|path| is_new(path, &mut seen)).map(|path| read(path))),
            Err(mistake) => files.push(Err(mistake)),
        }
    }
    files
}

fn paths(config: &Config, pattern: &str) -> Result<Vec<PathBuf>, Diagnostic> {
    let refused = |problem: String, cure: String| {
        Err(Diagnostic { place: Place::of_file(config.origins.of("commands").to_string()), problem, cure })
    };
    let directory = match config.directory.as_os_str().is_empty() {
        true => "the working directory".to_owned(),
        false => config.directory.display().to_string(),
    };
    if !pattern.contains(['*', '?', '[']) {
        let path = config.directory.join(pattern);
        if path.is_file() {
            return Ok(vec![path]);
        }
        let problem = format!("commands names {}, and there is no such file", path.display());
        return refused(problem, format!("create it, or correct the path, which is relative to {directory}"));
    }
    let whole = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        // the directory is a name, whatever characters it has
        false => {
            Path::new(&glob::Pattern::escape(&config.directory.to_string_lossy())).join(pattern).display().to_string()
        }
    };
    let found = match glob::glob(&whole) {
        Ok(found) => found,
        Err(error) => {
            let problem = format!("commands has {pattern:?}, which is no pattern: {error}");
            return refused(problem, "write, for example, \"commands/*.toml\"".to_owned());
        }
    };
    // what cannot be listed cannot be read either, and a file that is not there is what is reported
    let mut paths: Vec<PathBuf> = found.filter_map(Result::ok).filter(|path| path.is_file()).collect();
    paths.sort();
    if paths.is_empty() {
        let problem = format!("commands has {pattern:?}, and no file matches it");
        return refused(problem, format!("add a file, or correct the pattern, which is relative to {directory}"));
    }
    Ok(paths)
}

fn is_new(path: &Path, seen: &mut Vec<PathBuf>) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let new = !seen.contains(&path);
    if new {
        seen.push(path);
    }
    new
}

fn read(path: &Path) -> Result<Found, Diagnostic> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| Diagnostic {
        place: Place::of_file(&shown),
        problem: format!("cannot be read: {error}"),
        cure: "make it a readable file of UTF-8 text".to_owned(),
    })?;
    // as TOML reads it, so that bytes can be counted
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Found { file: Arc::new(SourceFile { path: shown, text }), directory })
}

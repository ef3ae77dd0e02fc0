//! The pages show the files that run.

use std::fs;
use std::path::{Path, PathBuf};

use super::EXAMPLES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("read a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// The page with each block under a line `` `examples/sql/…` `` made of that file; and the files.
fn with_files(page: &str) -> (String, Vec<String>) {
    let (mut made, mut shown) = (String::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        made += &format!("{line}\n");
        let file = line.strip_prefix('`').and_then(|line| line.strip_suffix('`'));
        let Some(file) = file.filter(|file| file.starts_with("examples/sql/")) else { continue };
        let fence = lines.next().filter(|line| line.starts_with("```")).expect("a block under the name of a file");
        lines.by_ref().find(|line| *line == "```").expect("the end of the block");
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        made += &format!("{fence}\n{text}```\n");
        shown.push(file.to_owned());
    }
    (made, shown)
}

#[test]
fn the_pages_show_the_files_that_run() {
    let mut shown = Vec::new();
    for page in files("docs/examples") {
        let written = fs::read_to_string(&page).expect("read a page");
        let (made, files) = with_files(&written);
        shown.extend(files);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&page, &made).expect("write the page");
        } else {
            assert_eq!(written, made, "{}: run this test with UPDATE=1", page.display());
        }
    }
    for example in EXAMPLES {
        for file in files(&format!("examples/sql/{example}")) {
            let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
            // samples are linked, not shown
            assert!(name.ends_with(".jsonl") || shown.contains(&name), "{name} is on no page");
        }
    }
}

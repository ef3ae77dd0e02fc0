//! A directory for what one test writes: configurations, logs. Kept when the test fails.

use std::path::{Path, PathBuf};
use std::{fs, thread};

/// Removed when dropped, unless the test is failing: then its logs are the best witness.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guarantees");
        let path = parent.join(unique(name));
        fs::create_dir_all(&path).expect("make a directory for the test's files");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the test's files are kept in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A name that no other test, and no earlier run, has used: for topics, schemas, groups,
/// directories.
pub fn unique(name: &str) -> String {
    format!("{name}_{:012x}", fastrand::u64(..1 << 48))
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    solewriter::local::port::free().expect("find a free port")
}

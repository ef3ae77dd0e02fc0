//! A directory for what another process reads, or what is read at once.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// A new one among the temporary files, for `purpose` and for this user only.
    pub(crate) fn make(purpose: &str) -> io::Result<Self> {
        let name = format!("solewriter-{purpose}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// With these files.
    pub(crate) fn with(self, files: &[(&str, &str)]) -> io::Result<Self> {
        for (name, text) in files {
            fs::write(self.0.join(name), text)?;
        }
        Ok(self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // a directory that stays does no harm, and there is nobody to tell
        let _ = fs::remove_dir_all(&self.0);
    }
}

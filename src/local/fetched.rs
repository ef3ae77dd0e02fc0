//! What `./dev` fetches for machines that do not have it.

use std::env;
use std::path::{self, PathBuf};

/// Names the folder of all that was fetched, which several checkouts may share.
pub const FOLDER_VARIABLE: &str = "SOLEWRITER_LOCAL_DIR";

/// Of this working directory, when the variable names no other.
const FOLDER: &str = ".local";

/// Where `name` lies if it was fetched. Absolute, because servers run in other directories.
pub fn path(name: &str) -> PathBuf {
    let folder = env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty());
    let path = folder.map_or_else(|| PathBuf::from(FOLDER), PathBuf::from).join(name);
    // without a working directory, nothing better is known
    path::absolute(&path).unwrap_or(path)
}

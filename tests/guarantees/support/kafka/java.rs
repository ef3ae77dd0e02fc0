//! Running one of Kafka's programs.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use solewriter::local::guarded::{Guarded, Program};

use crate::support::scratch::fetched;

/// Little memory, and no compilation beyond the quick first stage: the JVM lives for seconds.
const SMALL: [&str; 4] = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"];

/// Starts a main class with `server.properties` of the directory as its last argument. The directory
/// goes when this process is gone.
pub fn run(arguments: &[&str], directory: &Path, log: &Path) -> Guarded {
    let jars = fetched("kafka/libs");
    assert!(jars.is_dir(), "no Kafka in {}: `./dev test` fetches it", jars.display());
    let mut command = vec![java()];
    command.extend(SMALL.map(OsString::from));
    command.push(jars.join("*").into());
    command.extend(arguments.iter().map(OsString::from));
    command.push(directory.join("server.properties").into());
    let program = Program {
        directory: directory.to_owned(),
        stdout: log.to_owned(),
        stderr: log.to_owned(),
        remove_when_orphaned: Some(directory.to_owned()),
        ..Program::new(command)
    };
    program.spawn().expect("run java")
}

/// The runtime that `./dev` fetched, where it had to; then `JAVA_HOME`; then the path.
fn java() -> OsString {
    let homes = [Some(fetched("java")), env::var_os("JAVA_HOME").map(PathBuf::from)];
    let programs = homes.into_iter().flatten().map(|home| home.join("bin/java"));
    let found = programs.into_iter().find(|program| Path::is_file(program));
    found.map_or_else(|| "java".into(), PathBuf::into_os_string)
}

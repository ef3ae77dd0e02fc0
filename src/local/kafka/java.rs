//! What Kafka's programs run on: its jars and a Java runtime.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Error, Jvm};
use crate::local::fetched;

/// A compiler that stops after its quick first stage, and the garbage collector with the fewest
/// threads.
const QUICK: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// As in Kafka's own `kafka-run-class.sh`.
const FULL: [&str; 6] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// Both, found on this machine.
#[derive(Debug, Clone)]
pub(super) struct Java {
    program: PathBuf,
    /// The folder of the jars.
    jars: PathBuf,
}

impl Java {
    pub fn find() -> Result<Self, Error> {
        let jars = fetched::path("kafka/libs");
        if !jars.is_dir() {
            return Err(Error::NoKafka { looked: jars });
        }
        Ok(Self { program: program(&places())?, jars })
    }

    /// The command that runs a main class with these arguments.
    pub fn command(&self, jvm: Jvm, heap_mib: u32, arguments: &[&str]) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![self.program.clone().into(), format!("-Xmx{heap_mib}m").into()];
        match jvm {
            Jvm::Quick => command.extend(QUICK.map(OsString::from)),
            Jvm::Full => {
                command.push(format!("-Xms{heap_mib}m").into());
                command.extend(FULL.map(OsString::from));
            }
        }
        command.extend(["-cp".into(), self.jars.join("*").into()]);
        command.extend(arguments.iter().map(OsString::from));
        command
    }
}

/// The folder that `./dev` fetched, where it had to; then `JAVA_HOME`; then the path.
fn places() -> Vec<PathBuf> {
    let home = env::var_os("JAVA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let homes = [Some(fetched::path("java")), home].into_iter().flatten().map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    homes.chain(env::split_paths(&path)).collect()
}

/// The first that is there, whatever its version.
fn program(places: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut programs = places.iter().map(|place| place.join("java"));
    programs.find(|program| Path::is_file(program)).ok_or_else(|| {
        let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
        Error::NoJava { looked }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::local::directory::Directory;

    #[test]
    fn the_first_java_that_is_there_is_taken() {
        let directory = Directory::make("java").expect("makes a directory");
        let places = ["none", "first", "second"].map(|name| directory.path().join(name));
        for place in &places[1..] {
            fs::create_dir(place).expect("makes a folder");
            fs::write(place.join("java"), "").expect("writes a file");
        }
        assert_eq!(program(&places).expect("finds one"), places[1].join("java"));
    }

    #[test]
    fn where_no_java_is_every_place_is_named() {
        let missing = program(&["/no/java".into(), "/nor/here".into()]).expect_err("finds nothing").to_string();
        assert!(missing.contains("/no/java, /nor/here"), "{missing}");
    }
}

//! Each client's program, made ready to run. `Err` says why it cannot be had here: a tool is
//! missing, or a registry does not answer. What is fetched is kept beside the jars of Kafka.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use solewriter::local::fetched;

use super::docs;
use super::snippet::{Call, Snippet};
use crate::support::scratch::Scratch;

/// For one tool; the slowest has been seen to take 15 s.
const FETCH_TIMEOUT: Duration = Duration::from_secs(180);
const BUILD_TIMEOUT: Duration = Duration::from_secs(180);

type Fetched = Result<Snippet, String>;

pub fn java() -> Fetched {
    ["java", "javac", "mvn"].into_iter().try_for_each(need)?;
    let scratch = Scratch::new("publishing-java");
    let project = scratch.path().to_owned();
    copy(&project, "java", &["pom.xml", "src/main/java/Publish.java"]);
    let _lock = lock();
    let mut repository = OsString::from("-Dmaven.repo.local=");
    repository.push(cache("maven"));
    let maven = Call::new(["mvn", "--batch-mode", "--quiet"]).arg(repository).arg("package").directory(&project);
    fetch(&maven.clone().arg("-Dmaven.main.skip"), &scratch)?;
    build(&maven.arg("--offline"), &scratch);

    // A JVM for each of 50 commands would take a minute.
    let many = project.join("Many.java");
    fs::write(&many, include_str!("Many.java")).expect("write a Java program");
    let java = Call::new(["java", "-cp", "target/publish.jar:target/lib/*"]).directory(&project);
    Ok(Snippet::new(java.clone().arg("Publish"), scratch).many(java.arg(many)))
}

pub fn python() -> Fetched {
    need("python3")?;
    let scratch = Scratch::new("publishing-python");
    let _lock = lock();
    let venv = cache("python");
    // The last that the making of it writes.
    if !venv.join("bin/pip").is_file() {
        fetch(&Call::new(["python3", "-m", "venv", "--clear"]).arg(&venv), &scratch)?;
    }
    let python = Call::new([venv.join("bin/python")]);
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    fetch(&python.clone().args(install).arg(source("python/requirements.txt")), &scratch)?;
    Ok(Snippet::new(python.arg(source("python/publish.py")), scratch))
}

pub fn go() -> Fetched {
    need("go")?;
    let scratch = Scratch::new("publishing-go");
    let _lock = lock();
    let program = scratch.path().join("publish");
    let go = Call::new(["go"])
        .directory(&source("go"))
        .variable("GOMODCACHE", cache("go/modules"))
        .variable("GOCACHE", cache("go/build"));
    fetch(&go.clone().args(["mod", "download"]), &scratch)?;
    build(&go.args(["build", "-o"]).arg(&program).variable("GOPROXY", "off"), &scratch);
    Ok(Snippet::new(Call::new([program]), scratch))
}

pub fn node() -> Fetched {
    ["node", "npm"].into_iter().try_for_each(need)?;
    let scratch = Scratch::new("publishing-node");
    let project = scratch.path().to_owned();
    copy(&project, "node", &["package.json", "package-lock.json", "publish.mjs"]);
    let _lock = lock();
    let install = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--cache"];
    fetch(&Call::new(install).arg(cache("npm")).directory(&project), &scratch)?;
    Ok(Snippet::new(Call::new(["node"]).arg(project.join("publish.mjs")), scratch))
}

pub fn kcat() -> Fetched {
    ["kcat", "bash"].into_iter().try_for_each(need)?;
    let scratch = Scratch::new("publishing-kcat");
    let version = Call::new(["bash", "-c", "((BASH_VERSINFO >= 5)) || { echo bash is older than 5; exit 1; }"]);
    fetch(&version, &scratch)?;
    Ok(Snippet::new(Call::new(["bash"]).arg(source("kcat.sh")), scratch))
}

/// Cargo builds the examples before it runs the tests.
pub fn rust() -> Fetched {
    let publish = crate::support::worker::bank().with_file_name("publish");
    Ok(Snippet::new(Call::new([publish]), Scratch::new("publishing-rust")))
}

fn need(tool: &str) -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if found { Ok(()) } else { Err(format!("{tool} is not installed")) }
}

fn fetch(call: &Call, scratch: &Scratch) -> Result<(), String> {
    call.start(&[], scratch).end(FETCH_TIMEOUT).map(drop)
}

/// Everything is there, so this works.
fn build(call: &Call, scratch: &Scratch) {
    let built = call.start(&[], scratch).end(BUILD_TIMEOUT);
    assert!(built.is_ok(), "{built:?}");
}

/// Several checkouts may share the cache.
fn lock() -> File {
    let directory = cache("");
    fs::create_dir_all(&directory).expect("make the cache");
    let file = File::create(directory.join("lock")).expect("make a file to lock");
    file.lock().expect("lock the cache");
    file
}

fn cache(name: &str) -> PathBuf {
    fetched::path("publishing").join(name)
}

fn source(file: &str) -> PathBuf {
    docs().join("publishing").join(file)
}

/// The tool writes beside its sources, so not where they are kept.
fn copy(to: &Path, project: &str, files: &[&str]) {
    for file in files {
        let target = to.join(file);
        fs::create_dir_all(target.parent().expect("a file in a directory")).expect("make a directory");
        fs::copy(source(project).join(file), target).expect("copy a source");
    }
}

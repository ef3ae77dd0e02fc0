//! A certificate for the broker's encrypted listener, made when it is needed: nothing secret lies
//! in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A key and its certificate, which also is the authority that clients trust.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// For clients: `ssl.ca.location`.
    pub authority: PathBuf,
    /// For the broker: private key and certificate in one PEM file.
    pub keystore: PathBuf,
}

/// Makes a certificate for this machine's loopback addresses.
pub fn certificate(directory: &Path) -> Certificate {
    let key = directory.join("key.pem");
    let authority = directory.join("authority.pem");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&authority)
        .output()
        .expect("run openssl, which makes the test certificate");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    let keystore = directory.join("keystore.pem");
    let read = |path: &Path| std::fs::read_to_string(path).expect("read what openssl wrote");
    std::fs::write(&keystore, read(&key) + &read(&authority)).expect("write the broker's key store");
    Certificate { authority, keystore }
}

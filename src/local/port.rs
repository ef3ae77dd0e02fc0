//! A free port for a server that may be stopped and started again.

use std::io;
use std::net::TcpListener;
use std::ops::Range;

/// Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152).
/// A port from there can be lost while its server is down: a client that keeps trying to connect to
/// it on this machine is one day given that very port, and connects to itself.
const PORTS: Range<u16> = 12_000..32_000;

/// Enough to find one even where most are taken.
const ATTEMPTS: u32 = 100;

/// A port of the loopback interface that was free a moment ago. Random, so that processes which ask
/// at the same time hardly ever get the same.
pub fn free() -> io::Result<u16> {
    for _ in 0..ATTEMPTS {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    // Then the operating system's choice, whatever it is.
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

//! TCP_NODELAY and keepalive on the driver's sockets.
//!
//! sqlx 0.9 no longer sets it on tokio (0.8.6 did) and exposes no socket. A
//! settlement is longer than a segment; with Nagle's algorithm its last part can
//! wait for a delayed acknowledgement, 40 ms on Linux. So the socket is found by
//! its local port, which the server knows. Where this finds nothing (behind an
//! address translation, on another system), the connection is merely slower.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use rustix::net::{SocketAddrAny, getsockname, sockopt};

/// Sets TCP_NODELAY on this process's socket with this local port, if it is there.
pub(super) fn set(local_port: u16) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let descriptors = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for descriptor in descriptors {
        // SAFETY: it is used only in this iteration. Another thread may close it
        // meanwhile; then the calls fail, or set an option that slows no socket.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        if getsockname(socket).is_ok_and(|address| port_of(address) == Some(local_port)) {
            prepare(socket);
        }
    }
}

/// What cannot be set leaves a connection that is slower, or slower to notice
/// that its peer is gone; the client's own time-outs hold all the same.
fn prepare(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepintvl(socket, Duration::from_secs(5));
    let _ = sockopt::set_tcp_keepcnt(socket, 3);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(socket, 30_000);
}

fn port_of(address: SocketAddrAny) -> Option<u16> {
    std::net::SocketAddr::try_from(address).ok().map(|address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_with_the_port_is_set() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!stream.nodelay().unwrap());
        set(stream.local_addr().unwrap().port());
        assert!(stream.nodelay().unwrap());
    }
}

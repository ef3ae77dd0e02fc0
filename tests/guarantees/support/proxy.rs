//! A proxy in front of Postgres that loses what it is told to lose.
//!
//! It reads the client's side of the protocol, so that a fault can hit the *execution* of a
//! statement, prepared long before, and the loss of an answer happens after the server has
//! finished, not somewhere near it.

mod frontend;
mod link;

use std::collections::HashMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// What happens to the next statement that an armed proxy recognises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the server has seen the request.
    RequestLost,
    /// The server runs the request to its end; the connection breaks before the client reads of it.
    AnswerLost,
    /// Everything stands still, this request not yet forwarded, until `release`.
    Held,
}

/// Passes everything until told otherwise. Dropping it cuts all connections.
pub struct Proxy {
    port: u16,
    switchboard: Arc<Switchboard>,
}

impl Proxy {
    /// Listens on a free port and forwards to the server of `url`.
    pub fn in_front_of(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind the proxy");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let switchboard = Arc::new(Switchboard::default());
        let shared = Arc::clone(&switchboard);
        let proxy = Self { port, switchboard };
        proxy.point_at(url);
        thread::spawn(move || accept(&listener, &shared));
        proxy
    }

    /// Forwards new connections to the server of `url`, as an address that moves in a failover.
    pub fn point_at(&self, url: &str) {
        let server: PgConnectOptions = url.parse().expect("a database URL");
        self.switchboard.lock().upstream = (server.get_host().to_owned(), server.get_port());
    }

    /// The same database, by way of the proxy.
    pub fn url(&self, url: &str) -> String {
        let server: PgConnectOptions = url.parse().expect("a database URL");
        server.host("127.0.0.1").port(self.port).to_url_lossy().to_string()
    }

    /// The next execution of a statement whose text contains `needle` meets the fault; once.
    pub fn arm(&self, needle: &str, fault: Fault) {
        self.switchboard.lock().armed = Some((needle.to_owned(), fault));
    }

    /// Cuts all connections now; new ones are served.
    pub fn cut(&self) {
        self.switchboard.lock().cut();
    }

    /// Cuts all connections and accepts none until `up`: the server is gone.
    pub fn down(&self) {
        let mut state = self.switchboard.lock();
        state.down = true;
        state.cut();
    }

    pub fn up(&self) {
        self.switchboard.lock().down = false;
    }

    /// Forwards nothing in either direction until `release`; connections stay open.
    pub fn hold(&self) {
        self.switchboard.lock().held = true;
    }

    pub fn release(&self) {
        self.switchboard.lock().held = false;
        self.switchboard.changed.notify_all();
    }

    /// How many armed faults have happened.
    pub fn fired(&self) -> u64 {
        self.switchboard.lock().fired
    }

    /// Waits until `count` armed faults have happened; panics after `timeout`.
    pub fn wait_fired(&self, count: u64, timeout: Duration) {
        let state = self.switchboard.lock();
        let wait = self.switchboard.changed.wait_timeout_while(state, timeout, |state| state.fired < count);
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        assert!(state.fired >= count, "{} of {count} faults in {timeout:?}", state.fired);
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.switchboard.lock().links.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.switchboard.lock();
        state.closed = true;
        state.cut();
        drop(state);
        self.switchboard.changed.notify_all();
        // Wakes the thread that waits for connections, so that it sees the end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What the test's thread and the connections' threads share.
#[derive(Default)]
struct Switchboard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Host and port of the server.
    upstream: (String, u16),
    /// Both ends of every open connection.
    links: HashMap<u64, [TcpStream; 2]>,
    next_link: u64,
    armed: Option<(String, Fault)>,
    fired: u64,
    held: bool,
    down: bool,
    closed: bool,
}

impl State {
    fn cut(&mut self) {
        for (_, ends) in self.links.drain() {
            for end in ends {
                // The other side may have closed first.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Switchboard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection; `None` while the server shall seem gone.
    fn open(&self, ends: [TcpStream; 2]) -> Option<u64> {
        let mut state = self.lock();
        if state.down || state.closed {
            return None;
        }
        state.next_link += 1;
        let link = state.next_link;
        state.links.insert(link, ends);
        Some(link)
    }

    fn close(&self, link: u64) {
        let ends = self.lock().links.remove(&link);
        for end in ends.into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Returns when the link may forward; false when it has been cut meanwhile.
    fn may_forward(&self, link: u64) -> bool {
        let state = self.lock();
        let held = |state: &mut State| state.held && state.links.contains_key(&link);
        let state = self.changed.wait_while(state, held).unwrap_or_else(PoisonError::into_inner);
        state.links.contains_key(&link)
    }

    /// The fault that this statement meets, which disarms the proxy.
    fn fault(&self, statement: &str) -> Option<Fault> {
        let mut state = self.lock();
        let (_, fault) = state.armed.take_if(|(needle, _)| statement.contains(needle.as_str()))?;
        state.held |= fault == Fault::Held;
        Some(fault)
    }

    fn has_fired(&self) {
        self.lock().fired += 1;
        self.changed.notify_all();
    }
}

fn accept(listener: &TcpListener, switchboard: &Arc<Switchboard>) {
    for client in listener.incoming().flatten() {
        if switchboard.lock().closed {
            return;
        }
        let (host, port) = switchboard.lock().upstream.clone();
        // A server that is down is a client that is hung up on.
        let Ok(server) = TcpStream::connect((host, port)) else {
            continue;
        };
        if let Err(error) = link::forward(client, server, switchboard) {
            eprintln!("the proxy could not serve a connection: {error}");
        }
    }
}

//! One connection through the proxy: a thread for each direction.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use super::frontend::{Frontend, Message};
use super::{Fault, Switchboard};

/// The last message of every answer, up to the byte that tells the transaction's state.
const READY_FOR_QUERY: [u8; 5] = [b'Z', 0, 0, 0, 5];

struct Link {
    id: u64,
    client: TcpStream,
    server: TcpStream,
    switchboard: Arc<Switchboard>,
    /// The answer that now comes from the server shall not reach the client.
    swallow: AtomicBool,
}

/// Serves a connection until one side ends it or a fault cuts it.
pub fn forward(client: TcpStream, server: TcpStream, switchboard: &Arc<Switchboard>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let Some(id) = switchboard.open([client.try_clone()?, server.try_clone()?]) else {
        return Ok(());
    };
    let switchboard = Arc::clone(switchboard);
    let link = Arc::new(Link { id, client, server, switchboard, swallow: AtomicBool::new(false) });
    let other = Arc::clone(&link);
    thread::spawn(move || link.run(Link::requests));
    thread::spawn(move || other.run(Link::answers));
    Ok(())
}

impl Link {
    /// An end of either direction, orderly or not, is the end of both.
    fn run(&self, direction: fn(&Self) -> io::Result<()>) {
        let _ = direction(self);
        self.switchboard.close(self.id);
    }

    fn requests(&self) -> io::Result<()> {
        let mut frontend = Frontend::default();
        let mut chunk = vec![0; 64 * 1024];
        let mut in_flight = false;
        loop {
            let count = (&self.client).read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            frontend.push(&chunk[..count]);
            while let Some(message) = frontend.next() {
                let ends_flight = message.ends_flight;
                if !self.request(message, in_flight)? {
                    return Ok(());
                }
                in_flight = !ends_flight;
            }
        }
    }

    /// False ends the connection. What is held is held between two flights: a client writes a whole one
    /// at once, and the server would hold the locks of half a one.
    fn request(&self, message: Message, in_flight: bool) -> io::Result<bool> {
        let fault = message.runs.as_deref().and_then(|statement| self.switchboard.fault(statement));
        match fault {
            Some(Fault::RequestLost) => {
                self.switchboard.close(self.id);
                self.switchboard.has_fired();
                return Ok(false);
            }
            Some(Fault::AnswerLost) => self.swallow.store(true, Ordering::SeqCst),
            Some(Fault::Held) => self.switchboard.has_fired(),
            None => {}
        }
        if (!in_flight || fault.is_some()) && !self.switchboard.may_forward(self.id) {
            return Ok(false);
        }
        if message.asks_for_encryption {
            // Refused here: what is encrypted could not be recognised.
            (&self.client).write_all(b"N")?;
        } else {
            (&self.server).write_all(&message.bytes)?;
        }
        Ok(true)
    }

    fn answers(&self) -> io::Result<()> {
        let mut chunk = vec![0; 64 * 1024];
        let mut swallowed = Vec::new();
        loop {
            let count = (&self.server).read(&mut chunk)?;
            if count == 0 || !self.switchboard.may_forward(self.id) {
                return Ok(());
            }
            if !self.swallow.load(Ordering::SeqCst) {
                (&self.client).write_all(&chunk[..count])?;
                continue;
            }
            swallowed.extend_from_slice(&chunk[..count]);
            if is_complete(&swallowed) {
                self.switchboard.close(self.id);
                self.switchboard.has_fired();
                return Ok(());
            }
        }
    }
}

/// Nothing follows a `ReadyForQuery` until the client has spoken again.
fn is_complete(answer: &[u8]) -> bool {
    let length = READY_FOR_QUERY.len() + 1;
    answer.len() >= length && answer[answer.len() - length..].starts_with(&READY_FOR_QUERY)
}

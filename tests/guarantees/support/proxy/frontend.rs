//! The client's side of the Postgres protocol, as far as it takes to know which statement a message
//! runs.

use std::collections::HashMap;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;

/// A whole message.
pub struct Message {
    pub bytes: Vec<u8>,
    /// The text of the statement that this message starts to execute.
    pub runs: Option<String>,
    /// The server ends the transaction of what it was sent up to here, unless one was begun explicitly.
    pub ends_flight: bool,
    /// The client would like to encrypt and waits for one byte.
    pub asks_for_encryption: bool,
}

/// Cuts the stream into messages and remembers what was prepared under which name.
#[derive(Default)]
pub struct Frontend {
    buffer: Vec<u8>,
    /// Messages have a type byte only after the start-up message.
    started: bool,
    statements: HashMap<String, String>,
}

impl Frontend {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived.
    pub fn next(&mut self) -> Option<Message> {
        let before_length = usize::from(self.started);
        let length = u32_at(&self.buffer, before_length)?;
        let total = before_length + usize::try_from(length).ok()?;
        if self.buffer.len() < total {
            return None;
        }
        let bytes: Vec<u8> = self.buffer.drain(..total).collect();
        if self.started {
            let runs = self.statement(&bytes);
            let ends_flight = !matches!(bytes.first(), Some(b'P' | b'B' | b'D' | b'E' | b'C'));
            return Some(Message { bytes, runs, ends_flight, asks_for_encryption: false });
        }
        let code = u32_at(&bytes, 4);
        let asks_for_encryption = code == Some(SSL_REQUEST) || code == Some(GSS_ENCRYPTION_REQUEST);
        self.started = !asks_for_encryption;
        Some(Message { bytes, runs: None, ends_flight: true, asks_for_encryption })
    }

    fn statement(&mut self, message: &[u8]) -> Option<String> {
        let mut texts = message.get(5..)?.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let mut text = || texts.next().map(|text| text.into_owned());
        match message.first()? {
            b'Q' => text(),
            // Parse: a name, then the statement. Nothing runs yet.
            b'P' => {
                let (name, statement) = (text()?, text()?);
                self.statements.insert(name, statement);
                None
            }
            // Bind: a portal, then the name of the statement. Its execution follows in the same
            // flight.
            b'B' => {
                text()?;
                self.statements.get(&text()?).cloned()
            }
            _ => None,
        }
    }
}

fn u32_at(bytes: &[u8], position: usize) -> Option<u32> {
    let number = bytes.get(position..position + 4)?;
    number.try_into().ok().map(u32::from_be_bytes)
}

//! `healthcheck`: the probe of a container that has no curl.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::exit::Exit;
use super::output::Output;
use crate::config::Config;

/// Longer than any answer that is alive; orchestrators give a probe a few seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// An answer is one line; what sends more is not solewriter.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// Ask the running worker whether it is alive or ready
///
/// Asks the address of http.listen. Ends with 0 if the answer is yes, with 1 otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example (Dockerfile):
  HEALTHCHECK CMD [\"solewriter\", \"healthcheck\"]")]
pub(super) struct Args {
    /// Ask whether it is ready (/readyz) instead of alive (/healthz)
    #[arg(long)]
    ready: bool,
}

/// What the worker answered.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    ok: bool,
    detail: String,
}

pub(super) fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let address = reachable(config.http.listen);
    let answer = ask(address, path).with_context(|| format!("no answer from http://{address}{path} (http.listen)"))?;
    output.print(&answer, |answer| answer.detail.clone())?;
    Ok(if answer.ok { Exit::Done } else { Exit::Failed })
}

/// "Any address" is for listening; from this machine the way there is the loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// HTTP/1.0: the server closes behind its answer, so reading to the end is reading the answer.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    // in one piece: whoever answers the first of several may be gone before the last
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    parse(&text).context("the answer is not HTTP: does something else listen there?")
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?;
    Some(Answer { ok: status.split(' ').nth(1)? == "200", detail: body.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn any_address_is_asked_over_the_loopback() {
        let reached = |listen: &str| reachable(listen.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:9400"), "127.0.0.1:9400");
        assert_eq!(reached("[::]:9400"), "[::1]:9400");
        assert_eq!(reached("10.0.0.5:80"), "10.0.0.5:80");
    }

    #[test]
    fn only_200_is_a_yes() {
        let answer = |status: &str| parse(&format!("HTTP/1.0 {status}\r\na: b\r\n\r\nword\n"));
        assert!(answer("200 OK").is_some_and(|answer| answer.ok));
        let no = answer("503 Service Unavailable").expect("HTTP");
        assert_eq!((no.ok, no.detail.as_str()), (false, "word"));
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n\r\n"), None);
    }

    #[test]
    fn a_server_is_asked_for_the_path() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 256];
            let length = stream.read(&mut request).expect("a request");
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nready\n").expect("answered");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let answer = ask(address, "/readyz").expect("an answer");
        assert!(answer.ok);
        let request = server.join().expect("no panic");
        assert!(request.starts_with("GET /readyz HTTP/1.0\r\n"), "{request}");
    }
}

//! What the log of the broker says, read as a person would.

/// The broker accepts clients.
const STARTED: &str = "from STARTING to STARTED";
/// The message of a broker, or controller, whose port another program has.
const PORT_TAKEN: &str = "Socket server failed to bind";
/// As much as fits a screen.
const LINES_MAX: usize = 20;

pub(super) fn says_started(log: &str) -> bool {
    log.contains(STARTED)
}

pub(super) fn says_port_taken(log: &str) -> bool {
    log.contains(PORT_TAKEN)
}

/// Why the broker ended. Its last error, with the causes and without the stack: what comes after it
/// is hundreds of lines about an orderly shutdown. Where it reports no error, its last words.
pub(super) fn reason(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !is_stack_frame(line)).collect();
    let lines = match lines.iter().rposition(|line| line.contains("] ERROR ")) {
        Some(error) => {
            let causes = lines[error + 1..].iter().take_while(|line| !line.starts_with('['));
            lines[error..=error].iter().chain(causes).take(LINES_MAX).copied().collect()
        }
        None => lines[lines.len().saturating_sub(LINES_MAX)..].to_vec(),
    };
    lines.join("\n")
}

fn is_stack_frame(line: &str) -> bool {
    line.starts_with("\tat ") || line.starts_with("\t...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_error_with_its_causes() {
        let log = "main ERROR Log4j API could not find a logging provider.\n\
            [main] ERROR kafka.server.BrokerServer - Fatal error during broker startup. Prepare to shutdown\n\
            [main] INFO kafka.server.BrokerServer - shutting down\n\
            [main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception during startup.\n\
            java.lang.RuntimeException: Received a fatal error\n\
            \tat kafka.Kafka$.main(Kafka.scala:75)\n\
            Caused by: Socket server failed to bind to 127.0.0.1:31992: Address already in use.\n\
            \t... 8 more\n\
            [kafka-shutdown-hook] INFO kafka.server.SharedServer - Stopping SharedServer\n\
            [kafka-shutdown-hook] INFO kafka.server.SharedServer - Stopped";
        let expected = "[main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception during startup.\n\
            java.lang.RuntimeException: Received a fatal error\n\
            Caused by: Socket server failed to bind to 127.0.0.1:31992: Address already in use.";
        assert_eq!(reason(log), expected);
        assert!(says_port_taken(log) && !says_started(log));
    }

    #[test]
    fn without_an_error_the_reason_is_the_end() {
        let log = (1..=30).map(|n| format!("line {n}\n")).collect::<String>();
        let reason = reason(&log);
        assert!(reason.starts_with("line 11\n") && reason.ends_with("line 30"), "{reason}");
    }
}

//! Publishes one command and prints its outcome: publish [KEY TYPE JSON]

use std::env;
use std::error::Error;
use std::time::Duration;

use solewriter::client::{Client, Command, Options};

const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| "localhost:9092".to_owned());
    let topic = env::var("TOPIC").unwrap_or_else(|_| "accounts.commands".to_owned());
    let mut arguments = env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (key, command_type, json) = (argument("acct-rust"), argument("account.open"), argument(r#"{"initial": 100}"#));

    // murmur2 is the client's default. The id is made here, once: every attempt sends it again.
    let mut command = Command::from_json(command_type, key, serde_json::from_str(&json)?)?;
    if let Ok(id) = env::var("COMMAND_ID") {
        command = command.with_id(id.parse()?)?;
    }
    let client = Client::connect(&servers, Options::new(topic)).await?;
    for _ in 0..ATTEMPTS {
        match tokio::time::timeout(TIMEOUT, send(&client, &command)).await {
            Ok(Ok(line)) => {
                println!("{line}");
                return Ok(());
            }
            Ok(Err(error)) => eprintln!("{error}"),
            Err(_) => eprintln!("no outcome within {TIMEOUT:?}"),
        }
    }
    Err(format!("no outcome yet; try again with COMMAND_ID={}", command.id()).into())
}

async fn send(client: &Client, command: &Command) -> Result<String, Box<dyn Error>> {
    // before it is published: the outcome cannot be missed
    let mut watch = client.watch(command).await?;
    let published = client.publish(command).await?;
    let outcome = watch.outcome(&published).await?;
    let (id, partition, offset, json) = (command.id(), published.partition, published.offset, outcome.json);
    Ok(format!(r#"{{"command_id":"{id}","partition":{partition},"offset":{offset},"outcome":{json}}}"#))
}

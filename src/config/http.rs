//! `[http]`: health and metrics.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Where health and metrics are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// IP address and port of /healthz, /readyz and /metrics. Nothing here asks for a password:
    /// listen beyond this machine only where the network is yours.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9400)) }
    }
}

/// The standard library's message does not say that names are not looked up.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|_| de::Error::custom(format!("{text:?} is no IP address with a port, such as \"127.0.0.1:9400\"")))
}

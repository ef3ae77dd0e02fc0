//! `[kafka.properties]`: librdkafka's own settings, except those that would break a promise.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::database_url::HIDDEN;
use super::error::Invalid;
use super::refused_properties;

/// Parts of a property's name that mark its value as a secret.
const SECRET_MARKS: [&str; 5] = ["password", "secret", "pem", "jaas", "oauthbearer.config"];

/// Properties by name. `Debug` and `Serialize` hide the values of those that look like secrets.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KafkaProperties(
    #[serde(deserialize_with = "texts")]
    #[schemars(with = "BTreeMap<String, PropertyValue>")]
    BTreeMap<String, String>,
);

/// As TOML writes a value; librdkafka wants text.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected text, a number, true or false")]
enum PropertyValue {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
}

impl KafkaProperties {
    /// Names and values, secrets included: for the client, not for eyes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, secrets hidden.
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| (name, if is_secret(name) { HIDDEN } else { value }))
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        self.iter().try_for_each(|(name, value)| {
            let problem =
                refused_properties::reason(name).map(str::to_owned).or_else(|| unknown_to_librdkafka(name, value));
            match problem {
                Some(problem) => Err(Invalid::new(format!("kafka.properties.{name}"), problem)),
                None => Ok(()),
            }
        })
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for KafkaProperties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(properties: I) -> Self {
        let owned = |(name, value): (K, V)| (name.into(), value.into());
        Self(properties.into_iter().map(owned).collect())
    }
}

/// Asks librdkafka itself, so that a typo is found here and not in front of the broker.
fn unknown_to_librdkafka(name: &str, value: &str) -> Option<String> {
    let error = ClientConfig::new().set(name, value).create_native_config().err()?;
    Some(match error {
        // Its description quotes the value.
        _ if is_secret(name) => "librdkafka refuses this value".to_owned(),
        KafkaError::ClientConfig(_, description, ..) => description,
        other => other.to_string(),
    })
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_MARKS.iter().any(|mark| name.contains(mark))
}

fn texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, PropertyValue>::deserialize(from)?;
    let text = |value| match value {
        PropertyValue::Text(text) => text,
        PropertyValue::Integer(number) => number.to_string(),
        PropertyValue::Number(number) => number.to_string(),
        PropertyValue::Boolean(boolean) => boolean.to_string(),
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for KafkaProperties {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, value: &str) -> Option<String> {
        let properties: KafkaProperties = [(name, value)].into_iter().collect();
        properties.validate().err().map(|invalid| invalid.problem)
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_refused_by_name() {
        let problem = problem("sesion.timeout.ms", "6000").expect("unknown");
        assert!(problem.contains("sesion.timeout.ms"), "{problem}");
        assert_eq!(super::tests::problem("session.timeout.ms", "6000"), None);
    }

    #[test]
    fn a_refused_secret_is_not_quoted() {
        let problem = problem("ssl.secret.of.mine", "hunter2").expect("unknown");
        assert!(!problem.contains("hunter2"), "{problem}");
    }

    #[test]
    fn the_newer_group_protocol_and_static_membership_are_allowed() {
        assert_eq!(problem("group.protocol", "consumer"), None);
        assert_eq!(problem("group.instance.id", "worker-1"), None);
    }

    #[test]
    fn tls_scram_and_zstd_are_built_in() {
        assert_eq!(problem("security.protocol", "sasl_ssl"), None);
        assert_eq!(problem("sasl.mechanism", "SCRAM-SHA-512"), None);
        assert_eq!(problem("compression.type", "zstd"), None);
    }

    #[test]
    fn secrets_are_hidden_and_other_values_are_shown() {
        let properties: KafkaProperties = [
            ("sasl.password", "hunter2"),
            ("ssl.key.pem", "hunter2"),
            ("sasl.oauthbearer.config", "hunter2"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("client.id", "mine"),
        ]
        .into_iter()
        .collect();
        let json = serde_json::to_string(&properties).expect("a map");
        for shown in [format!("{properties:?}"), json] {
            assert!(!shown.contains("hunter2") && shown.contains("mine"), "{shown}");
        }
    }
}

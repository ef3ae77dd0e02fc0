//! The names that a parameter may have.

use std::fmt;

/// A named parameter of a statement, a template or a detail.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parameter {
    /// `:entity_id`: the record's key, text.
    EntityId,
    /// `:command_id`: uuid.
    CommandId,
    /// `:command_time`: the record's time, timestamptz.
    CommandTime,
    /// `:uuid1`, `:uuid2`, …: version 5 of the command id, as [`crate::Context::new_uuid`] makes it.
    Uuid(u16),
    /// `:amount`: a field of the payload, typed by the database.
    Field(String),
    /// `:account.balance`: a column of a row that an earlier step took with `into`.
    Row {
        /// The row's name.
        row: String,
        /// The column.
        column: String,
    },
}

impl Parameter {
    /// The parameter that is written so, without its colon; `None` if it is no name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if let Some((row, column)) = name.split_once('.') {
            let names = is_name(row) && is_name(column);
            return names.then(|| Self::Row { row: row.to_owned(), column: column.to_owned() });
        }
        match name {
            "entity_id" => Some(Self::EntityId),
            "command_id" => Some(Self::CommandId),
            "command_time" => Some(Self::CommandTime),
            _ => match uuid_number(name) {
                Some(number) => Some(Self::Uuid(number)),
                None => is_name(name).then(|| Self::Field(name.to_owned())),
            },
        }
    }

    /// It is made of the record, and not of its payload or of a row.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        !matches!(self, Self::Field(_) | Self::Row { .. })
    }

    /// The built-in parameter of which `name` looks like a slip of the pen.
    #[must_use]
    pub fn misspelt(name: &str) -> Option<&'static str> {
        let near = |built_in: &&str| (1..=2).contains(&strsim::levenshtein(name, built_in));
        let built_in = ["entity_id", "command_id", "command_time"].into_iter().find(near);
        built_in.or_else(|| looks_numbered(name).then_some("uuid1"))
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntityId => f.write_str(":entity_id"),
            Self::CommandId => f.write_str(":command_id"),
            Self::CommandTime => f.write_str(":command_time"),
            Self::Uuid(number) => write!(f, ":uuid{number}"),
            Self::Field(name) => write!(f, ":{name}"),
            Self::Row { row, column } => write!(f, ":{row}.{column}"),
        }
    }
}

/// Letters, digits, `_` and, as in SQL, `$`; no digit first.
pub(super) fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
}

/// One number is written in one way only: `:uuid1` and `:uuid01` would be the same UUID otherwise.
fn uuid_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("uuid").filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

/// `uuid01`, `uuid_1`, `uuid0`, `uuid70000`.
fn looks_numbered(name: &str) -> bool {
    let digits = name.strip_prefix("uuid").map(|rest| rest.trim_start_matches('_'));
    let all = |digits: &str| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    digits.is_some_and(all) && uuid_number(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_built_in_a_field_or_a_column() {
        assert_eq!(Parameter::named("entity_id"), Some(Parameter::EntityId));
        assert_eq!(Parameter::named("uuid12"), Some(Parameter::Uuid(12)));
        assert_eq!(Parameter::named("uuid"), Some(Parameter::Field("uuid".into())));
        assert_eq!(Parameter::named("Größe"), Some(Parameter::Field("Größe".into())));
        let column = Parameter::Row { row: "account".into(), column: "balance".into() };
        assert_eq!(Parameter::named("account.balance"), Some(column));
        for no_name in ["", "1", "a b", "a.", ".a", "a.b.c", "-", ")"] {
            assert_eq!(Parameter::named(no_name), None, "{no_name}");
        }
    }

    #[test]
    fn a_parameter_is_shown_as_it_is_written() {
        for name in ["entity_id", "command_id", "command_time", "uuid3", "amount", "account.balance"] {
            assert_eq!(Parameter::named(name).unwrap().to_string(), format!(":{name}"));
        }
    }

    #[test]
    fn a_slip_of_the_pen_in_a_built_in_is_noticed() {
        for (name, meant) in
            [("entityid", "entity_id"), ("entityId", "entity_id"), ("comand_id", "command_id"), ("uuid01", "uuid1")]
        {
            assert_eq!(Parameter::misspelt(name), Some(meant), "{name}");
        }
        for field in ["amount", "entity_id", "uuid", "uuid1", "command", "time", "id"] {
            assert_eq!(Parameter::misspelt(field), None, "{field}");
        }
    }
}

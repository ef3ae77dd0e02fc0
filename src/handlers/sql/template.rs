//! Replies, event data and details: values and texts with parameters in them.

use super::diagnostic::Place;
use super::parameter::Parameter;

/// A JSON value with parameters in it. Objects keep the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// JSON as it is: never an array or an object.
    Literal(serde_json::Value, Place),
    /// A parameter's value: the whole string was `":name"`, and stands there.
    Parameter(Parameter, Place),
    /// An array.
    Array(Vec<Template>),
    /// An object.
    Object(Vec<(String, Template)>),
}

impl Template {
    /// The parameters in it, each with its place, in order; one that is used twice is there twice.
    #[must_use]
    pub fn uses(&self) -> Vec<(&Parameter, &Place)> {
        match self {
            Self::Literal(..) => Vec::new(),
            Self::Parameter(parameter, place) => vec![(parameter, place)],
            Self::Array(items) => items.iter().flat_map(Self::uses).collect(),
            Self::Object(entries) => entries.iter().flat_map(|(_, value)| value.uses()).collect(),
        }
    }

    /// The strings in it that stand for themselves, each with its place.
    #[must_use]
    pub fn texts(&self) -> Vec<(&str, &Place)> {
        match self {
            Self::Literal(value, place) => value.as_str().map(|text| (text, place)).into_iter().collect(),
            Self::Parameter(..) => Vec::new(),
            Self::Array(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Object(entries) => entries.iter().flat_map(|(_, value)| value.texts()).collect(),
        }
    }

    /// What a string of a template stands for.
    ///
    /// # Errors
    ///
    /// A string that begins with a colon, and neither names a parameter nor escapes the colon.
    pub fn of_string(text: &str, place: Place) -> Result<Self, TemplateError> {
        let Some(name) = text.strip_prefix(':') else {
            return Ok(Self::Literal(text.into(), place));
        };
        if name.starts_with(':') {
            return Ok(Self::Literal(name.into(), place));
        }
        match Parameter::named(name) {
            Some(parameter) => Ok(Self::Parameter(parameter, place)),
            None => Err(TemplateError {
                problem: format!("{text:?} begins with a colon and names no parameter"),
                cure: format!("double the colon for the text itself: {:?}", format!(":{text}")),
            }),
        }
    }
}

/// A text with `{name}` parameters in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// In order.
    pub pieces: Vec<DetailPiece>,
    /// Where the text stands.
    pub place: Place,
}

/// A piece of a [`Detail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetailPiece {
    /// Text as it is.
    Text(String),
    /// A parameter's value as text.
    Parameter(Parameter),
}

impl Detail {
    /// Takes a text apart at its `{name}`s; `{{` and `}}` are braces themselves.
    ///
    /// # Errors
    ///
    /// A brace without its other half, or with no name in it.
    pub fn parse(text: &str, place: Place) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let closed = rest.split_once('}').filter(|_| brace == "{");
            let parameter = closed.and_then(|(name, after)| Some((Parameter::named(name)?, after)));
            let Some((parameter, after)) = parameter else {
                return Err(TemplateError {
                    problem: format!("a {brace} that belongs to no {{name}}"),
                    cure: format!("write {{amount}} or {{account.balance}}; {brace}{brace} is the brace itself"),
                });
            };
            if !plain.is_empty() {
                pieces.push(DetailPiece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(DetailPiece::Parameter(parameter));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(DetailPiece::Text(plain));
        }
        Ok(Self { pieces, place })
    }

    /// The parameters in it, in order; one that is used twice is there twice.
    #[must_use]
    pub fn parameters(&self) -> Vec<&Parameter> {
        fn parameter(piece: &DetailPiece) -> Option<&Parameter> {
            match piece {
                DetailPiece::Text(_) => None,
                DetailPiece::Parameter(parameter) => Some(parameter),
            }
        }
        self.pieces.iter().filter_map(parameter).collect()
    }
}

/// What is wrong with a template's string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(text: &str) -> Result<String, TemplateError> {
        let detail = Detail::parse(text, Place::of_file("a.toml"))?;
        let shown = detail.pieces.iter().map(|piece| match piece {
            DetailPiece::Text(text) => format!("[{text}]"),
            DetailPiece::Parameter(parameter) => parameter.to_string(),
        });
        Ok(shown.collect())
    }

    #[test]
    fn a_string_is_a_parameter_only_as_a_whole() {
        let place = Place::of_file("a.toml");
        let of_string = |text: &str| Template::of_string(text, place.clone());
        let amount = Parameter::Field("amount".into());
        assert_eq!(of_string(":amount"), Ok(Template::Parameter(amount, place.clone())));
        let literal = |text: &str| Ok(Template::Literal(text.into(), place.clone()));
        assert_eq!(of_string("::amount"), literal(":amount"));
        assert_eq!(of_string(":::"), literal("::"));
        for text in ["amount", "", "a :b", "12:30"] {
            assert_eq!(of_string(text), literal(text), "{text}");
        }
        for text in [":", ":a b", ":-)", ":a.b.c", ":1"] {
            assert!(of_string(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_detail_is_text_with_parameters_in_braces() {
        assert_eq!(detail("balance {a.b} < {amount}").unwrap(), "[balance ]:a.b[ < ]:amount");
        assert_eq!(detail("{{{a}}}").unwrap(), "[{]:a[}]");
        assert_eq!(detail("é}} {{x}}").unwrap(), "[é} {x}]");
        assert_eq!(detail("").unwrap(), "");
    }

    #[test]
    fn half_a_pair_of_braces_is_refused() {
        for text in ["{", "}", "a {b", "a} b", "{}", "{a b}", "{:a}", "{a}}"] {
            assert!(detail(text).is_err(), "{text}");
        }
    }
}

//! The tables that a file may have, and their keys. TOML gives a key to the table whose header it
//! follows, so a key may stand in one table and be meant for the one around it.

use crate::config::nearest;

/// A kind of table.
#[derive(Debug)]
pub(super) struct Kind {
    /// What it is called in messages.
    pub(super) name: &'static str,
    /// The keys that it has.
    pub(super) keys: &'static [&'static str],
    /// The kind of table around it.
    within: Option<&'static Kind>,
    /// The kinds of tables within it, by their keys.
    pub(super) inner: &'static [(&'static str, &'static Kind)],
    /// Where its own keys have to stand.
    own_keys_stand: &'static str,
}

pub(super) static FILE: Kind = Kind {
    name: "the file",
    keys: &["entity", "tables", "command", "write"],
    within: None,
    inner: &[("command", &COMMAND), ("write", &WRITE)],
    own_keys_stand: "before the first [[command]] or [[write]]",
};

pub(super) static COMMAND: Kind = Kind {
    name: "command",
    keys: &["type", "step", "reply", "emit", "constraints", "optional", "schema", "isolation", "nondeterministic"],
    within: Some(&FILE),
    inner: &[("step", &STEP), ("emit", &EVENT)],
    own_keys_stand: "before the first [[command.step]]",
};

pub(super) static STEP: Kind = Kind {
    name: "step",
    keys: &["sql", "expect", "otherwise", "into"],
    within: Some(&COMMAND),
    inner: &[("otherwise", &ALTERNATIVE)],
    own_keys_stand: "above its [[command.step.otherwise]]",
};

pub(super) static ALTERNATIVE: Kind = Kind {
    name: "otherwise",
    keys: &["when", "into", "reject", "detail"],
    within: Some(&STEP),
    inner: &[],
    own_keys_stand: "in [[command.step.otherwise]]",
};

pub(super) static EVENT: Kind = Kind {
    name: "emit",
    keys: &["type", "data"],
    within: Some(&COMMAND),
    inner: &[],
    own_keys_stand: "in [[command.emit]]",
};

pub(super) static WRITE: Kind = Kind {
    name: "write",
    keys: &["name", "sql", "expect", "constraints", "optional", "nondeterministic"],
    within: Some(&FILE),
    inner: &[],
    own_keys_stand: "in [[write]]",
};

impl Kind {
    /// What to do about a key that it does not have.
    pub(super) fn cure(&self, key: &str) -> String {
        if let Some(owner) = self.around().find(|kind| kind.keys.contains(&key)) {
            return format!("{key} is a key of {}: put it {}", owner.with_article(), owner.own_keys_stand);
        }
        match self.meant(key) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("the keys of {} are {}", self.name, self.keys.join(", ")),
        }
    }

    /// The key of which `key`, which it does not have, looks like a slip of the pen.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        let elsewhere = self.keys.contains(&key) || self.around().any(|kind| kind.keys.contains(&key));
        nearest(key, self.keys).filter(|_| !elsewhere)
    }

    /// The kinds around it, the innermost first.
    fn around(&self) -> impl Iterator<Item = &'static Kind> {
        std::iter::successors(self.within, |kind| kind.within)
    }

    fn with_article(&self) -> String {
        if self.within.is_some() { format!("the {}", self.name) } else { self.name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_belongs_further_out_is_sent_there() {
        assert_eq!(STEP.cure("reply"), "reply is a key of the command: put it before the first [[command.step]]");
        assert_eq!(
            ALTERNATIVE.cure("expect"),
            "expect is a key of the step: put it above its [[command.step.otherwise]]"
        );
        let entity = "entity is a key of the file: put it before the first [[command]] or [[write]]";
        assert_eq!(EVENT.cure("entity"), entity);
        assert_eq!(STEP.meant("reply"), None);
    }

    #[test]
    fn a_misspelt_key_is_the_nearest_of_its_own() {
        assert_eq!(STEP.cure("expects"), "did you mean expect?");
        assert_eq!(STEP.meant("expects"), Some("expect"));
        assert_eq!(EVENT.cure("zzz"), "the keys of emit are type, data");
    }
}

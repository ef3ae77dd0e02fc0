//! The log and what its commands mean: three withdrawals of one from one account that holds one.
//!
//! The second finds too little, unless the foreign deposit came first; the third repeats the id of the first.

pub type Offset = usize;
pub type CommandId = usize;

/// The command id at each offset. All commands have the same key.
pub const LOG: [CommandId; 3] = [0, 1, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    pub version: u8,
    pub balance: u8,
}

/// What is stored and published, byte for byte: it names the version, so that two histories differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Applied { version: u8, balance: u8 },
    Rejected { version: u8 },
}

impl Entity {
    pub const OPENED: Entity = Entity { version: 0, balance: 1 };

    fn withdraw(self) -> (Outcome, Entity) {
        let Entity { version, balance } = self;
        if balance == 0 {
            return (Outcome::Rejected { version }, self);
        }
        let after = Entity { version: version + 1, balance: balance - 1 };
        let applied = Outcome::Applied { version: after.version, balance: after.balance };
        (applied, after)
    }

    pub fn deposit(self) -> Entity {
        Entity { version: self.version + 1, balance: self.balance + 1 }
    }
}

/// The final outcome of each command id, as far as it is known.
pub type Outcomes = [Option<Outcome>; 2];

/// What became of the command at one offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub offset: Offset,
    /// A repeat has no effect; its outcome is the original's.
    pub repeat: bool,
    pub outcome: Outcome,
}

impl Record {
    pub fn id(&self) -> CommandId {
        LOG[self.offset]
    }
}

/// The records of `count` commands from `first` on, and the entity after them.
///
/// The writer calls it with what it remembers, the auditor with what is true: it is also the sequential oracle.
pub fn decide(mut entity: Entity, mut known: Outcomes, first: Offset, count: usize) -> (Vec<Record>, Entity) {
    let mut records = Vec::with_capacity(count);
    for offset in first..first + count {
        let known = &mut known[LOG[offset]];
        let repeat = known.is_some();
        let outcome = *known.get_or_insert_with(|| {
            let (outcome, after) = entity.withdraw();
            entity = after;
            outcome
        });
        records.push(Record { offset, repeat, outcome });
    }
    (records, entity)
}

//! How much each entity holds of what the sample commands add, as one snapshot of the tables shows it.
//! Values only.

use std::collections::HashMap;

use super::sample::{Holds, SampleTraffic};
use crate::postgres::{EntityState, Held, HeldQuery};

/// What one entity holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding<'a> {
    pub(super) entity_type: &'a str,
    pub(super) entity_id: &'a str,
    pub(super) held: i64,
}

/// A state that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) entity_type: String,
    pub(super) entity_id: String,
    pub(super) why: String,
}

/// The queries that a snapshot has to answer.
pub(super) fn queries(samples: &[SampleTraffic], tables_schema: &str) -> Vec<HeldQuery> {
    let of = |sample: &SampleTraffic| match sample.holds {
        Holds::State(_) => None,
        Holds::Query(sql) => {
            let (entity_type, tables_schema) = (sample.entity_type.clone(), tables_schema.to_owned());
            Some(HeldQuery { entity_type, sql, tables_schema })
        }
    };
    samples.iter().filter_map(of).collect()
}

/// What the states of a snapshot hold, and what its queries have answered.
pub(super) fn holdings<'a>(
    samples: &[SampleTraffic],
    entities: &'a [EntityState],
    held: &'a [Held],
) -> Result<Vec<Holding<'a>>, Unreadable> {
    let in_states = samples.iter().filter_map(|sample| match &sample.holds {
        Holds::State(read) => Some((&*sample.entity_type, read)),
        Holds::Query(_) => None,
    });
    let in_states: HashMap<_, _> = in_states.collect();
    let answered =
        held.iter().map(|Held { entity_type, entity_id, held }| Holding { entity_type, entity_id, held: *held });
    let mut holdings: Vec<Holding<'_>> = answered.collect();
    for EntityState { entity_type, entity_id, state, .. } in entities {
        let Some(read) = in_states.get(&**entity_type) else { continue };
        match read(state.as_deref().unwrap_or("null")) {
            Ok(held) => holdings.push(Holding { entity_type, entity_id, held }),
            Err(why) => {
                let (entity_type, entity_id) = (entity_type.clone(), entity_id.clone());
                return Err(Unreadable { entity_type, entity_id, why });
            }
        }
    }
    Ok(holdings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Sample;
    use crate::dev::sample::Words;

    fn never(_: &mut crate::dev::Sampler) -> Sample {
        unreachable!("nothing is sent")
    }

    fn state(entity_type: &str, state: &str) -> EntityState {
        EntityState { entity_type: entity_type.into(), entity_id: "a".into(), version: 1, state: Some(state.into()) }
    }

    #[test]
    fn states_and_queries_answer_for_their_types_and_nobody_for_the_others() {
        let words = Words { held: "sum".to_owned(), added: "added".to_owned() };
        let samples = [
            SampleTraffic::new::<i64>("jar", never, |beans| *beans),
            SampleTraffic::in_sql("account", never, "select id, balance from account", words),
        ];
        let asked = queries(&samples, "shop");
        assert_eq!((asked.len(), &*asked[0].entity_type, &*asked[0].tables_schema), (1, "account", "shop"));
        let entities = [state("jar", "7"), state("account", "null"), state("sku", "null")];
        let answered = [Held { entity_type: "account".into(), entity_id: "b".to_owned(), held: 5 }];
        let found = holdings(&samples, &entities, &answered).expect("readable");
        let found: Vec<_> = found.iter().map(|of| (of.entity_type, of.entity_id, of.held)).collect();
        assert_eq!(found, [("account", "b", 5), ("jar", "a", 7)]);
    }

    #[test]
    fn a_state_that_cannot_be_read_is_named() {
        let samples = [SampleTraffic::new::<i64>("jar", never, |beans| *beans)];
        let found = holdings(&samples, &[state("jar", "{}")], &[]).expect_err("unreadable");
        assert_eq!(found.entity_id, "a");
    }
}

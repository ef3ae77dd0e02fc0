//! What is sent next: commands that a program makes, or the lines of a file.

use std::sync::Arc;

use super::Sample;
use super::sample::{SampleTraffic, Sampler};
use super::script::Script;

/// The key of the suggested command: nobody else sends to it, so that its entity shows what became
/// of it.
const KEY: &str = "mine";

/// Where the commands come from.
pub(super) enum Commands {
    /// Made by chance, for one of these entity types.
    Made(Vec<(SampleTraffic, Sampler)>),
    /// Read from a file, in order, again and again.
    Read(Script),
}

/// A command, and for whom it is.
pub(super) struct Next {
    pub(super) entity_type: Arc<str>,
    pub(super) sample: Sample,
    /// Whether somebody reckons what it adds.
    pub(super) is_reckoned: bool,
}

impl Commands {
    /// Made as these samples say.
    pub(super) fn made(samples: &[SampleTraffic]) -> Self {
        Self::Made(samples.iter().map(|sample| (sample.clone(), Sampler::default())).collect())
    }

    /// The next one; `None` if there is nothing to send.
    pub(super) fn next(&mut self) -> Option<Next> {
        match self {
            Self::Made(samples) => {
                let (samples, sampler) = fastrand::choice(samples.iter_mut())?;
                let sample = (samples.next)(sampler);
                Some(Next { entity_type: samples.entity_type.clone(), sample, is_reckoned: true })
            }
            Self::Read(script) => {
                let (entity_type, sample) = script.next();
                Some(Next { entity_type, sample, is_reckoned: false })
            }
        }
    }

    /// One to try by hand, to an entity of its own.
    pub(super) fn to_try(&self) -> Option<(Arc<str>, Sample)> {
        match self {
            Self::Made(samples) => {
                let (samples, _) = samples.first()?;
                let sample = (samples.next)(&mut Sampler::default());
                Some((samples.entity_type.clone(), Sample { entity_id: KEY.to_owned(), ..sample }))
            }
            Self::Read(script) => Some(script.to_try(KEY)),
        }
    }
}

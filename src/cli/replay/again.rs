//! What `replay verify` and `replay try` share: the log's commands are run again, and what they leave is compared.

use std::num::NonZeroU32;

use super::leftovers;
use super::watch::Watch;
use crate::config::Config;
use crate::postgres::CheckpointName;
use crate::replay::progress::Progress;
use crate::replay::verify::{Options, Report, verify};
use crate::worker::Worker;

#[derive(Debug, clap::Args)]
pub(super) struct AgainArgs {
    /// Begin from what this checkpoint holds, instead of from the beginning of the log
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<CheckpointName>,
    /// Records a second at most, over all partitions, so that live writers keep their latency
    #[arg(long, value_name = "RECORDS")]
    rate: Option<NonZeroU32>,
    /// Begin anew where the same command was stopped or killed before, instead of going on
    #[arg(long)]
    anew: bool,
}

impl AgainArgs {
    /// Shows how far it is, and names shadows that are left at its end.
    pub(super) async fn run(&self, worker: &Worker, config: &Config, more: Options) -> anyhow::Result<Report> {
        let progress = Progress::default();
        let watch = Watch::begin(&progress, "offsets")?;
        let options = Options { from: self.from.clone(), rate: self.rate, go_on: true, anew: self.anew, ..more };
        let verified = verify(worker, config, &options, &progress).await;
        drop(watch);
        let report = verified?;
        leftovers::tell(config, report.shadow.as_deref()).await;
        Ok(report)
    }
}

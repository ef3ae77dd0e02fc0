//! Old partitions of a topic that was changed under its producers settle what was placed for the old
//! layout: the halt is lifted, their owners do it, this waits.

use std::time::Instant;

use super::look::Look;
use super::{ASK_EVERY, Run};
use crate::cli::exit::Problem;
use crate::postgres::TopicAction;

/// Until nothing is undone. What an owner meets that was placed for the new layout halts it again.
pub(super) async fn drain(run: &Run<'_>, by: &TopicAction<'_>, mut look: Look) -> anyhow::Result<Look> {
    let undone: Vec<i32> =
        look.partitions.iter().filter(|seen| seen.undone.is_some()).map(|seen| seen.row.partition).collect();
    run.store.drain_partitions(by, &undone).await?;
    let (mut before, mut since) = (look.progress(), Instant::now());
    loop {
        look = run.look().await?;
        look.refuse_other_halts()?;
        let Some(undone) = look.undone() else { return Ok(look) };
        if look.progress() != before {
            (before, since) = (look.progress(), Instant::now());
        }
        if since.elapsed() >= run.args.timeout {
            return Err(Problem::unreachable(format!(
                "{undone}\n  nothing has moved for {:?}: a worker has to own these partitions; type: solewriter status",
                run.args.timeout
            ))
            .into());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

//! Shadow databases that nobody is connected to: kept on purpose, or left behind by a process that was stopped or killed.

use std::io::Write as _;

use crate::config::Config;
use crate::postgres::Store;

/// Names them on stderr, but for the one that this run was told to keep.
pub(super) async fn tell(config: &Config, kept: Option<&str>) {
    if let Err(error) = names(config, kept).await {
        tracing::warn!(%error, "looking for shadow databases that are left");
    }
}

async fn names(config: &Config, kept: Option<&str>) -> anyhow::Result<()> {
    let store = Store::new(&config.database, "solewriter replay")?;
    let shadows = store.shadows().await?;
    store.close().await;
    for name in shadows.iter().filter(|name| Some(name.as_str()) != kept) {
        // stderr may be closed: the result does not depend on it
        let _ = writeln!(
            std::io::stderr(),
            "there is a shadow database of a run that was told to keep it, stopped or killed; if nobody needs it, type: \
             drop database {name}"
        );
    }
    Ok(())
}

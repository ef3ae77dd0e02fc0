//! `check`: is everything in order? One line each, with the cure.

use serde::Serialize;

use super::exit::Exit;
use super::output::{Output, Tone};
use super::{backend, check_config, output};
use crate::config::Config;
use crate::worker::Worker;

/// Check dependencies, topics, permissions and handlers
///
/// Says of every dependency, topic, partition count, permission and handler whether it is in order,
/// and what to do where it is not. Changes nothing. Ends with 3 if a check failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter check -o json | jq '.checks[] | select(.status != \"ok\")'")]
pub(super) struct Args {}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CheckStatus {
    /// In order.
    Ok,
    /// Works, and will hurt some day.
    Warning,
    /// `run` would not work.
    Failed,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: String,
    /// How it ended.
    pub(super) status: CheckStatus,
    /// What was found.
    pub(super) detail: String,
    /// What to do, unless it is in order.
    pub(super) cure: Option<String>,
    /// The same for people, below the table: with the line of a file, and a caret under the place.
    #[serde(skip)]
    pub(super) shown: Option<String>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// No check failed; warnings are allowed.
    ok: bool,
    checks: Vec<Check>,
}

pub(super) async fn run(output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let mut checks = check_config::checks(config);
    // Without a database or a cluster to ask, the rest would only repeat what is missing.
    if !checks.iter().any(Check::has_failed) {
        checks.extend(backend::check(worker, config).await?);
    }
    let report = Report::of(checks);
    output.print(&report, Report::table)?;
    Ok(if report.ok { Exit::Done } else { Exit::Difference })
}

impl Check {
    /// In order.
    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Ok, detail, None)
    }

    /// Works, and will hurt some day.
    pub(super) fn warning(name: impl Into<String>, detail: impl Into<String>, cure: &str) -> Self {
        Self::new(name, CheckStatus::Warning, detail, Some(cure))
    }

    /// `run` would not work.
    pub(super) fn failed(name: impl Into<String>, detail: impl Into<String>, cure: &str) -> Self {
        Self::new(name, CheckStatus::Failed, detail, Some(cure))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.status == CheckStatus::Failed
    }

    fn new(name: impl Into<String>, status: CheckStatus, detail: impl Into<String>, cure: Option<&str>) -> Self {
        Self { name: name.into(), status, detail: detail.into(), cure: cure.map(str::to_owned), shown: None }
    }
}

impl Report {
    fn of(checks: Vec<Check>) -> Self {
        Self { ok: !checks.iter().any(Check::has_failed), checks }
    }

    fn table(&self) -> String {
        let mut table = output::table(&["STATUS", "CHECK", "DETAIL"]);
        for check in &self.checks {
            let detail = match &check.cure {
                Some(cure) => format!("{}; cure: {cure}", check.detail),
                None => check.detail.clone(),
            };
            table.add_row([check.status.cell(), check.name.clone().into(), detail.into()]);
        }
        let shown = self.checks.iter().filter_map(|check| check.shown.as_ref());
        output::drawn(&table) + &shown.map(|shown| format!("\n{shown}\n")).collect::<String>()
    }
}

impl CheckStatus {
    fn cell(self) -> comfy_table::Cell {
        match self {
            Self::Ok => output::toned("ok", Tone::Good),
            Self::Warning => output::toned("warning", Tone::Warning),
            Self::Failed => output::toned("failed", Tone::Bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_in_order_and_a_failure_is_not() {
        let warning = Check::warning("untimed ids", "as found", "use UUIDv7");
        assert!(Report::of(vec![warning.clone()]).ok);
        let failed = Check::failed("schema", "as found", "solewriter migrate");
        assert!(!Report::of(vec![warning, failed]).ok);
    }

    #[test]
    fn the_report_has_the_shape_of_the_interface() {
        let report = Report::of(vec![Check::ok("postgres", "as found")]);
        assert_eq!(
            serde_json::to_value(&report).expect("a document"),
            serde_json::json!({"ok": true, "checks": [
                {"name": "postgres", "status": "ok", "detail": "as found", "cure": null}
            ]})
        );
    }

    #[test]
    fn every_check_is_one_line_with_its_cure() {
        let failed = Check::failed("schema", "as found", "solewriter migrate");
        let table = Report::of(vec![failed]).table();
        let line = table.lines().nth(1).expect("a header and a row");
        assert!(line.starts_with("failed"), "{table}");
        assert!(line.ends_with("as found; cure: solewriter migrate"), "{table}");
    }
}

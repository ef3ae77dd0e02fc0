//! The Prometheus text format, as far as tests read it.

use std::collections::BTreeMap;

/// Every series with its value; the key is the series as it was printed, `name{label="value"}`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { series: series.collect() }
    }

    /// The sum over all series of that name which have all these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let matches = |series: &str| {
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            found == name && wanted.iter().all(|label| labels.contains(label))
        };
        self.series.iter().filter(|(series, _)| matches(series)).map(|(_, value)| value).sum()
    }

    /// Whether any series has that name.
    pub fn has(&self, name: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name))
    }
}

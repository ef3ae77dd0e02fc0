//! How cost grows: the same worker with more and more of one thing, as curves.
//!
//! Points are measured in rounds, as the rows of the table are, and each trial's books are balanced.

mod what;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use self::what::{Base, Setup, Value, What, number};
use super::backlog::Backlog;
use super::chart::{Chart, Point, Series};
use super::report::Figures;
use super::services::{Services, Setting};
use super::trial::{self, Measured, Options, Row};
use super::workload::Workload;
use super::{Error, Say, with_services};
use crate::config::Config;

/// What a sweep is measured with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) what: What,
    /// `rust` or `sql`.
    pub(crate) handlers: Row,
    pub(crate) setups: Vec<Setup>,
    /// At least one.
    pub(crate) rounds: usize,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Sweep {
    pub(crate) machine: Setting,
    pub(crate) what: What,
    pub(crate) handlers: Row,
    pub(crate) rounds: usize,
    pub(crate) points: Vec<Measurement>,
}

/// One point, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// Of the curve; nothing if there is one only.
    pub(crate) series: String,
    pub(crate) value: Value,
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    #[serde(flatten)]
    pub(crate) options: Options,
    /// How many times the rate of its curve's first point, of the medians.
    pub(crate) ratio_to_first: Option<f64>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Measures it. Whatever was made is gone when this returns.
pub(crate) async fn measure(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Sweep, Error> {
    with_services(config, shutdown, say, async |services| rounds(services, plan, say).await).await
}

async fn rounds(services: &Services, plan: &Plan, say: Say<'_>) -> Result<Sweep, Error> {
    let mut backlogs = Vec::new();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); plan.setups.len()];
    if let Some(first) = plan.setups.first() {
        trial::warm_up(services, backlog_of(&mut backlogs, services, first, say).await?, say).await?;
    }
    for round in 1..=plan.rounds {
        for (setup, measured) in plan.setups.iter().zip(&mut measured) {
            let backlog = backlog_of(&mut backlogs, services, setup, say).await?;
            let trial = trial::settle(services, plan.handlers, backlog, setup.options).await?;
            say(format!("round {round}: {} {:.0}/s", setup.name(plan.what), trial.commands_per_second));
            measured.push(trial);
        }
    }
    for backlog in backlogs {
        backlog.drop(services).await?;
    }
    let points = plan.setups.iter().zip(&measured).filter_map(|(setup, rounds)| Measurement::of(setup, rounds));
    let mut points: Vec<Measurement> = points.collect();
    relate(&mut points);
    let Plan { what, handlers, rounds, .. } = *plan;
    Ok(Sweep { machine: services.setting.clone(), what, handlers, rounds, points })
}

/// Setups with the same commands settle one log.
async fn backlog_of<'a>(
    backlogs: &'a mut Vec<Backlog>,
    services: &Services,
    setup: &Setup,
    say: Say<'_>,
) -> Result<&'a Backlog, Error> {
    let is_it = |backlog: &Backlog| backlog.workload == setup.workload && backlog.partitions == setup.partitions;
    let known = backlogs.iter().position(is_it);
    let number = match known {
        Some(number) => number,
        None => {
            say(format!("producing {} commands", setup.workload.commands));
            backlogs.push(Backlog::fill(services, setup.workload, setup.partitions).await?);
            backlogs.len() - 1
        }
    };
    Ok(&backlogs[number])
}

impl Setup {
    /// As its progress is told.
    fn name(&self, what: What) -> String {
        [what.label(), &self.series, &self.value.to_string()].join(" ").replace("  ", " ")
    }
}

impl Measurement {
    /// `None` if there was no round.
    fn of(setup: &Setup, rounds: &[Measured]) -> Option<Self> {
        let Setup { series, value, workload, partitions, options } = setup.clone();
        let figures = Figures::of(rounds)?;
        Some(Self { series, value, workload, partitions, options, ratio_to_first: None, figures })
    }
}

/// Sets each point in relation to the first of its curve.
fn relate(points: &mut [Measurement]) {
    for number in 0..points.len() {
        let series = &points[number].series;
        let first = points.iter().find(|first| first.series == *series).and_then(|first| first.figures.rate());
        points[number].ratio_to_first = first.and_then(|first| Some(points[number].figures.rate()? / first));
    }
}

impl Sweep {
    /// The curves of the rates; a point whose books are wrong is none.
    pub(crate) fn chart(&self) -> Chart {
        let mut series: Vec<Series> = Vec::new();
        for point in self.points.iter().filter(|point| point.figures.void.is_none()) {
            let place = Point::of(point.value.place(), point.figures.commands_per_second);
            match series.iter_mut().find(|series| series.name == point.series) {
                Some(series) => series.points.push(place),
                None => series.push(Series { name: point.series.clone(), points: vec![place] }),
            }
        }
        let (x, y) = self.what.scales();
        Chart {
            title: format!("Commands settled per second, by {}", self.what.label()),
            note: format!(
                "{}; handlers in {}; {}",
                self.machine.note(),
                if self.handlers == Row::Sql { "SQL" } else { "Rust" },
                if self.rounds == 1 {
                    "one round".to_owned()
                } else {
                    format!("medians of {} rounds, bars from the least to the most", self.rounds)
                }
            ),
            x_label: self.what.label().to_owned(),
            y_label: "commands/s".to_owned(),
            x,
            y,
            series,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cost::Cost;
    use super::super::workload::{Ids, Spread};
    use super::*;

    fn point(series: &str, value: u64, rates: &[f64], void: Option<&str>) -> Measurement {
        let workload = Workload {
            commands: 1_000,
            accounts: 10,
            spread: Spread::Even,
            payload_bytes: 100,
            ids: Ids::V7,
            repeats_percent: 0,
            began_ms: 1_790_000_000_000,
        };
        let (value, options) = (Value::Number(value), Options::default());
        let setup = Setup { series: series.to_owned(), value, workload, partitions: 8, options };
        let of = |rate: &f64| Measured {
            commands_per_second: *rate,
            seconds: 1.0,
            cost: Cost::default(),
            disk_bytes: None,
            memory_bytes_max: None,
            void: void.map(Into::into),
        };
        Measurement::of(&setup, &rates.iter().map(of).collect::<Vec<_>>()).expect("a round")
    }

    #[test]
    fn a_point_is_set_in_relation_to_the_first_of_its_curve() {
        let mut points = vec![
            point("even", 100, &[80.0], None),
            point("hot", 100, &[50.0], None),
            point("even", 1_000, &[40.0, 20.0, 60.0], None),
            point("hot", 1_000, &[70.0], Some("wrong")),
        ];
        relate(&mut points);
        let ratios: Vec<Option<f64>> = points.iter().map(|point| point.ratio_to_first).collect();
        assert_eq!(ratios, [Some(1.0), Some(1.0), Some(0.5), None]);
    }

    #[test]
    fn a_picture_has_a_curve_for_each_series_and_no_void_point() {
        let points = vec![
            point("even", 100, &[80.0, 90.0, 70.0], None),
            point("hot", 100, &[50.0], None),
            point("even", 1_000, &[40.0], Some("wrong")),
        ];
        let machine = Setting::of_this_machine();
        let sweep = Sweep { machine, what: What::Entities, handlers: Row::Rust, rounds: 3, points };
        let chart = sweep.chart();
        let shown: Vec<(&str, usize)> =
            chart.series.iter().map(|series| (&*series.name, series.points.len())).collect();
        assert_eq!(shown, [("even", 1), ("hot", 1)]);
        assert_eq!(chart.series[0].points[0], Point { x: 100.0, y: 80.0, low: 70.0, high: 90.0 });
        assert!(chart.svg().expect("a picture").contains("even"));
    }
}

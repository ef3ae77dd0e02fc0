//! Measured points as a picture (SVG): the same points give the same bytes.

mod axis;

use plotters::coord::Shift;
use plotters::prelude::*;

use self::axis::Axis;
pub(crate) use self::axis::{Scale, short};
use super::report::Spread;

const SIZE: (u32, u32) = (900, 520);
/// Easy to tell apart, also for the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 140),
];
const FONT: &str = "sans-serif";
/// Above the plot: the title and the note.
const HEAD: u32 = 66;
const MARGIN: i32 = 20;
/// Beside the plot, where there is more than one series; one line of it.
const LEGEND: (i32, i32) = (130, 24);
/// Where places are words, series stand so far from each other.
const APART: f64 = 0.08;

type Area<DB> = DrawingArea<DB, Shift>;

/// A picture of some series over one axis.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// In small letters below the title: where it was measured, and with what.
    pub(crate) note: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
    pub(crate) series: Vec<Series>,
}

/// Points that belong together. The name is in the legend where there is more than one.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// One of them, with a bar from the least to the most that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Point {
    /// The median with its least and its most.
    pub(crate) fn of(x: f64, y: Spread) -> Self {
        Self { x, y: y.median, low: y.min, high: y.max }
    }
}

/// It could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart cannot be drawn: {0}")]
pub(crate) struct ChartError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for ChartError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

impl Chart {
    /// Draws it.
    pub(crate) fn svg(&self) -> Result<String, ChartError> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        self.draw(&root)?;
        root.present()?;
        // the end of the document is written at the end of the area
        drop(root);
        Ok(svg)
    }

    fn draw<DB: DrawingBackend>(&self, root: &Area<DB>) -> Result<(), ChartError> {
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        head.draw(&Text::new(self.title.as_str(), (MARGIN, 14), (FONT, 22).into_font()))?;
        let small = (FONT, 13).into_font().color(&BLACK.mix(0.6));
        head.draw(&Text::new(self.note.as_str(), (MARGIN, 44), small))?;

        if self.series.len() > 1 {
            let (plot, legend) = body.split_horizontally(SIZE.0 as i32 - LEGEND.0);
            self.draw_legend(&legend)?;
            self.draw_plot(&plot)
        } else {
            self.draw_plot(&body)
        }
    }

    fn draw_plot<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        let (x, y) = self.axes();
        let mut plot = ChartBuilder::on(area)
            .margin_right(MARGIN)
            .margin_left(MARGIN / 2)
            .margin_bottom(MARGIN / 2)
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(x.clone(), y.clone())?;
        plot.configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .x_desc(self.x_label.as_str())
            .y_desc(self.y_label.as_str())
            .draw()?;
        for (number, (series, colour)) in self.coloured().enumerate() {
            let points: Vec<Point> =
                series.points.iter().map(|point| point.on(&x, &y).beside(self.shift(number))).collect();
            // words have no order, so nothing leads from one to the next
            if !self.is_of_words() {
                let line = points.iter().map(|point| (point.x, point.y));
                plot.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            }
            let bar = |point: &Point| ErrorBar::new_vertical(point.x, point.low, point.y, point.high, colour, 8);
            plot.draw_series(points.iter().map(bar))?;
            plot.draw_series(points.iter().map(|point| Circle::new((point.x, point.y), 4, colour.filled())))?;
        }
        Ok(())
    }

    fn draw_legend<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        for (line, (series, colour)) in (0..).zip(self.coloured()) {
            let top = line * LEGEND.1;
            area.draw(&Rectangle::new([(0, top + 3), (16, top + 11)], colour.filled()))?;
            area.draw(&Text::new(series.name.as_str(), (24, top), (FONT, 14).into_font()))?;
        }
        Ok(())
    }

    fn coloured(&self) -> impl Iterator<Item = (&Series, RGBColor)> {
        self.series.iter().zip(COLOURS.into_iter().cycle())
    }

    fn is_of_words(&self) -> bool {
        matches!(self.x, Scale::Words(_))
    }

    /// How far a series stands from its place.
    fn shift(&self, number: usize) -> f64 {
        if self.is_of_words() { (number as f64 - (self.series.len() - 1) as f64 / 2.0) * APART } else { 0.0 }
    }

    fn axes(&self) -> (Axis, Axis) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::of_places(&self.x, points().map(|point| point.x));
        let y = Axis::of_amounts(&self.y, points().flat_map(|point| [point.low, point.y, point.high]));
        (x, y)
    }
}

impl Point {
    /// In the coordinates of the axes.
    fn on(&self, x: &Axis, y: &Axis) -> Self {
        Self { x: x.at(self.x), y: y.at(self.y), low: y.at(self.low), high: y.at(self.high) }
    }

    fn beside(self, shift: f64) -> Self {
        Self { x: self.x + shift, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        let points = points.iter().map(|(x, y)| Point { x: *x, y: *y, low: y * 0.9, high: y * 1.1 }).collect();
        Series { name: name.to_owned(), points }
    }

    fn chart(x: Scale, y: Scale, series: Vec<Series>) -> Chart {
        Chart {
            title: "Rate by size".to_owned(),
            note: "a machine".to_owned(),
            x_label: "rows".to_owned(),
            y_label: "commands/s".to_owned(),
            x,
            y,
            series,
        }
    }

    fn circles(svg: &str) -> usize {
        svg.matches("<circle ").count()
    }

    #[test]
    fn every_series_and_every_label_is_in_the_picture() {
        let all = vec![
            series("even", &[(0.0, 80_000.0), (1e5, 70_000.0), (1e7, 60_000.0)]),
            series("cold", &[(0.0, 50_000.0), (1e5, 40_000.0), (1e7, 30_000.0)]),
        ];
        let svg = chart(Scale::Log, Scale::Linear, all).svg().expect("a picture");
        for text in ["Rate by size", "a machine", "rows", "commands/s", "even", "cold", "100k", "10M", "80k"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text} is not in\n{svg}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }

    #[test]
    fn the_same_points_are_the_same_picture() {
        let picture = || chart(Scale::Log, Scale::Log, vec![series("one", &[(1.0, 1e3), (64.0, 9e4)])]);
        assert_eq!(picture().svg().expect("a picture"), picture().svg().expect("a picture"));
    }

    #[test]
    fn one_series_needs_no_legend_and_words_no_line() {
        let words = Scale::Words(vec!["v7".to_owned(), "v4".to_owned()]);
        let svg = chart(words, Scale::Linear, vec![series("0 rows", &[(0.0, 9.0), (1.0, 5.0)])]).svg();
        let svg = svg.expect("a picture");
        assert!(svg.contains("\nv7\n") && svg.contains("\nv4\n"), "{svg}");
        assert!(!svg.contains("0 rows"), "{svg}");
        assert!(circles(&svg) >= 2, "{svg}");
    }

    #[test]
    fn a_chart_of_nothing_is_an_empty_one() {
        let svg = chart(Scale::Log, Scale::Log, Vec::new()).svg().expect("a picture");
        assert_eq!(circles(&svg), 0, "{svg}");
    }
}

//! The picture: what became of the tokens of the budget over time, a panel for each strategy.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use budget_pool::Snapshot;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Run, grouped};

/// The most moments that a panel draws: more would make the file larger, and show the same.
const MOST_MOMENTS: usize = 250;

/// The size of a panel in pixels.
const PANEL: (u32, u32) = (480, 250);

const USED: RGBColor = RGBColor(49, 104, 142);
const HELD: RGBColor = RGBColor(170, 200, 220);
const BEYOND: RGBColor = RGBColor(200, 60, 50);

/// The tokens of the budget at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    at: Duration,
    used: u64,
    held: u64,
    beyond: u64,
}

impl Moment {
    fn all(&self) -> u64 {
        self.used.saturating_add(self.held).saturating_add(self.beyond)
    }

    fn seconds(&self) -> f64 {
        self.at.as_secs_f64()
    }
}

/// The moments of one run, from its start to its end.
#[derive(Debug)]
pub struct History(Vec<Moment>);

impl History {
    pub fn new() -> History {
        History(vec![Moment { at: Duration::ZERO, used: 0, held: 0, beyond: 0 }])
    }

    /// Adds what `pool` says at this simulated time.
    pub fn push(&mut self, at: Duration, pool: &Snapshot) {
        let tokens = &pool.tokens;
        let (used, held, beyond) = (tokens.used, tokens.reserved, tokens.overage);
        self.0.push(Moment { at, used, held, beyond });
    }

    /// Not more than a panel draws; the last one among them.
    fn few(&self) -> Vec<Moment> {
        let step = self.0.len().div_ceil(MOST_MOMENTS);
        let mut few: Vec<Moment> = self.0.iter().rev().step_by(step).copied().collect();
        few.reverse();
        few
    }

    /// The end, and the most tokens that there were at once.
    fn extent(&self) -> (f64, u64) {
        let most = self.0.iter().map(Moment::all).max().unwrap_or(0);
        (self.0.last().map_or(0.0, Moment::seconds), most)
    }
}

/// Whether the file can be written.
pub fn check(path: &Path) -> Result<(), String> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    file.map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

/// Draws a panel for each run, all to the same scale.
pub fn draw(path: &Path, runs: &[Run]) -> Result<(), String> {
    let svg = svg(runs).map_err(|error| format!("the picture: {error}"))?;
    fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))
}

fn svg(runs: &[Run]) -> Result<String, Box<dyn Error>> {
    let columns = runs.len().min(2);
    let rows = runs.len().div_ceil(2);
    let size = (PANEL.0 * u32::try_from(columns)?, PANEL.1 * u32::try_from(rows)?);
    let extents = runs.iter().map(|run| run.history.extent());
    let (end, most) =
        extents.fold((0.0, 1), |(end, most), (at, all)| (f64::max(end, at), most.max(all)));
    let most = runs.iter().filter_map(|run| run.pool.tokens.cap).fold(most, u64::max);
    let mut text = String::new();
    drawn(&mut text, size, (rows, columns), runs, end, most as f64 * 1.05)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// Apart: an error of the backend borrows its text.
fn drawn<'a>(
    text: &'a mut String,
    size: (u32, u32),
    grid: (usize, usize),
    runs: &[Run],
    end: f64,
    most: f64,
) -> Result<(), Box<dyn Error + 'a>> {
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, run) in root.split_evenly(grid).iter().zip(runs) {
        panel(area, run, end, most)?;
    }
    root.present()?;
    Ok(())
}

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    run: &Run,
    end: f64,
    most: f64,
) -> Result<(), Box<dyn Error + 'a>> {
    let tokens = &run.pool.tokens;
    let beyond = grouped(tokens.overage);
    let title = format!("{}: {} used, {beyond} beyond the cap", run.strategy, grouped(tokens.used));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("simulated seconds")
        .y_label_formatter(&|tokens| grouped(tokens.round() as u64))
        .draw()?;

    // From behind: each area covers the lower part of the one before it.
    let few = run.history.few();
    let mut band = |name: &str, color: RGBColor, height: fn(&Moment) -> u64| {
        let series = chart.draw_series(std::iter::once(Polygon::new(outline(&few, height), color)));
        series.map(|series| {
            series.label(name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled())
            });
        })
    };
    band("beyond the cap", BEYOND, Moment::all)?;
    band("held", HELD, |moment| moment.used.saturating_add(moment.held))?;
    band("used", USED, |moment| moment.used)?;
    if let Some(cap) = tokens.cap {
        let line = [(0.0, cap as f64), (end, cap as f64)];
        chart
            .draw_series([PathElement::new(line, BLACK.stroke_width(1))])?
            .label("cap")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 12, y)], BLACK));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()?;
    Ok(())
}

/// The corners of an area: a figure holds until the next moment.
fn outline(moments: &[Moment], height: fn(&Moment) -> u64) -> Vec<(f64, f64)> {
    let mut corners = vec![(0.0, 0.0)];
    let mut last = 0.0;
    for moment in moments {
        let now = height(moment) as f64;
        if now != last {
            corners.extend([(moment.seconds(), last), (moment.seconds(), now)]);
        }
        last = now;
    }
    let end = moments.last().map_or(0.0, Moment::seconds);
    corners.extend([(end, last), (end, 0.0)]);
    corners
}

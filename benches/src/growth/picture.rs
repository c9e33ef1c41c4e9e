use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::drawing::DrawingArea;
use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition, TRANSPARENT,
};

const SIZE: (u32, u32) = (720, 400);
/// Seen on white and on black: no background is drawn.
const INK: RGBColor = RGBColor(128, 128, 128);
/// Room above the lines, for their names.
const HEADROOM: f64 = 1.35;
const LINES: [RGBColor; 2] = [RGBColor(46, 134, 222), RGBColor(230, 126, 34)];

/// One line of a picture.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the line is.
    pub name: &'static str,
    /// From the smallest to the largest.
    pub points: Vec<(f64, f64)>,
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The name of its file.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What grows.
    pub across: &'static str,
    /// What is measured, with its unit.
    pub up: &'static str,
    /// Whether what grows does so in powers.
    pub log: bool,
    /// Its lines.
    pub curves: Vec<Curve>,
}

pub(super) fn draw(picture: &Picture, file: &Path) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let points = || picture.curves.iter().flat_map(|curve| &curve.points);
    let most = points().map(|(_, value)| *value).fold(0.0, f64::max);
    let last = points().map(|(at, _)| *at).fold(1.0, f64::max);
    if picture.log {
        fill(&area, picture, (1.0..last).log_scale(), most)?;
    } else {
        fill(&area, picture, 0.0..last, most)?;
    }
    area.present()?;
    Ok(())
}

fn fill<X>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    picture: &Picture,
    across: X,
    most: f64,
) -> Result<(), Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(picture.title, font(18))
        .margin(14)
        .margin_right(32)
        .x_label_area_size(46)
        .y_label_area_size(76)
        .build_cartesian_2d(across, 0.0..most * HEADROOM)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(font(13))
        .axis_desc_style(font(14))
        .x_desc(picture.across)
        .y_desc(picture.up)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (curve, color) in picture.curves.iter().zip(LINES) {
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .label_font(font(13))
        .border_style(TRANSPARENT)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    Ok(())
}

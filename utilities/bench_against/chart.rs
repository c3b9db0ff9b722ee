//! The ratios as a chart: a point for each cell's median, a line from the least
//! to the greatest ratio, a dash for its mark, on a logarithmic axis.

use std::path::Path;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, IntoTextStyle, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::report::{Cell, Table};
use datastore_utilities::bench::Mark;

const SIZE: (u32, u32) = (1120, 520);
const COLORS: [RGBColor; 2] = [RGBColor(20, 100, 170), RGBColor(200, 110, 20)];
const MARK: RGBColor = RGBColor(150, 20, 60);
const FONT: &str = "sans-serif";

type Drawn<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;
type Ratios<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

/// Draws the tables; all of them have the same cells.
pub fn draw(path: &Path, tables: &[Table]) -> Result<(), String> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    draw_on(&area, tables).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw_on<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, tables: &[Table]) -> Result<(), Drawn<'a>> {
    area.fill(&WHITE)?;
    let columns = tables.iter().map(|table| table.cells.len()).max().unwrap_or_default();
    let (low, high) = bounds(tables);
    let mut chart = ChartBuilder::on(area)
        .caption("Throughput, datastore-node by Redis, every write synced", (FONT, 20))
        .margin(14)
        .margin_right(24)
        .x_label_area_size(64)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..columns as f64, (low..high).log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_labels(10)
        .y_label_formatter(&|ratio| format!("{ratio}×"))
        .label_style((FONT, 14))
        .draw()?;
    let one = [(0.0, 1.0), (columns as f64, 1.0)];
    chart.draw_series([PathElement::new(one, BLACK.stroke_width(2))])?;
    for (number, table) in tables.iter().enumerate() {
        let aside = (number as f64 + 0.5) / tables.len() as f64;
        let color = COLORS[number % COLORS.len()];
        for (column, cell) in table.cells.iter().enumerate() {
            let x = column as f64 + 0.15 + 0.7 * aside;
            draw_cell(&mut chart, cell, x, color)?;
            draw_number(area, &chart, cell, x, color)?;
        }
        label(area, (80, 44 + 20 * number as i32), &table.title, color.to_rgba().into())?;
    }
    label(area, (80, 44 + 20 * tables.len() as i32), "– mark", MARK.into())?;
    draw_columns(area, &chart, tables, low)?;
    area.present()
}

/// Powers of two around all that is shown, with room above for the legend.
fn bounds(tables: &[Table]) -> (f64, f64) {
    let cells = || tables.iter().flat_map(|table| &table.cells);
    let low = cells().map(|cell| cell.ratio.min).fold(0.5, f64::min);
    let high = cells().map(|cell| cell.ratio.max).fold(4.0, f64::max);
    (low.log2().floor().exp2(), (high.log2().ceil() + 1.0).exp2())
}

fn draw_cell<'a>(chart: &mut Ratios<'_, 'a>, cell: &Cell, x: f64, color: RGBColor) -> Result<(), Drawn<'a>> {
    let ratio = cell.ratio;
    chart.draw_series([PathElement::new([(x, ratio.min), (x, ratio.max)], color.stroke_width(2))])?;
    chart.draw_series([Circle::new((x, ratio.median), 4, color.filled())])?;
    if let Some(mark) = cell.mark.map(Mark::bound) {
        let dash = [(x - 0.17, mark), (x + 0.17, mark)];
        chart.draw_series([PathElement::new(dash, ShapeStyle::from(MARK).stroke_width(2))])?;
    }
    Ok(())
}

/// The median as a number above its line, on a ground that dims what is below it;
/// where the mark would be dimmed, below the line.
fn draw_number<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    chart: &Ratios<'_, 'a>,
    cell: &Cell,
    x: f64,
    color: RGBColor,
) -> Result<(), Drawn<'a>> {
    let ratio = cell.ratio;
    let is_close_above = |mark: Mark| mark.bound() >= ratio.max && mark.bound() < ratio.max * 1.25;
    let is_in_the_way = cell.mark.is_some_and(is_close_above);
    let (x, bottom) = if is_in_the_way {
        let (x, y) = chart.backend_coord(&(x, ratio.min));
        (x, y + 20)
    } else {
        let (x, y) = chart.backend_coord(&(x, ratio.max));
        (x, y - 7)
    };
    let ground = [(x - 13, bottom - 13), (x + 13, bottom)];
    area.draw(&Rectangle::new(ground, WHITE.mix(0.8).filled()))?;
    let style = (FONT, 12).into_font().color(&color).pos(Pos::new(HPos::Center, VPos::Bottom));
    area.draw_text(&format!("{:.2}", ratio.median), &style, (x, bottom))
}

/// Names below the columns.
fn draw_columns<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    chart: &Ratios<'_, 'a>,
    tables: &[Table],
    low: f64,
) -> Result<(), Drawn<'a>> {
    let cells = tables.iter().map(|table| &table.cells).max_by_key(|cells| cells.len());
    for (column, cell) in cells.into_iter().flatten().enumerate() {
        let (x, y) = chart.backend_coord(&(column as f64 + 0.5, low));
        let style: TextStyle = (FONT, 14).into_text_style(area);
        let style = style.pos(Pos::new(HPos::Center, VPos::Top));
        area.draw_text(cell.operation, &style, (x, y + 8))?;
        area.draw_text(&format!("{}, {}", cell.connections, cell.pipeline), &style, (x, y + 26))?;
    }
    let style: TextStyle = (FONT, 13).into_text_style(area);
    let place = (SIZE.0 as i32 / 2, SIZE.1 as i32 - 8);
    let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
    area.draw_text("connections, requests of a batch", &style, place)
}

fn label<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    place: (i32, i32),
    text: &str,
    style: ShapeStyle,
) -> Result<(), Drawn<'a>> {
    area.draw_text(text, &(FONT, 14).into_font().color(&style.color), place)
}

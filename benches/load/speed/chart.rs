//! The rates as bars, for the documents.

use std::fmt::Write as _;

use super::{Found, Row};

const BAR: f64 = 20.0;
const STEP: f64 = 26.0;
const LEFT: f64 = 290.0;
const WIDTH: f64 = 420.0;

/// An SVG that is readable on light and dark ground.
pub fn draw(found: &Found) -> String {
    let shown: Vec<_> = found
        .rows
        .iter()
        .filter(|(row, _)| !matches!(row, Row::Echo | Row::Script | Row::ForeignTopic | Row::Forged))
        .collect();
    let most = shown.iter().map(|(_, sample)| sample.measured.per_second).fold(1.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let height = STEP * shown.len() as f64 + 30.0;
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>text {{ fill: #222 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>\n\
         <text x=\"{LEFT}\" y=\"14\">notifications a second</text>\n",
        LEFT + WIDTH + 80.0
    );
    let mut top = 24.0;
    for (row, sample) in shown {
        let rate = sample.measured.per_second;
        let colour = match row {
            Row::Ours | Row::OursEverysec | Row::Duplicates => "#2b7a4b",
            Row::Prototype | Row::PrototypeEverysec => "#8a8a8a",
            _ => "#b5762a",
        };
        let (width, middle) = (WIDTH * rate / most, top + BAR * 0.7);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{top:.0}\" width=\"{width:.0}\" height=\"{BAR}\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{middle:.0}\">{rate:.0}</text>",
            LEFT - 8.0,
            row.name(),
            LEFT + width + 6.0
        );
        top += STEP;
    }
    svg.push_str("</svg>\n");
    svg
}

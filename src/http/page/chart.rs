//! Bars over time as SVG: drawn by the server, so that they are there without JavaScript, and read out as a table by screen readers.

use maud::{Markup, html};

/// One kind of bar.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// What the legend says.
    pub(super) name: String,
    /// Class of the style sheet that gives its colour.
    pub(super) class: &'static str,
    /// One value for each bar.
    pub(super) values: Vec<u64>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 120.0;
const GAP: f64 = 1.0;

/// Bars of stacked series; `labels` name the bars.
pub(super) fn bars(title: &str, labels: &[String], series: &[Series]) -> Markup {
    let sum = |bar: usize| -> u64 { series.iter().filter_map(|series| series.values.get(bar)).sum() };
    let highest = (0..labels.len()).map(sum).max().unwrap_or(0);
    let total = |series: &Series| -> u64 { series.values.iter().sum() };
    html! {
        figure class="chart" {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(title) {
                @for (bar, label) in labels.iter().enumerate() {
                    g {
                        title { (label) ": " (sum(bar)) }
                        @for rect in stack(bar, labels.len(), highest, series) {
                            rect class=(rect.class) x=(rect.x) y=(rect.y) width=(rect.width) height=(rect.height) {}
                        }
                    }
                }
            }
            div class="axis" {
                span { (labels.first().map_or("", String::as_str)) }
                span { "highest " (highest) }
                span { (labels.last().map_or("", String::as_str)) }
            }
            ul class="legend" {
                @for series in series {
                    li { i class=(series.class) {} (series.name) ": " b { (total(series)) } }
                }
            }
        }
    }
}

/// A piece of a bar, rounded to what a screen shows.
#[derive(Debug, PartialEq)]
struct Rect {
    class: &'static str,
    x: String,
    y: String,
    width: String,
    height: String,
}

#[expect(clippy::cast_precision_loss, reason = "counts of events and of bars are far below 2^52")]
fn stack(bar: usize, bars: usize, highest: u64, series: &[Series]) -> Vec<Rect> {
    let step = WIDTH / bars.max(1) as f64;
    let mut below = 0.0;
    let mut pieces = Vec::new();
    for series in series {
        let value = series.values.get(bar).copied().unwrap_or(0);
        if value == 0 {
            continue;
        }
        let height = HEIGHT * value as f64 / highest.max(1) as f64;
        below += height;
        pieces.push(Rect {
            class: series.class,
            x: format!("{:.1}", bar as f64 * step),
            y: format!("{:.1}", HEIGHT - below),
            width: format!("{:.1}", (step - GAP).max(1.0)),
            height: format!("{height:.1}"),
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_bar_stand_on_one_another_and_the_highest_bar_fills_the_chart() {
        let series =
            |class: &'static str, values: [u64; 2]| Series { name: class.to_owned(), class, values: values.to_vec() };
        let all = [series("a", [1, 0]), series("b", [3, 2])];
        let first = stack(0, 2, 4, &all);
        assert_eq!(
            first.iter().map(|rect| (rect.class, rect.y.as_str(), rect.height.as_str())).collect::<Vec<_>>(),
            [("a", "90.0", "30.0"), ("b", "0.0", "90.0"),]
        );
        assert_eq!(stack(1, 2, 4, &all).len(), 1, "nothing is drawn for nothing");
        assert!(stack(0, 0, 0, &[]).is_empty());
    }

    #[test]
    fn a_hostile_name_is_text() {
        let series = [Series { name: "<script>".to_owned(), class: "a", values: vec![1] }];
        let drawn = bars("x\"><script>", &["</svg><script>".to_owned()], &series).into_string();
        assert!(!drawn.contains("<script"), "{drawn}");
    }
}

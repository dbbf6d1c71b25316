//! Draws `docs/recovery-timeline.svg` from the code that the service decides by, and holds the file to it: the picture cannot drift.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use amazon_pay_ipn::model::ids::Region;
use amazon_pay_ipn::model::verdict::{Decline, Refusal, Verdict};
use amazon_pay_ipn::recovery::explain::{End, Explanation, What, explain};
use amazon_pay_ipn::recovery::policy::Policy;
use jiff::Timestamp;

const LEFT: f64 = 290.0;
const PER_DAY: f64 = 21.0;
const DAYS: u32 = 33;
const TOP: f64 = 96.0;
const LANE: f64 = 62.0;

/// A row of the picture: an answer that Amazon gives each time, and a sentence about it.
struct Lane {
    answer: &'static str,
    verdict: Verdict,
    says: &'static str,
}

fn lanes() -> Vec<Lane> {
    let silence = Verdict::Ambiguous { why: "no answer".to_owned(), retry_after: None };
    let declined = Verdict::Declined;
    vec![
        Lane {
            answer: "SoftDeclined, TransactionTimedOut",
            verdict: declined(Decline::SoftDeclined),
            says: "a new attempt after 1, 3, 7 and 14 days; then given up",
        },
        Lane {
            answer: "ProcessingFailure",
            verdict: declined(Decline::ProcessingFailure),
            says: "confirmed under the same key, then a new attempt within minutes to hours",
        },
        Lane {
            answer: "HardDeclined",
            verdict: declined(Decline::HardDeclined),
            says: "the buyer is asked; one attempt at once when the card is updated",
        },
        Lane {
            answer: "PeriodicAmountExceeded",
            verdict: Verdict::Refused(Refusal::MonthlyLimit),
            says: "waits for the 1st; the window stands still meanwhile",
        },
        Lane {
            answer: "AmazonRejected",
            verdict: declined(Decline::AmazonRejected),
            says: "given up at once: a new checkout is needed",
        },
        Lane {
            answer: "no answer, 429, 5xx",
            verdict: silence,
            says: "the same idempotency key again, so that nothing is charged twice",
        },
    ]
}

fn x_of(from: Timestamp, at: Timestamp) -> f64 {
    let days = at.duration_since(from).as_secs_f64() / 86_400.0;
    LEFT + (days * PER_DAY).min(f64::from(DAYS) * PER_DAY)
}

/// What stays until then, and whether it is a wait for somebody.
fn end_of(explanation: &Explanation, last: Timestamp) -> (Timestamp, bool) {
    match explanation.ends.first() {
        Some(End::WaitsForBuyer(until) | End::WaitsForPerson(until) | End::WindowEnds(until)) => (*until, true),
        _ => (last, false),
    }
}

fn draw() -> Result<String, std::fmt::Error> {
    let from: Timestamp = "2026-01-30T10:00:00Z".parse().expect("a time");
    let policy = Policy::for_region(Region::Eu);
    let lanes = lanes();
    let height = TOP + LANE * 6.0 + 50.0;
    let width = LEFT + f64::from(DAYS) * PER_DAY + 30.0;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"13\">"
    )?;
    writeln!(svg, "<title>What happens after each answer of Create Charge, by the built-in policy</title>")?;
    writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
    writeln!(
        svg,
        "<text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\">If Amazon gives the same answer each time</text>"
    )?;
    writeln!(
        svg,
        "<text x=\"16\" y=\"48\" fill=\"#555555\">days after the first attempt, made on 30 January at 10:00 UTC</text>"
    )?;
    for day in [0, 1, 4, 7, 11, 14, 21, 25, 30] {
        let x = LEFT + f64::from(day) * PER_DAY;
        let bottom = height - 40.0;
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#e4e4e4\"/>",
            TOP - 14.0
        )?;
        writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{day}</text>",
            TOP - 20.0
        )?;
    }
    let mut y = TOP + 10.0;
    for Lane { answer, verdict, says } in lanes {
        let explanation = explain(&verdict, from, &policy, None);
        writeln!(svg, "<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{answer}</text>", y + 5.0)?;
        writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#555555\" font-size=\"12\">{says}</text>", y + 30.0)?;
        let last = explanation.steps.last().map_or(from, |step| step.earliest);
        let (end, waits) = end_of(&explanation, last);
        let dash = if waits { " stroke-dasharray=\"4 4\"" } else { "" };
        let (start_x, end_x) = (x_of(from, from), x_of(from, end));
        writeln!(
            svg,
            "<line x1=\"{start_x:.1}\" y1=\"{y:.1}\" x2=\"{end_x:.1}\" y2=\"{y:.1}\" stroke=\"#8a8a8a\" stroke-width=\"2\"{dash}/>"
        )?;
        for step in &explanation.steps {
            if step.earliest > from.checked_add(Duration::from_hours(24 * 33)).expect("a time") {
                break;
            }
            let fill = match step.what {
                What::Attempt(_) | What::NewMonth(_) => "#1f6feb",
                What::Confirmation | What::OldMonth => "#9ec5fe",
                What::Reminder(_) => "#e8a33d",
            };
            writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{fill}\"/>", x_of(from, step.earliest))?;
        }
        if let Some(End::Repeats(_)) = explanation.ends.first() {
            let minutes = policy.repeat_delays.iter().map(Duration::as_secs).map(|seconds| seconds / 60);
            let text: Vec<String> = minutes.map(|minutes| format!("{minutes}")).collect();
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555555\" font-size=\"12\">again after {} min, and so on</text>",
                start_x + 14.0,
                y + 5.0,
                text.join(", ")
            )?;
        } else {
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#c0392b\" font-weight=\"bold\">×</text>",
                end_x + if waits { -4.0 } else { 9.0 },
                y + 5.0
            )?;
        }
        y += LANE;
    }
    let y = height - 16.0;
    writeln!(
        svg,
        "<text x=\"16\" y=\"{y:.1}\" fill=\"#555555\" font-size=\"12\">dark: an attempt under a new number; light: the same number once more; orange: the buyer is asked again; dashed: waits for the buyer; ×: given up. Jitter left out.</text>"
    )?;
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

#[test]
fn the_timeline_in_the_documentation_is_what_the_policy_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let drawn = draw().expect("a picture");
    let kept = fs::read_to_string(root.join("docs/recovery-timeline.svg")).unwrap_or_default();
    if kept != drawn {
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recovery-timeline.svg");
        fs::write(&beside, &drawn).expect("a file in target");
        panic!("docs/recovery-timeline.svg is not what the code does any more: compare and copy {}", beside.display());
    }
}

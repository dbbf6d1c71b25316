//! The goals of the project, each with its number from this run, and the whole run as JSON.

use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use serde_json::{Value, json};

use super::drive::to_f64;
use super::{Found, Row, Sample};

struct Goal {
    what: &'static str,
    wanted: &'static str,
    found: f64,
    met: bool,
}

impl Found {
    fn row(&self, row: Row) -> &Sample {
        &self.rows.iter().find(|(which, _)| *which == row).expect("every row is measured").1
    }

    fn rate(&self, row: Row) -> f64 {
        self.row(row).measured.per_second
    }
}

fn goals(found: &Found) -> Vec<Goal> {
    let at_least = |what, wanted, found: f64, least: f64| Goal { what, wanted, found, met: found >= least };
    let at_most = |what, wanted, found: f64, most: f64| Goal { what, wanted, found, met: found <= most };
    let ours = found.rate(Row::Ours);
    let node = if found.rate(Row::Node) > found.rate(Row::NodeTwo) { Row::Node } else { Row::NodeTwo };
    let processor = |row: Row| found.row(row).measured.server.as_secs_f64();
    let p99 = found.half.p99.as_secs_f64() / found.half_redis.as_secs_f64();
    vec![
        at_least("accepted, of the ceiling", "at least 0.8", ours / found.rate(Row::Prototype), 0.8),
        at_least("accepted, of Express", "at least 6", ours / found.rate(Row::Express), 6.0),
        at_least("accepted, of the fastest Node", "at least 1.5", ours / found.rate(node), 1.5),
        at_most("processor time, of that Node's", "at most 0.6", processor(Row::Ours) / processor(node), 0.6),
        at_most("p99 at half load, of Redis' own", "at most 5", p99, 5.0),
        at_least("another topic refused, of accepted", "at least 3", found.rate(Row::ForeignTopic) / ours, 3.0),
        at_most("resident memory, MB", "at most 40", to_f64(found.row(Row::Ours).memory_kib) / 1024.0, 40.0),
        at_most("ready after the start, ms", "at most 100", found.ready.as_secs_f64() * 1e3, 100.0),
    ]
}

pub fn print(found: &Found) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "at half load ({:.0}/s): p50 {:.2} ms, p99 {:.2} ms; Redis by itself at that rate: p99 {:.2} ms; one RSA verification {:.1} µs\n",
        found.half.per_second,
        ms(found.half.p50),
        ms(found.half.p99),
        ms(found.half_redis),
        found.verify.as_secs_f64() * 1e6
    );
    for goal in goals(found) {
        println!("{} {}: {:.2} ({})", if goal.met { "met   " } else { "MISSED" }, goal.what, goal.found, goal.wanted);
    }
}

pub fn json(found: &Found, rounds: usize) -> String {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let rows: Vec<Value> = found
        .rows
        .iter()
        .map(|(row, Sample { measured, memory_kib })| {
            json!({
                "name": row.name(), "perSecond": measured.per_second.round(), "p50Micros": micros(measured.p50),
                "p99Micros": micros(measured.p99), "p999Micros": micros(measured.p999), "memoryKib": memory_kib,
                "processorMicros": {
                    "server": micros(measured.server), "redis": micros(measured.redis), "load": micros(measured.load),
                },
            })
        })
        .collect();
    let goals: Vec<Value> = goals(found)
        .iter()
        .map(|goal| json!({ "what": goal.what, "wanted": goal.wanted, "found": goal.found, "met": goal.met }))
        .collect();
    let value = json!({
        "at": Clock::system().now(), "rounds": rounds, "rows": rows, "goals": goals,
        "halfLoad": { "perSecond": found.half.per_second, "p99Micros": micros(found.half.p99), "redisP99Micros": micros(found.half_redis) },
        "verificationMicros": micros(found.verify),
    });
    format!("{value:#}\n")
}

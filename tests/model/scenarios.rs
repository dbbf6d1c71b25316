//! The table: with one rule off the model finds what the rule is for, with all rules on the same bounds are exhausted without finding
//! anything. Names in brackets are those of the design's own model, made before the service was built.

use super::amazon::{Kinds, Reading};
use super::explore::{Bounds, Protocol, explore, print, settles, trace};
use super::properties::{
    ACKNOWLEDGED_IS_STORED, ALL, EVIDENCE, FOUND_OUT, HEARD, HONEST, MONOTONE, NO_LOST_WAKE, NOTHING_NEW, NOTICED,
    NOTICED_UNHEARD, Named, ONE_HOLDER, ONE_SUCCESS,
};
use super::rules::Rules;
use super::state::Left;

const SOFT: Kinds = Kinds { declined_objects: false, hard: false, failure: false };
const HARD: Kinds = Kinds { hard: true, ..SOFT };
const OBJECTS: Kinds = Kinds { declined_objects: true, ..SOFT };
const NONE: Left = Left {
    crashes: 0,
    pauses: 0,
    lapses: 0,
    lost_requests: 0,
    lost_replies: 0,
    delays: 0,
    failed_looks: 0,
    declines: 0,
    pendings: 0,
    errors: 0,
    cancels: 0,
    close_wishes: 0,
    buyer_closes: 0,
    deletions: 0,
    updates: 0,
    stops: 0,
    permission_ipns: 0,
    charge_ipns: 0,
    submits: 0,
    failovers: 0,
    losses: 0,
    operators: 0,
    window_ends: 0,
};

const ALL_KINDS: Kinds = Kinds { declined_objects: true, hard: true, failure: true };
const READINGS: [Reading; 3] = [Reading::ReplaysAll, Reading::Reevaluates, Reading::StatusFirst];

struct Scenario {
    name: &'static str,
    rules: Rules,
    reading: Reading,
    workers: usize,
    left: Left,
    kinds: Kinds,
}

fn scenario(name: &'static str, reading: Reading, workers: usize, left: Left) -> Scenario {
    Scenario { name, rules: Rules::ALL, reading, workers, left, kinds: SOFT }
}

impl Scenario {
    fn with(self, kinds: Kinds) -> Self {
        Self { kinds, ..self }
    }

    fn protocol(&self, properties: &[Named]) -> Protocol {
        let Self { reading, workers, left, kinds, .. } = *self;
        Protocol::new(self.rules, Bounds { reading, workers, left, kinds }, properties.to_vec())
    }

    fn row(&self, states: usize, calls: u64, result: &str) {
        let reading = match self.reading {
            Reading::ReplaysAll => "replays all",
            Reading::Reevaluates => "re-evaluates",
            Reading::StatusFirst => "status first",
        };
        let bounds = format!("{:?}", self.left).replace('_', " ");
        let bounds: Vec<_> = bounds
            .trim_start_matches("Left { ")
            .trim_end_matches(" }")
            .split(", ")
            .filter(|one| !one.ends_with(": 0"))
            .map(|one| one.replace(": ", " "))
            .collect();
        let (name, workers) = (self.name, self.workers);
        print(&format!("| {name} | {reading} | {workers} | {} | {states} | {calls} | {result} |\n", bounds.join(", ")));
    }

    /// Every state keeps every property but those that are beyond the scenario's assumptions.
    fn holds_but(&self, beyond: &[Named]) {
        let is_beyond = |named: &Named| beyond.iter().any(|other| other.name == named.name);
        let properties: Vec<_> = ALL.into_iter().filter(|named| !is_beyond(named)).collect();
        self.keeps(&properties);
    }

    fn keeps(&self, properties: &[Named]) {
        let explored = explore(self.protocol(properties));
        if let Some((property, way)) = &explored.broken {
            panic!("{}: broken: {property}\n{}", self.name, trace(way));
        }
        self.row(explored.states, explored.calls, "holds");
    }

    fn holds(&self) {
        self.holds_but(&[]);
    }

    /// With these rules the property is broken, and this is a shortest way there; with all rules the same bounds are exhausted and
    /// nothing is.
    fn needs(self, rules: Rules, property: Named) {
        self.breaks(rules, property);
        self.holds();
    }

    fn breaks(&self, rules: Rules, property: Named) {
        let without = Self { rules, ..*self };
        let explored = explore(without.protocol(&[property]));
        let Some((broken, way)) = explored.broken else {
            panic!("{}: {} holds in {} states", self.name, property.name, explored.states)
        };
        assert_eq!(broken, property.name);
        without.row(explored.states, explored.calls, &format!("**broken** in {} steps: {broken}", way.len()));
        print(&trace(&way));
    }

    /// From every state a settled one can be reached by steps that are no faults. `parks`: waiting for the buyer is settled.
    fn settles(&self, parks: bool) {
        let protocol = self.protocol(&[]);
        let (states, stuck) = settles(&protocol, parks);
        if let Some(way) = stuck {
            panic!("{}: nothing settles after\n{}", self.name, trace(&way));
        }
        self.row(states, protocol.service().calls, "a settled state can be reached from every state");
    }
}

#[test]
fn a_decline_of_one_copy_says_nothing_about_another_copy() {
    let left = Left { declines: 1, delays: 1, ..NONE };
    let rules = Rules { confirm_under_same_key: false, ..Rules::ALL };
    scenario("b1, R1 (confirm under the same key)", Reading::Reevaluates, 1, left).needs(rules, ONE_SUCCESS);
    let left = Left { declines: 1, lapses: 1, pauses: 1, ..NONE };
    scenario("b6, R1 without any delay", Reading::Reevaluates, 2, left).needs(rules, ONE_SUCCESS);
}

#[test]
fn a_repeat_that_is_not_marked_taints_nothing() {
    let left = Left { declines: 1, lapses: 1, ..NONE };
    let rules = Rules { mark_repeats: false, ..Rules::ALL };
    scenario("r2, R1 (mark repeats)", Reading::Reevaluates, 2, left).needs(rules, ONE_SUCCESS);
}

#[test]
fn a_request_that_is_signed_after_its_mark_may_go_out_long_after() {
    let left = Left { declines: 1, pauses: 1, ..NONE };
    let rules = Rules { sign_first: false, ..Rules::ALL };
    scenario("r3, R2 (sign first)", Reading::Reevaluates, 2, left).needs(rules, ONE_SUCCESS);
}

#[test]
fn where_amazon_takes_old_requests_a_second_charge_is_possible_and_is_noticed() {
    let left = Left { declines: 2, delays: 1, charge_ipns: 2, lost_replies: 1, ..NONE };
    let assumed = Rules { old_dates_are_refused: false, ..Rules::ALL };
    let beyond = scenario("r5, R3 (X outlasts an old request)", Reading::Reevaluates, 1, left);
    beyond.breaks(assumed, ONE_SUCCESS);
    Scenario { rules: assumed, ..beyond }.holds_but(&[ONE_SUCCESS]);
    let rules = Rules { every_charge_is_read: false, ..assumed };
    scenario("u3, R12 (read every charge)", Reading::Reevaluates, 1, left).breaks(rules, NOTICED);
    // No rule helps here: of two successes one is known, and only its buyer knows of the other.
    let left = Left { charge_ipns: 1, ..left };
    scenario("u4, a notification is lost", Reading::Reevaluates, 1, left).breaks(assumed, NOTICED_UNHEARD);
}

#[test]
fn a_refusal_may_come_before_the_key_is_looked_up() {
    let left = Left { lost_replies: 1, deletions: 1, updates: 1, ..NONE };
    let rules = Rules { refusals_settle_first_sends_only: false, ..Rules::ALL };
    scenario("p2, R4 (refusals)", Reading::StatusFirst, 1, left).needs(rules, ONE_SUCCESS);
    scenario("p2, R4 (refusals)", Reading::ReplaysAll, 1, Left { crashes: 1, ..left }).holds();
}

#[test]
fn a_declined_charge_that_a_notification_names_may_be_of_an_earlier_number_or_copy() {
    let left = Left { declines: 1, lost_replies: 1, charge_ipns: 1, ..NONE };
    let compared = Rules { found_declines_resolve_nothing: false, ..Rules::ALL };
    let rules = Rules { found_declines_are_compared: false, ..compared };
    scenario("m1, R5 (found declines)", Reading::ReplaysAll, 1, left).with(OBJECTS).needs(rules, ONE_SUCCESS);
    let left = Left { delays: 1, ..left };
    scenario("m3, R5 with the number", Reading::Reevaluates, 1, left).with(OBJECTS).needs(compared, ONE_SUCCESS);
}

#[test]
fn after_a_loss_nobody_knows_which_numbers_were_used() {
    let left = Left { declines: 1, losses: 1, ..NONE };
    let rules = Rules { declare_after_loss: false, ..Rules::ALL };
    scenario("h2, R6 (declare after a loss)", Reading::Reevaluates, 1, left).needs(rules, ONE_SUCCESS);
    let left = Left { operators: 1, delays: 1, losses: 1, ..NONE };
    let rules = Rules { operator_waits_for_x: false, ..Rules::ALL };
    scenario("d5, R18 (the operator waits)", Reading::Reevaluates, 1, left).needs(rules, ONE_SUCCESS);
}

#[test]
fn a_server_that_rolled_back_gives_out_the_same_fence_twice() {
    let left = Left { failovers: 1, lapses: 1, ..NONE };
    let rules = Rules { unique_token: false, ..Rules::ALL };
    scenario("e1, R7 (unique token)", Reading::Reevaluates, 2, left).needs(rules, ONE_HOLDER);
}

#[test]
fn a_failover_may_lose_a_mark_or_an_answer_that_was_not_on_the_replica() {
    let left = Left { failovers: 1, delays: 1, declines: 1, ..NONE };
    let asynchronous = Rules { durable_marks: false, ..Rules::ALL };
    let neither = Rules { taint_after_failover: false, ..asynchronous };
    scenario("e4, R7 (durable marks)", Reading::Reevaluates, 1, left).needs(neither, ONE_SUCCESS);
    // What an asynchronous failover can still lose: the taint helps against a lost mark, not against a lost number.
    scenario("e5, R7 with the taint alone", Reading::Reevaluates, 1, left).breaks(asynchronous, ONE_SUCCESS);
    let rules = Rules { durable_answers: false, ..Rules::ALL };
    let left = Left { failovers: 1, cancels: 1, permission_ipns: 1, ..NONE };
    scenario("e7, R7 (durable answers)", Reading::Reevaluates, 1, left).breaks(rules, ACKNOWLEDGED_IS_STORED);
    scenario("e7, R7 (durable answers)", Reading::Reevaluates, 1, left).needs(rules, NOTHING_NEW);
}

#[test]
fn only_the_mark_sees_what_came_after_the_decision() {
    let rules = Rules { mark_checks: false, ..Rules::ALL };
    for (name, left) in [
        ("c1, R8 (the mark looks): cancel", Left { cancels: 1, ..NONE }),
        ("c1, R8 (the mark looks): stop", Left { stops: 1, ..NONE }),
        ("c1, R8 (the mark looks): close", Left { close_wishes: 1, ..NONE }),
    ] {
        scenario(name, Reading::Reevaluates, 2, left).needs(rules, NOTHING_NEW);
    }
}

#[test]
fn a_cancellation_is_final_only_while_nothing_is_unknown() {
    let left = Left { cancels: 1, lost_replies: 1, ..NONE };
    let rules = Rules { cancel_waits_for_the_unknown: false, ..Rules::ALL };
    scenario("d1, R9 (cancel)", Reading::ReplaysAll, 1, left).needs(rules, HONEST);
}

#[test]
fn a_number_of_a_canceled_charge_that_is_not_asked_again_may_be_a_charge_that_nobody_knows() {
    let left = Left { cancels: 1, lost_replies: 1, ..NONE };
    let rules = Rules { canceled_numbers_are_asked_again: false, ..Rules::ALL };
    let unheard = scenario("k3, R9 (ask again after a cancellation)", Reading::ReplaysAll, 1, left);
    unheard.breaks(rules, FOUND_OUT);
    unheard.keeps(&[&ALL[..], &[FOUND_OUT]].concat());
}

#[test]
fn whoever_wants_no_more_charges_has_the_permission_closed_before_anything_is_asked_again() {
    let left = Left { close_wishes: 1, lost_requests: 1, ..NONE };
    let rules = Rules { closing_comes_first: false, ..Rules::ALL };
    scenario("k1, R9 (close first)", Reading::ReplaysAll, 1, left).needs(rules, NOTHING_NEW);
    scenario("k1, R9 (close first)", Reading::Reevaluates, 1, left).needs(rules, NOTHING_NEW);
}

#[test]
fn an_end_with_an_unknown_number_says_so() {
    let left = Left { window_ends: 1, lost_replies: 1, ..NONE };
    let rules = Rules { unverified_ends: false, ..Rules::ALL };
    scenario("d4, R10 (unverified)", Reading::ReplaysAll, 1, left).needs(rules, HONEST);
    let left = Left { buyer_closes: 1, lost_replies: 1, charge_ipns: 1, ..NONE };
    scenario("d4, R10 (unverified), closed", Reading::StatusFirst, 1, left).needs(rules, HONEST);
}

#[test]
fn a_commit_opens_nothing_that_ended_meanwhile_and_loses_no_success() {
    let left = Left { cancels: 1, deletions: 1, ..NONE };
    let rules = Rules { monotone_commit: false, ..Rules::ALL };
    scenario("t1, R11 (monotone commit)", Reading::ReplaysAll, 1, left).needs(rules, MONOTONE);
    let left = Left { lapses: 1, window_ends: 1, ..NONE };
    let rules = Rules { late_success_is_noted: false, ..Rules::ALL };
    scenario("t4, R11 (late success)", Reading::Reevaluates, 2, left).needs(rules, HEARD);
}

#[test]
fn a_commit_without_its_token_writes_an_old_number_over_a_new_one() {
    let left = Left { lapses: 2, declines: 1, lost_replies: 1, ..NONE };
    let rules = Rules { fenced_commit: false, ..Rules::ALL };
    scenario("t2, the commit's token", Reading::Reevaluates, 2, left).needs(rules, ONE_SUCCESS);
}

#[test]
fn a_notification_does_not_shorten_a_lease() {
    let left = Left { permission_ipns: 1, declines: 1, ..NONE };
    let shortened = Rules { lease_record_decides: false, ..Rules::ALL };
    let rules = Rules { confirm_under_same_key: false, ..shortened };
    scenario("a4, R14 (the lease record)", Reading::Reevaluates, 2, left).needs(rules, ONE_SUCCESS);
    // With R1 to R3 a shortened lease costs calls, not money.
    Scenario { rules: shortened, ..scenario("a6, R14 off, the rest on", Reading::Reevaluates, 2, left) }.holds();
}

#[test]
fn a_commit_that_ignores_newer_wakes_loses_them() {
    let rules = Rules { commit_compares_wakes: false, ..Rules::ALL };
    let left = Left { permission_ipns: 1, ..NONE };
    scenario("j1, R13 (wake numbers)", Reading::Reevaluates, 1, left).needs(rules, NO_LOST_WAKE);
}

#[test]
fn the_echo_of_our_own_decline_is_no_evidence() {
    let left = Left { declines: 1, permission_ipns: 1, ..NONE };
    let rules = Rules { strict_evidence: false, ..Rules::ALL };
    scenario("i1, R15 (evidence)", Reading::Reevaluates, 1, left).with(HARD).needs(rules, EVIDENCE);
}

/// What can go wrong with a send and its worker.
const FAULTS: Left = Left { crashes: 1, lapses: 1, lost_replies: 1, delays: 1, declines: 1, ..NONE };
/// What people do while numbers are unknown.
const PEOPLE: Left =
    Left { cancels: 1, close_wishes: 1, buyer_closes: 1, stops: 1, lost_replies: 1, window_ends: 1, ..NONE };
/// Cards and notifications.
const CARDS: Left =
    Left { declines: 1, deletions: 1, updates: 1, permission_ipns: 1, failed_looks: 1, lost_replies: 1, ..NONE };
/// Charges that Amazon decides about later.
const PENDING: Left = Left { pendings: 1, declines: 1, charge_ipns: 1, cancels: 1, lost_replies: 1, ..NONE };
/// Two intents of one permission.
const TWO: Left = Left { submits: 1, declines: 1, lost_replies: 1, pauses: 1, ..NONE };
/// Servers.
const FAILOVER: Left = Left { failovers: 1, delays: 1, declines: 1, cancels: 1, permission_ipns: 1, ..NONE };
const LOSS: Left = Left { losses: 1, operators: 1, delays: 1, lost_replies: 1, pauses: 1, ..NONE };
/// 5xx, declared and not.
const FAILURES: Left = Left { errors: 1, declines: 2, delays: 1, ..NONE };

#[test]
fn all_rules_hold_under_faults_of_sends_and_workers() {
    READINGS.iter().for_each(|reading| scenario("faults", *reading, 2, FAULTS).holds());
}

#[test]
fn all_rules_hold_whatever_people_do() {
    READINGS.iter().for_each(|reading| scenario("people", *reading, 2, PEOPLE).holds());
    READINGS.iter().for_each(|reading| scenario("cards", *reading, 2, CARDS).with(HARD).holds());
}

#[test]
fn all_rules_hold_for_pending_charges_and_several_intents() {
    READINGS.iter().for_each(|reading| scenario("pending", *reading, 2, PENDING).with(OBJECTS).holds());
    READINGS.iter().for_each(|reading| scenario("two intents", *reading, 2, TWO).holds());
}

#[test]
fn all_rules_hold_over_failures_failovers_and_losses() {
    READINGS.iter().for_each(|reading| scenario("5xx", *reading, 1, FAILURES).with(ALL_KINDS).holds());
    READINGS.iter().for_each(|reading| scenario("failover", *reading, 1, FAILOVER).holds());
    READINGS.iter().for_each(|reading| scenario("loss", *reading, 1, LOSS).holds());
}

#[test]
fn all_rules_hold_with_three_workers() {
    let left = Left { lapses: 2, declines: 1, lost_replies: 1, ..NONE };
    READINGS.iter().for_each(|reading| scenario("three workers", *reading, 3, left).holds());
}

#[test]
fn a_settled_state_can_be_reached_from_every_state() {
    for reading in READINGS {
        scenario("faults", reading, 1, Left { pauses: 1, ..FAULTS }).settles(true);
        scenario("people", reading, 1, PEOPLE).settles(true);
        scenario("cards", reading, 1, Left { window_ends: 1, ..CARDS }).with(HARD).settles(true);
        scenario("pending", reading, 1, PENDING).with(OBJECTS).settles(true);
        scenario("two intents", reading, 1, TWO).settles(true);
        scenario("loss", reading, 1, LOSS).settles(true);
        // Nobody mends the card: the end of the window is the end of the wait.
        let left = Left { declines: 1, lost_replies: 1, window_ends: 1, ..NONE };
        scenario("the window ends", reading, 2, left).with(HARD).settles(false);
    }
}

/// `make model`: larger bounds, three workers, all readings.
#[test]
#[ignore = "minutes, in release: make model"]
fn larger_faults_of_sends_and_workers() {
    let left = Left { pauses: 1, lost_requests: 1, ..FAULTS };
    READINGS.iter().for_each(|reading| scenario("faults", *reading, 3, left).holds());
    let left = Left { declines: 2, errors: 1, ..FAULTS };
    READINGS
        .iter()
        .for_each(|reading| scenario("faults and kinds of declines", *reading, 2, left).with(ALL_KINDS).holds());
}

#[test]
#[ignore = "minutes, in release: make model"]
fn larger_people_and_cards() {
    let left = Left { crashes: 1, delays: 1, ..PEOPLE };
    READINGS.iter().for_each(|reading| scenario("people", *reading, 3, left).holds());
    let left = Left { delays: 1, window_ends: 1, ..CARDS };
    READINGS.iter().for_each(|reading| scenario("cards", *reading, 2, left).with(HARD).holds());
}

#[test]
#[ignore = "minutes, in release: make model"]
fn larger_pending_charges_and_several_intents() {
    let left = Left { lapses: 1, delays: 1, ..PENDING };
    READINGS.iter().for_each(|reading| scenario("pending", *reading, 2, left).with(OBJECTS).holds());
    let left = Left { crashes: 1, lapses: 1, delays: 1, ..TWO };
    READINGS.iter().for_each(|reading| scenario("two intents", *reading, 3, left).holds());
}

#[test]
#[ignore = "minutes, in release: make model"]
fn larger_failovers_and_losses() {
    let left = Left { lapses: 1, lost_replies: 1, ..FAILOVER };
    READINGS.iter().for_each(|reading| scenario("failover", *reading, 2, left).holds());
    let left = Left { declines: 1, cancels: 1, ..LOSS };
    READINGS.iter().for_each(|reading| scenario("loss", *reading, 2, left).holds());
}

#[test]
#[ignore = "minutes, in release: make model"]
fn larger_graphs_settle() {
    for reading in READINGS {
        scenario("faults", reading, 2, Left { pauses: 1, ..FAULTS }).settles(true);
        scenario("people", reading, 2, Left { delays: 1, ..PEOPLE }).settles(true);
        scenario("cards", reading, 2, Left { window_ends: 1, ..CARDS }).with(HARD).settles(true);
        scenario("pending", reading, 2, Left { delays: 1, ..PENDING }).with(OBJECTS).settles(true);
        scenario("two intents", reading, 2, TWO).settles(true);
        scenario("failover", reading, 2, FAILOVER).settles(true);
    }
}

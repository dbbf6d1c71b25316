//! The service's own decisions, called on real values: plan, decide, classify, settle, decide again, due, and an operator's words.
//!
//! A rule that lives in these functions cannot be switched off there; it is switched off here, around the call.

use std::collections::HashMap;

use amazon_pay_ipn::amazon_pay::classify::{Answer as Reply, NoReply, classify};
use amazon_pay_ipn::model::charge::{ChargeLook, ChargeView};
use amazon_pay_ipn::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Stage, Why};
use amazon_pay_ipn::model::closing::CloseWish;
use amazon_pay_ipn::model::event::Event;
use amazon_pay_ipn::model::hint::{Hint, HintNote, ObjectType};
use amazon_pay_ipn::model::ids::{ChargeTag, Environment, InvalidId};
use amazon_pay_ipn::model::permission::{
    InstrumentDigest, Look, PermissionKind, PermissionRecord, PermissionState, PermissionView,
};
use amazon_pay_ipn::model::verdict::{Decline, Verdict};
use amazon_pay_ipn::recovery::case::{Act, Case, Decision, Findings, HintFate};
use amazon_pay_ipn::recovery::closing::{self, Tried};
use amazon_pay_ipn::recovery::decide::{decide, decide_again};
use amazon_pay_ipn::recovery::draft::Draft;
use amazon_pay_ipn::recovery::due::due;
use amazon_pay_ipn::recovery::handover::{Asked, first_plan};
use amazon_pay_ipn::recovery::plan::plan;
use amazon_pay_ipn::recovery::policies::Policies;
use amazon_pay_ipn::recovery::settle::settle;
use amazon_pay_ipn::recovery::wishes::{give_up, new_number};
use serde_json::{Value, json};

use super::amazon::{Answer, ChargeCode, DeclineCode, PermissionCode};
use super::redis::MarkFacts;
use super::rules::Rules;
use super::state::{ActCode, Dec, DraftState, End, Fate, HintState, Redis, SLOTS, Snapshot};
use super::values::{
    ChargeRef, Class, FAR, Memo, NEVER, Pool, aged_intent, aged_record, at, class, finite_intent, finite_record,
    intent_id, now, older, permission, policies, request, slot_of,
};

const OURS: Environment = Environment::Sandbox;
/// `duplicate_charge` was told.
pub const DUPLICATE: u8 = 1;
/// `charge_after_end` was told.
pub const AFTER_END: u8 = 2;

/// What a look at the permission shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookCode {
    NotAsked,
    Failed,
    Seen { permission: PermissionCode, card: u8, busy: bool },
}

/// What was to be looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Looked {
    pub look: LookCode,
    pub charges: Vec<(ChargeRef, ChargeCode)>,
    /// Ended intents that a charge names.
    pub joined: [u32; SLOTS],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub permission: bool,
    pub charges: Vec<ChargeRef>,
}

/// What the mark of a send depends on: the stored intent, the decided one, the one that the claim read, the card that the look showed,
/// and the facts about the permission.
pub type MarkKey = (u32, u32, u32, u8, MarkFacts);

/// What it comes to, as numbers: the intent as stored, and as the worker goes on with it.
#[derive(Debug, Clone, Copy)]
pub enum MarkedCode {
    Yes { stored: u32, decided: u32, tainted: bool },
    Stopped,
    Refused(&'static str),
    LostLease,
}

/// Values and remembered calls of one exploration.
pub struct Service {
    pub rules: Rules,
    policies: [Policies; 2],
    pub intents: Pool<ChargeIntent>,
    pub records: Pool<PermissionRecord>,
    pub hints: Pool<Vec<HintState>>,
    pub decisions: Pool<Dec>,
    pub replicas: Pool<Redis>,
    planned: Pool<Planned>,
    plans: Memo<Snapshot>,
    decided: HashMap<(Snapshot, Looked, bool), u32>,
    settled: HashMap<(Snapshot, u32, u8, Answer, LookCode, bool), u32>,
    again: HashMap<(Snapshot, u32, LookCode, bool), u32>,
    aged_intents: Memo<u32>,
    aged_records: Memo<u32>,
    aged_hints: Memo<u32>,
    aged_decisions: Memo<u32>,
    dues: HashMap<(u32, bool), Class>,
    pub reads: Memo<u32>,
    pub read_hints: Memo<(u32, u8)>,
    pub added_hints: Memo<(u32, Option<ChargeRef>)>,
    pub overwrites: Memo<(u32, u32)>,
    pub canceled: HashMap<u32, (u32, bool, bool)>,
    pub marks: HashMap<MarkKey, MarkedCode>,
    pub replaced: Memo<(u32, u8, u32)>,
    pub refused: Memo<u32>,
    /// Calls of the service's own functions that were not remembered.
    pub calls: u64,
}

pub fn digest(card: u8) -> InstrumentDigest {
    let merchant: Result<_, InvalidId> = "A1".parse();
    InstrumentDigest::of(&merchant.unwrap(), &permission(), &format!("card {card}"))
}

fn charge_body(charge: ChargeRef, code: ChargeCode) -> Value {
    let (state, reason) = match code {
        ChargeCode::None => unreachable!("no such charge"),
        ChargeCode::AuthorizationInitiated => ("AuthorizationInitiated", None),
        ChargeCode::CaptureInitiated => ("CaptureInitiated", None),
        ChargeCode::Captured => ("Captured", None),
        ChargeCode::Declined => ("Declined", Some("SoftDeclined")),
    };
    let tag = ChargeTag { intent: intent_id(charge.slot), number: u32::from(charge.number) };
    json!({
        "chargeId": charge.id(), "chargePermissionId": permission(), "releaseEnvironment": "Sandbox",
        "statusDetails": { "state": state, "reasonCode": reason },
        "merchantMetadata": { "customInformation": tag.to_string() },
    })
}

/// The verdict, by the service's own reading of the bytes.
fn verdict(answer: Answer) -> Verdict {
    let read = |status: u16, body: Value| {
        let body = body.to_string();
        classify(Reply::Reply { status, retry_after: None, date: None, body: Some(body.as_bytes()) })
    };
    match answer {
        Answer::Charge(charge, code) => read(201, charge_body(charge, code)),
        Answer::Declined(DeclineCode::Soft) => read(422, json!({ "reasonCode": "SoftDeclined" })),
        Answer::Declined(DeclineCode::Hard) => read(422, json!({ "reasonCode": "HardDeclined" })),
        Answer::Declined(DeclineCode::Failure) => read(500, json!({ "reasonCode": "ProcessingFailure" })),
        Answer::PermissionStatus => read(422, json!({ "reasonCode": "InvalidChargePermissionStatus" })),
        Answer::Unavailable => read(503, json!({ "reasonCode": "ServiceUnavailable" })),
        Answer::Nothing => classify(Reply::Nothing(NoReply::TimedOut)),
    }
}

fn charge_view(charge: ChargeRef, code: ChargeCode) -> ChargeView {
    match verdict(Answer::Charge(charge, code)) {
        Verdict::Charge(view) => *view,
        other => unreachable!("{other:?}"),
    }
}

fn look_of(look: LookCode) -> Look {
    let (state, reasons, card) = match look {
        LookCode::NotAsked => return Look::NotAsked,
        LookCode::Failed => return Look::Failed,
        LookCode::Seen { permission: PermissionCode::Closed, card, .. } => {
            (PermissionState::Closed, vec!["BuyerCanceled".to_owned()], card)
        }
        LookCode::Seen { permission: PermissionCode::NonChargeable, card, .. } => {
            (PermissionState::NonChargeable, vec!["PaymentMethodDeleted".to_owned()], card)
        }
        LookCode::Seen { permission: PermissionCode::Chargeable, card, busy: true } => {
            (PermissionState::NonChargeable, vec!["ChargeInProgress".to_owned()], card)
        }
        LookCode::Seen { card, .. } => (PermissionState::Chargeable, Vec::new(), card),
    };
    Look::Seen(PermissionView {
        id: permission(),
        kind: Some(PermissionKind::Recurring),
        state,
        reasons,
        release_environment: Some(OURS),
        amount_limit: None,
        amount_balance: None,
        instrument: Some(digest(card)),
    })
}

fn terminal_end(event: &Event) -> Option<End> {
    let kind = event.kind.trim_start_matches("amazonpay.").trim_end_matches(".v1");
    let data: Value = serde_json::from_str(&event.data).unwrap();
    let unverified = data["outcome"] == "unverified";
    match (kind, unverified) {
        ("charge.captured", _) => Some(End::Captured),
        ("charge.canceled", false) => Some(End::Canceled),
        ("charge.canceled", true) => Some(End::CanceledUnverified),
        ("charge.abandoned", false) => Some(End::Abandoned),
        ("charge.abandoned", true) => Some(End::AbandonedUnverified),
        _ => None,
    }
}

fn alerts_of(events: &[Event]) -> u8 {
    let mut alerts = 0;
    for event in events {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        match data["kind"].as_str() {
            Some("duplicate_charge") => alerts |= DUPLICATE,
            Some("charge_after_end") => alerts |= AFTER_END,
            _ => {}
        }
    }
    alerts
}

/// The plan of an intent that was submitted now.
pub fn submitted(slot: u8, last_number: Option<u32>) -> ChargeIntent {
    let (id, request) = (intent_id(slot), request());
    let asked = Asked { id: &id, request: &request, policy: None, not_before: None, last_number, declined: None };
    first_plan(&asked, &policies(false), now()).unwrap().intent
}

impl Service {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            policies: [policies(false), policies(true)],
            intents: Pool::new(),
            records: Pool::new(),
            hints: Pool::new(),
            decisions: Pool::new(),
            replicas: Pool::new(),
            planned: Pool::new(),
            plans: Memo::new(),
            decided: HashMap::new(),
            settled: HashMap::new(),
            again: HashMap::new(),
            aged_intents: Memo::new(),
            aged_records: Memo::new(),
            aged_hints: Memo::new(),
            aged_decisions: Memo::new(),
            dues: HashMap::new(),
            reads: Memo::new(),
            read_hints: Memo::new(),
            added_hints: Memo::new(),
            overwrites: Memo::new(),
            canceled: HashMap::new(),
            marks: HashMap::new(),
            replaced: Memo::new(),
            refused: Memo::new(),
            calls: 0,
        }
    }

    pub fn intent(&self, number: u32) -> &ChargeIntent {
        self.intents.get(number)
    }

    pub fn put_intent(&mut self, intent: &ChargeIntent) -> u32 {
        self.intents.put(finite_intent(intent))
    }

    fn policies(&self, over: bool) -> &Policies {
        &self.policies[usize::from(over)]
    }

    fn case(&self, read: &Snapshot, joined: [u32; SLOTS]) -> Case {
        let open = read.intents.iter().chain(&joined).filter(|intent| **intent != 0);
        Case {
            permission: permission(),
            closed: read.closed,
            record: self.records.get(read.record).clone(),
            hints: self.hints.get(read.hints).iter().map(hint_of).collect(),
            intents: open.map(|intent| self.intent(*intent).clone()).collect(),
            close: (read.close != NEVER).then(|| CloseWish {
                asked_at: at(read.close),
                reason: "moved".to_owned(),
                cancel_pending: false,
            }),
            look_asked: false,
        }
    }

    /// What to look at.
    pub fn plan(&mut self, read: &Snapshot) -> Planned {
        if let Some(known) = self.plans.get(read) {
            return self.planned.get(known).clone();
        }
        self.calls += 1;
        let planned = plan(&self.case(read, [0; SLOTS]), now());
        assert!(planned.refunds.is_empty() && planned.disputes.is_empty());
        let mut charges: Vec<ChargeRef> = planned.charges.iter().map(ChargeRef::of).collect();
        if !self.rules.every_charge_is_read {
            charges.truncate(1);
        }
        let planned = self.planned.put(Planned { permission: planned.permission, charges });
        self.plans.put(*read, planned);
        self.planned.get(planned).clone()
    }

    /// What to do.
    pub fn decide(&mut self, read: &Snapshot, looked: &Looked, over: bool) -> u32 {
        let key = (*read, looked.clone(), over);
        if let Some(known) = self.decided.get(&key) {
            return *known;
        }
        self.calls += 1;
        let mut case = self.case(read, looked.joined);
        if !self.rules.strict_evidence {
            // An echo of our own decline looks like news.
            for hint in case.hints.iter_mut().filter(|hint| hint.object_type == ObjectType::ChargePermission) {
                hint.note.published_at = at(FAR);
            }
        }
        if !self.rules.closing_comes_first && case.intents.iter().any(ChargeIntent::next_send_repeats) {
            case.close = None;
        }
        let charges: Vec<_> = looked.charges.iter().map(|(charge, code)| charge_view(*charge, *code)).collect();
        if !self.rules.found_declines_resolve_nothing {
            let policy = self.policies(over).default_policy().clone();
            for intent in &mut case.intents {
                believe_found_declines(intent, &charges, self.rules.found_declines_are_compared, &policy);
            }
        }
        let charges = charges.into_iter().map(|view| (view.id.clone(), ChargeLook::Seen(view))).collect();
        let findings = Findings { look: look_of(looked.look), charges, may_act: true };
        let mut decision = decide(&case, &findings, now(), self.policies(over), OURS);
        if !self.rules.every_charge_is_read {
            decision.hints.iter_mut().for_each(|fate| *fate = HintFate::Done);
        }
        if let Act::Send(index) = decision.act
            && !self.rules.canceled_numbers_are_asked_again
            && decision.drafts[index].is_unknown()
            && decision.drafts[index].intent.cancel_requested_at.is_some()
        {
            decision.drafts[index].end_unverified(now(), "canceled");
            decision.act = Act::Nothing;
        }
        let card = match looked.look {
            LookCode::Seen { permission: PermissionCode::Chargeable, card, busy: false } => card,
            _ => 0,
        };
        let decision = self.put(decision, &[], card, 0);
        self.decided.insert(key, decision);
        decision
    }

    /// The answer to the send of a draft, and the look that follows a resolved number.
    pub fn settle(
        &mut self,
        read: &Snapshot,
        decision: u32,
        index: u8,
        answer: Answer,
        look: LookCode,
        over: bool,
    ) -> u32 {
        let key = (*read, decision, index, answer, look, over);
        if let Some(known) = self.settled.get(&key) {
            return *known;
        }
        self.calls += 1;
        let before = self.decisions.get(decision).clone();
        let mut decided = self.rebuild(&before);
        let policy = self.policies(over).default_policy().clone();
        let draft = &mut decided.drafts[index as usize];
        let verdict = verdict(answer);
        if !self.rules.confirm_under_same_key {
            draft.intent.number.tainted = false;
        }
        let tainted = draft.intent.number.tainted;
        if !self.rules.refusals_settle_first_sends_only && matches!(verdict, Verdict::Refused(_)) {
            (draft.intent.number.sends, draft.intent.number.tainted) = (1, false);
        }
        settle(draft, &verdict, now(), &policy);
        if draft.intent.number.status == NumberStatus::Unknown {
            draft.intent.number.tainted = tainted;
        }
        if draft.intent.number.status == NumberStatus::Fresh {
            let look = look_of(look);
            if look.view().is_none() {
                draft.intent.progress.look_at = Some(now());
            }
            let case = self.case(read, [0; SLOTS]);
            decided = decide_again(&case, decided, look, now(), self.policies(over), OURS);
        }
        if let Answer::Charge(charge, code @ (ChargeCode::Captured | ChargeCode::Declined)) = answer {
            // As the reconciler: the notification of our own charge then costs no call.
            decided.record.remember_charge(charge.id(), charge_view(charge, code).state.as_str());
        }
        let settled = self.put(decided, &before.drafts, before.chargeable_card, before.alerts);
        self.settled.insert(key, settled);
        settled
    }

    /// The permission was asked to close; `look` is the look after it.
    pub fn closed(&mut self, read: &Snapshot, decision: u32, look: LookCode, over: bool) -> u32 {
        let key = (*read, decision, look, over);
        if let Some(known) = self.again.get(&key) {
            return *known;
        }
        self.calls += 1;
        let before = self.decisions.get(decision).clone();
        let mut decided = self.rebuild(&before);
        let case = self.case(read, [0; SLOTS]);
        let not_before = decided.not_before;
        closing::tried(&mut decided.record, &case, &Tried::MayHaveClosed, now(), &mut decided.events);
        let mut after = decide_again(&case, decided, look_of(look), now(), self.policies(over), OURS);
        after.not_before = after.not_before.or(not_before);
        let closed = self.put(after, &before.drafts, before.chargeable_card, before.alerts);
        self.again.insert(key, closed);
        closed
    }

    /// A decision as it was, without the events that are told already.
    fn rebuild(&self, dec: &Dec) -> Decision {
        Decision {
            drafts: dec.drafts.iter().map(|draft| Draft::new(self.intent(draft.intent).clone())).collect(),
            record: self.records.get(dec.record).clone(),
            closed: dec.closed,
            events: Vec::new(),
            hints: dec.hints.iter().map(fate_of).collect(),
            act: Act::Nothing,
            not_before: (dec.not_before != NEVER).then(|| at(dec.not_before)),
            held_back: false,
        }
    }

    fn put(&mut self, decision: Decision, before: &[DraftState], chargeable_card: u8, alerts: u8) -> u32 {
        let mut alerts = alerts | alerts_of(&decision.events);
        let act = match &decision.act {
            Act::Nothing => ActCode::Nothing,
            Act::Send(index) => ActCode::Send(*index as u8),
            Act::CancelCharge(index, charge) => ActCode::CancelCharge(*index as u8, ChargeRef::of(charge)),
            Act::ClosePermission => ActCode::Close,
            Act::Capture(_) => unreachable!("captures are not modelled"),
        };
        let mut drafts = Vec::new();
        for (index, draft) in decision.drafts.into_iter().enumerate() {
            alerts |= alerts_of(&draft.alerts);
            let mut intent = draft.intent;
            let slot = slot_of(&intent.id);
            let was = before.get(index);
            let mut ends: Vec<End> = was.map(|was| was.ends.clone()).unwrap_or_default();
            let known = ends.len();
            ends.extend(draft.events.iter().filter_map(terminal_end));
            if !self.rules.unverified_ends {
                ends[known..].iter_mut().for_each(|end| *end = certain(*end));
                if let Stage::Canceled { outcome, .. } | Stage::Abandoned { outcome, .. } = &mut intent.progress.stage {
                    *outcome = Outcome::Verified;
                }
            }
            let told = !draft.events.is_empty() || was.is_some_and(|was| was.told);
            drafts.push(DraftState { slot, intent: self.put_intent(&intent), told, ends });
        }
        let record = self.records.put(finite_record(&decision.record));
        let hints = decision.hints.iter().map(fate_code).collect();
        let not_before = decision.not_before.map_or(NEVER, class);
        let closed = decision.closed;
        self.decisions.put(Dec { drafts, record, closed, hints, act, not_before, alerts, chargeable_card })
    }

    /// The decision with another intent in a draft.
    pub fn replace(&mut self, decision: u32, draft: u8, intent: u32) -> u32 {
        let key = (decision, draft, intent);
        if let Some(known) = self.replaced.get(&key) {
            return known;
        }
        let mut dec = self.decisions.get(decision).clone();
        dec.drafts[draft as usize].intent = intent;
        let decision = self.decisions.put(dec);
        self.replaced.put(key, decision)
    }

    /// A repeat that nobody marks: it goes out as one more send.
    pub fn unmarked(&mut self, intent: u32) -> u32 {
        let mut intent = self.intent(intent).clone();
        intent.number.sends += 1;
        self.put_intent(&intent)
    }

    /// The decision after its send was refused at the mark.
    pub fn refuse(&mut self, decision: u32) -> u32 {
        if let Some(known) = self.refused.get(&decision) {
            return known;
        }
        let dec = Dec { not_before: 0, ..self.decisions.get(decision).clone() };
        let refused = self.decisions.put(dec);
        self.refused.put(decision, refused)
    }

    /// When the intent needs attention next.
    pub fn due(&mut self, intent: u32, over: bool) -> Class {
        if let Some(known) = self.dues.get(&(intent, over)) {
            return *known;
        }
        let policies = self.policies(over);
        let due = due(self.intent(intent), policies.default_policy()).map_or(NEVER, |at| class(at).max(0));
        self.dues.insert((intent, over), due);
        due
    }

    /// The operator orders a new number of a held intent; `None` if that is refused.
    pub fn operators_number(&mut self, intent: u32, over: bool) -> Option<u32> {
        let mut intent = self.intent(intent).clone();
        if !self.rules.operator_waits_for_x {
            intent.number.last_mark = None;
        }
        let draft = new_number(&intent, self.policies(over).default_policy(), now()).ok()?;
        Some(self.put_intent(&draft.intent))
    }

    /// The operator gives a held intent up.
    pub fn given_up(&mut self, intent: u32) -> Option<(u32, Vec<End>)> {
        let draft = give_up(self.intent(intent), now()).ok()?;
        let ends = draft.events.iter().filter_map(terminal_end).collect();
        Some((self.put_intent(&draft.intent), ends))
    }

    pub fn age_intent(&mut self, intent: u32) -> u32 {
        if intent == 0 {
            return 0;
        }
        if let Some(known) = self.aged_intents.get(&intent) {
            return known;
        }
        let aged = aged_intent(self.intent(intent));
        let aged = self.intents.put(aged);
        self.aged_intents.put(intent, aged)
    }

    pub fn age_record(&mut self, record: u32) -> u32 {
        if let Some(known) = self.aged_records.get(&record) {
            return known;
        }
        let aged = aged_record(self.records.get(record));
        let aged = self.records.put(aged);
        self.aged_records.put(record, aged)
    }

    pub fn age_hints(&mut self, hints: u32) -> u32 {
        if let Some(known) = self.aged_hints.get(&hints) {
            return known;
        }
        let aged = self.hints.get(hints).iter().map(|hint| HintState {
            published: older(hint.published),
            not_before: ready(older(hint.not_before)),
            ..*hint
        });
        let aged = aged.collect();
        let aged = self.hints.put(aged);
        self.aged_hints.put(hints, aged)
    }

    pub fn age_decision(&mut self, decision: u32) -> u32 {
        if decision == 0 {
            return 0;
        }
        if let Some(known) = self.aged_decisions.get(&decision) {
            return known;
        }
        let mut dec = self.decisions.get(decision).clone();
        for draft in &mut dec.drafts {
            draft.intent = self.age_intent(draft.intent);
        }
        dec.record = self.age_record(dec.record);
        dec.not_before = older(dec.not_before);
        for fate in &mut dec.hints {
            if let Fate::Defer { not_before, .. } = fate {
                *not_before = older(*not_before);
            }
        }
        let aged = self.decisions.put(dec);
        self.aged_decisions.put(decision, aged)
    }
}

/// What may be looked at now waits for nothing.
pub fn ready(not_before: Class) -> Class {
    if not_before <= 0 { NEVER } else { not_before }
}

fn certain(end: End) -> End {
    match end {
        End::CanceledUnverified => End::Canceled,
        End::AbandonedUnverified => End::Abandoned,
        other => other,
    }
}

/// What R5 forbids: a declined charge that a notification named is taken for the answer to the unknown number.
fn believe_found_declines(
    intent: &mut ChargeIntent,
    charges: &[ChargeView],
    compared: bool,
    policy: &amazon_pay_ipn::recovery::policy::Policy,
) {
    let ours = |view: &&ChargeView| view.tag.as_ref().is_some_and(|tag| tag.intent == intent.id);
    let same = |view: &&ChargeView| !compared || view.tag.as_ref().is_some_and(|tag| tag.number == intent.number.value);
    let declined = charges.iter().filter(ours).filter(same).any(|view| view.state.as_str() == "Declined");
    let scheduled = matches!(intent.stage(), Stage::Scheduled { why: Why::Repeat | Why::Confirmation, .. });
    if declined && scheduled && intent.number.status == NumberStatus::Unknown {
        let mut draft = Draft::new(intent.clone());
        draft.intent.number.tainted = false;
        settle(&mut draft, &Verdict::Declined(Decline::SoftDeclined), now(), policy);
        *intent = draft.intent;
    }
}

fn hint_of(state: &HintState) -> Hint {
    let note = HintNote {
        message_id: "m".to_owned(),
        published_at: at(state.published),
        refusals: u32::from(state.refusals),
        not_before: (state.not_before != NEVER).then(|| at(state.not_before)),
        swept_since: None,
        for_intent: None,
    };
    match state.charge {
        None => Hint { object_type: ObjectType::ChargePermission, object_id: permission().into(), note },
        Some(charge) => Hint { object_type: ObjectType::Charge, object_id: charge.id().into(), note },
    }
}

fn fate_code(fate: &HintFate) -> Fate {
    match fate {
        HintFate::Done => Fate::Done,
        HintFate::Keep => Fate::Keep,
        HintFate::Quarantine(_) => Fate::Quarantine,
        HintFate::Defer(note) => {
            Fate::Defer { refusals: note.refusals.min(5) as u8, not_before: note.not_before.map_or(NEVER, class) }
        }
    }
}

/// A fate passes through `decide_again` untouched.
fn fate_of(fate: &Fate) -> HintFate {
    match fate {
        Fate::Done => HintFate::Done,
        Fate::Keep => HintFate::Keep,
        Fate::Quarantine => HintFate::Quarantine(String::new()),
        Fate::Defer { refusals, not_before } => HintFate::Defer(HintNote {
            message_id: "m".to_owned(),
            published_at: now(),
            refusals: u32::from(*refusals),
            not_before: (*not_before != NEVER).then(|| at(*not_before)),
            swept_since: None,
            for_intent: None,
        }),
    }
}

//! The functions of `redis.rs` beside the real scripts on a real Redis: the same random steps on both, and after each step both must say
//! the same. What drifts apart is found here, and not by a model that proves something about scripts of yesterday.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Stage, Why};
use amazon_pay_ipn::model::hint::ObjectType;
use amazon_pay_ipn::model::ids::{Account, ChargeId, Environment, ObjectId, Region};
use amazon_pay_ipn::model::permission::PermissionRecord;
use amazon_pay_ipn::model::quota::{Limit, Limits};
use amazon_pay_ipn::recovery::draft::Draft;
use amazon_pay_ipn::recovery::due::due;
use amazon_pay_ipn::recovery::handover::{Asked, first_plan};
use amazon_pay_ipn::recovery::policy::later;
use amazon_pay_ipn::recovery::wishes::new_number;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::actions::{Resolution, Resolved};
use amazon_pay_ipn::store::charges::{Canceled, Declared as Said, Plan, Submission, Submitted};
use amazon_pay_ipn::store::notifications::{Accepted, Delivery, Named};
use amazon_pay_ipn::store::permissions::CloseRequested;
use amazon_pay_ipn::store::reconciliations::{
    Claim, Claimed, Commit, Committed, HintChange, Marked as RealMarked, Renewed, Send,
};
use amazon_pay_ipn::store::{Bounds, Replicas, Store, StoreSettings, TlsSettings};
use jiff::Timestamp;

use super::redis::{self as scripts, Declared, MarkFacts, Marked, Wanted, after_a_crash};
use super::rules::Rules;
use super::service::Service;
use super::state::{ActCode, Dec, DraftState, End, Fate, Phase, Redis, SLOTS, Worker};
use super::values::{ChargeRef, FAR, NEVER, X, intent_id, now, permission, policies, request};

/// Steps of a walk.
const STEPS: usize = 50;
const LEASE: Duration = Duration::from_mins(3);
const DAY: Duration = Duration::from_hours(24);

/// Small repeatable choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn slot(&mut self) -> usize {
        usize::from(self.roll(3) == 2)
    }
}

/// A worker on both sides: its claim, and its intents as it knows them now.
struct Pair {
    real: Claim,
    real_intents: Vec<ChargeIntent>,
    model: Worker,
    model_intents: Vec<ChargeIntent>,
}

struct Twins {
    store: Store,
    connection: ::redis::aio::MultiplexedConnection,
    clock: Clock,
    service: Service,
    redis: Redis,
    workers: [Option<Pair>; 3],
    messages: u32,
    /// Leases that ran out since X passed last: together they stay far below X.
    lapses: u32,
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, really: &T, modelled: &T) -> Result<(), String> {
    if really == modelled { Ok(()) } else { Err(format!("{what}: really {really:?}, by the model {modelled:?}")) }
}

/// What both sides say of an intent.
#[derive(Debug, PartialEq)]
struct Shown {
    state: &'static str,
    repeats: bool,
    outcome: Option<Outcome>,
    number: (u32, NumberStatus, u32, bool),
    canceling: bool,
}

fn shown(intent: &ChargeIntent) -> Shown {
    let number = &intent.number;
    Shown {
        state: intent.stage().name(),
        repeats: matches!(intent.stage(), Stage::Scheduled { why: Why::Repeat, .. }),
        outcome: intent.stage().outcome(),
        number: (number.value, number.status, number.sends.min(2), number.tainted),
        // Of what was canceled at once the script writes the time, too.
        canceling: intent.cancel_requested_at.is_some(),
    }
}

/// One decision about an intent, on whichever side's clock.
fn decided(kind: u64, intent: &ChargeIntent, now: Timestamp) -> Draft {
    let mut draft = Draft::new(intent.clone());
    let charge: ChargeId = charge_of(intent).id();
    let why = if intent.next_send_repeats() { Why::Repeat } else { Why::Attempt };
    match kind {
        0 => draft.schedule(later(now, 2 * X), why),
        1 => {
            draft.next_number();
            draft.schedule(now, Why::Attempt);
        }
        2 => {
            draft.intent.number.status = NumberStatus::Answered;
            draft.capture(&charge, None, intent.number.value, now);
        }
        3 => draft.abandon(now, "window_ended", Outcome::Verified),
        4 => draft.hold("DuplicateIdempotencyKey"),
        5 => {
            draft.intent.number.status = NumberStatus::Answered;
            draft.pend(&charge, now, "AuthorizationInitiated");
        }
        _ => draft.cancel(now, Outcome::Verified),
    }
    draft
}

fn charge_of(intent: &ChargeIntent) -> ChargeRef {
    ChargeRef { slot: super::values::slot_of(&intent.id), number: intent.number.value.min(3) as u8, generation: 0 }
}

fn end_of(intent: &ChargeIntent) -> Vec<End> {
    match (intent.stage(), intent.stage().outcome()) {
        (Stage::Captured { .. }, _) => vec![End::Captured],
        (Stage::Canceled { .. }, Some(Outcome::Verified)) => vec![End::Canceled],
        (Stage::Canceled { .. }, _) => vec![End::CanceledUnverified],
        (Stage::Abandoned { .. }, Some(Outcome::Verified)) => vec![End::Abandoned],
        (Stage::Abandoned { .. }, _) => vec![End::AbandonedUnverified],
        _ => Vec::new(),
    }
}

impl Twins {
    async fn new(server: &RedisServer, walk: u64) -> Self {
        let account = Account {
            merchant: "A2K7NDRCTOTPW9".parse().unwrap(),
            environment: Environment::Sandbox,
            region: Region::Na,
        };
        let clock = Clock::movable();
        let settings = StoreSettings {
            url: server.url().into(),
            tls: TlsSettings::default(),
            key_prefix: format!("walk-{walk}"),
            dedupe_ttl: 16 * DAY,
            journal_retention: 30 * DAY,
            event_retention: 30 * DAY,
            event_retention_limit: 30 * DAY,
            intent_retention: 400 * DAY,
            confirmation_delay: X,
            lease: LEASE,
            bounds: Bounds::default(),
            quota: Limits::each(Limit { capacity: 1_000_000, per_second: 1000.0 }),
            replicas: Replicas::default(),
        };
        let store = Store::connect(settings, account, clock.clone()).unwrap();
        let recovering = walk % 4 == 3;
        let init = if recovering { Init::AfterLoss } else { Init::First };
        assert!(matches!(store.init(init).await.unwrap(), Initialised::Done { .. }));
        store.set_stop(false).await.unwrap();
        let mut service = Service::new(Rules::ALL);
        let record = service.records.put(PermissionRecord::default());
        let hints = service.hints.put(Vec::new());
        // `init --after-loss` counts as a change of the server.
        let changed = if recovering { 0 } else { Redis::EMPTY.changed };
        let redis = Redis { record, hints, recovering, changed, ..Redis::EMPTY };
        let patient = ::redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_mins(1)));
        let client = ::redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        Self { store, connection, clock, service, redis, workers: [None, None, None], messages: 0, lapses: 0 }
    }

    /// One step on both sides: what it was, and whether something came of it.
    async fn step(&mut self, dice: &mut Dice) -> (&'static str, String) {
        let slot = dice.slot();
        if self.redis.intents[0] == 0 {
            return ("submit", self.submit(0, dice).await);
        }
        // Rather one that has something to do.
        let busy: Vec<_> = (0..3).filter(|index| self.workers[*index].is_some()).collect();
        let idle = dice.roll(3) as usize;
        let index = if busy.is_empty() { idle } else { busy[dice.roll(busy.len() as u64) as usize] };
        match dice.roll(40) {
            0 | 1 => ("submit", self.submit(slot, dice).await),
            2..=8 => ("claim", self.claim(idle).await),
            9..=18 => ("mark", self.mark(index, dice).await),
            19..=25 => ("commit", self.commit(index, dice).await),
            26 | 27 => ("accept", self.accept(slot, dice).await),
            28 | 29 => ("cancel", self.cancel(slot).await),
            30 => ("stop", self.stop(dice).await),
            31 if dice.roll(2) == 0 => ("close", self.close().await),
            31..=35 => ("time", self.time(dice)),
            _ => ("resolve", self.resolve(slot).await),
        }
    }

    async fn submit(&mut self, slot: usize, dice: &mut Dice) -> String {
        let (said, declared) = match dice.roll(4) {
            0 => (Said::Nothing, Declared::Nothing),
            1 => (Said::LastNumber(1), Declared::Last(1)),
            _ => (Said::New, Declared::New),
        };
        let (id, request) = (intent_id(slot as u8), request());
        let last_number = if let Said::LastNumber(number) = said { Some(number) } else { None };
        let asked = Asked { id: &id, request: &request, policy: None, not_before: None, last_number, declined: None };
        let draft = first_plan(&asked, &policies(false), self.clock.now()).unwrap();
        let submission = Submission {
            id: id.clone(),
            request: request.clone(),
            policy: None,
            not_before: None,
            declared: said,
            handed_over: None,
        };
        let plan = Plan { intent: &draft.intent, due: self.clock.now(), events: &draft.events };
        let real = match self.store.submit_charge(&submission, &plan).await.unwrap() {
            Submitted::Accepted => "accepted",
            Submitted::Held => "held",
            Submitted::Resumed => "resumed",
            Submitted::Same => "same",
            Submitted::Contradicted => "contradicted",
            Submitted::Closing => "closing",
            other => panic!("{other:?}"),
        };
        let model = scripts::submit_charge(&mut self.redis, slot, declared, &mut self.service);
        assert_eq!(real, model, "submit");
        model.to_owned()
    }

    async fn claim(&mut self, index: usize) -> String {
        let real = self.store.claim(&permission(), &self.clock).await.unwrap();
        let model = scripts::claim_permission(&mut self.redis, index, &mut self.service);
        let (real, read) = match (real, model) {
            (Claimed::No, None) => return "refused".to_owned(),
            (Claimed::Yes(real), Some(read)) => (*real, read),
            (real, model) => panic!("claim: really {real:?}, by the model {model:?}"),
        };
        assert_eq!((real.closed, real.close.is_some()), (read.closed, read.close != NEVER), "what a claim reads");
        let open: Vec<_> = read.intents.iter().filter(|intent| **intent != 0).collect();
        let mut model_intents: Vec<_> = open.iter().map(|intent| self.service.intent(**intent).clone()).collect();
        let mut real_intents = real.intents.clone();
        real_intents.sort_by_key(|intent| intent.id.clone());
        model_intents.sort_by_key(|intent| intent.id.clone());
        let really: Vec<_> = real_intents.iter().map(shown).collect();
        let modelled: Vec<_> = model_intents.iter().map(shown).collect();
        assert_eq!(really, modelled, "the intents that a claim reads");
        let model = Worker { phase: Phase::Decided, read, ..Worker::IDLE };
        self.workers[index] = Some(Pair { real, real_intents, model, model_intents });
        "claimed".to_owned()
    }

    async fn mark(&mut self, index: usize, dice: &mut Dice) -> String {
        let Some(pair) = &mut self.workers[index] else { return "idle".to_owned() };
        let real = match self.store.renew(&pair.real).await.unwrap() {
            Renewed::Yes | Renewed::Lapsed => true,
            Renewed::Lost => false,
        };
        let model = scripts::renew_lease(&mut self.redis, index, &pair.model, &self.service.rules);
        assert_eq!(real, model, "renew");
        if pair.real_intents.is_empty() {
            return "nothing open".to_owned();
        }
        let at = dice.roll(pair.real_intents.len() as u64) as usize;
        let (mut wanted, mut modelled) = (pair.real_intents[at].clone(), pair.model_intents[at].clone());
        let mut stored_state = wanted.stage().name();
        match dice.roll(12) {
            0 => (wanted.number.value, modelled.number.value) = (wanted.number.value + 1, modelled.number.value + 1),
            1 => stored_state = "parked",
            2 => (wanted.number.status, modelled.number.status) = (NumberStatus::Fresh, NumberStatus::Fresh),
            3 => (wanted.number.status, modelled.number.status) = (NumberStatus::Unknown, NumberStatus::Unknown),
            _ => {}
        }
        let send = Send { intent: &wanted, stored_state, instrument: None, needed: Duration::from_mins(1) };
        let really = self.store.mark(&pair.real, &send).await.unwrap();
        let slot = super::values::slot_of(&wanted.id) as usize;
        let facts = MarkFacts {
            holds: scripts::holds(&self.redis, index, &pair.model, &self.service.rules),
            stop: self.redis.stop,
            closing: self.redis.close != NEVER,
            closed: self.redis.closed,
            tainting: scripts::changed_lately(&self.redis, &self.service.rules),
            checks: true,
        };
        let stored = self.service.intent(self.redis.intents[slot]).clone();
        match (really, scripts::mark_send(&stored, &Wanted { intent: &modelled, stored_state }, facts)) {
            (RealMarked::Yes(number), Marked::Yes(stored)) => {
                let of = |number: &amazon_pay_ipn::model::charge_intent::Number| {
                    (number.value, number.status, number.sends.min(2), number.tainted, number.first_mark.is_some())
                };
                assert_eq!(of(&number), of(&stored.number), "the number that was marked");
                self.redis.intents[slot] = self.service.put_intent(&stored);
                self.redis.open[slot] = 0;
                pair.real_intents[at].number = number;
                pair.model_intents[at].number = stored.number;
                if pair.real_intents[at].number.tainted { "tainted" } else { "marked" }.to_owned()
            }
            (RealMarked::Stopped, Marked::Stopped) => "stopped".to_owned(),
            (RealMarked::LostLease, Marked::LostLease) => "lost".to_owned(),
            (RealMarked::Refused(_), Marked::Refused(why)) => format!("refused: {why}"),
            (really, modelled) => panic!("mark: really {really:?}, by the model {modelled:?}"),
        }
    }

    async fn commit(&mut self, index: usize, dice: &mut Dice) -> String {
        let Some(mut pair) = self.workers[index].take() else { return "idle".to_owned() };
        let (real_now, keep, closes, waits) =
            (self.clock.now(), dice.roll(3) == 0, dice.roll(12) == 0, dice.roll(4) == 0);
        // An ended intent that a charge names joins.
        for slot in 0..SLOTS {
            let known = pair.model_intents.iter().any(|intent| intent.id == intent_id(slot as u8));
            if !known && self.redis.intents[slot] != 0 && dice.roll(2) == 0 {
                let real = self.store.charge(&intent_id(slot as u8)).await.unwrap().unwrap().intent;
                if real.stage().is_terminal() {
                    pair.real_intents.push(real);
                    pair.model_intents.push(self.service.intent(self.redis.intents[slot]).clone());
                }
            }
        }
        let (mut real_drafts, mut drafts) = (Vec::new(), Vec::new());
        for (real, model) in pair.real_intents.iter().zip(&pair.model_intents) {
            let kind = if model.stage().is_terminal() { 2 } else { dice.roll(7) };
            real_drafts.push(decided(kind, real, real_now));
            let model = decided(kind, model, now()).intent;
            let slot = super::values::slot_of(&model.id);
            drafts.push(DraftState { slot, ends: end_of(&model), intent: self.service.put_intent(&model), told: true });
        }
        let policies = policies(false);
        let intents = real_drafts
            .iter()
            .map(|draft| (&draft.intent, due(&draft.intent, policies.default_policy()), draft.events.as_slice()))
            .collect();
        let has_hints = !pair.real.hints.is_empty();
        let hints: Vec<_> =
            pair.real.hints.iter().map(|(hint, seen)| (hint, seen.as_str(), HintChange::Done)).collect();
        // `waits` stands for a look that failed. Without anything to write the reconciler waits, too.
        let idle = real_drafts.is_empty() && (keep || !has_hints) && !waits;
        let commit = Commit {
            record: &pair.real.record,
            closed: closes || pair.real.closed,
            events: &[],
            hints: if keep { Vec::new() } else { hints },
            hints_due: (keep && has_hints).then_some(real_now),
            intents,
            not_before: (waits || idle).then(|| if waits { later(real_now, 2 * X) } else { real_now }),
            held_back: false,
            look_asked: None,
            unheard: None,
        };
        let really = self.store.commit(&pair.real, &commit).await.unwrap() == Committed::Yes;
        let fate = if keep { Fate::Keep } else { Fate::Done };
        let decision = self.service.decisions.put(Dec {
            drafts,
            record: pair.model.read.record,
            closed: closes || pair.model.read.closed,
            hints: self.service.hints.get(pair.model.read.hints).iter().map(|_| fate).collect(),
            act: ActCode::Nothing,
            not_before: if waits { FAR } else { NEVER },
            alerts: 0,
            chargeable_card: 0,
        });
        pair.model.decision = decision;
        let modelled =
            scripts::commit_reconciliation(&mut self.redis, index, &pair.model, false, &mut self.service).written;
        assert_eq!(really, modelled, "commit");
        if modelled { "committed" } else { "lost" }.to_owned()
    }

    async fn accept(&mut self, slot: usize, dice: &mut Dice) -> String {
        let charge = (dice.roll(2) == 0).then_some(ChargeRef { slot: slot as u8, number: 0, generation: 0 });
        let object: ObjectId = charge.map_or_else(|| permission().into(), |charge| charge.id().into());
        let object_type = if charge.is_some() { ObjectType::Charge } else { ObjectType::ChargePermission };
        self.messages += 1;
        let message_id = format!("message-{}", self.messages);
        let delivery = Delivery {
            message_id: &message_id,
            topic_arn: "arn:aws:sns:us-east-1:1:t",
            published_at: self.clock.now(),
            body: "{}",
        };
        let named = Named {
            object_type,
            object_id: &object,
            charge_permission_id: &permission(),
            notification_type: "STATE_CHANGE",
            notification_id: "n",
        };
        for expected in [Accepted::Stored, Accepted::Duplicate] {
            assert_eq!(self.store.accept_notification(&delivery, &named).await.unwrap(), expected);
        }
        scripts::accept_notification(&mut self.redis, charge, Some(0), &mut self.service);
        "accepted".to_owned()
    }

    async fn cancel(&mut self, slot: usize) -> String {
        let really = self.store.cancel_charge(&intent_id(slot as u8)).await.unwrap();
        if self.redis.intents[slot] == 0 {
            assert_eq!(really, Canceled::Unknown);
            return "unknown".to_owned();
        }
        let before = self.service.intent(self.redis.intents[slot]).stage().name();
        let expected = match scripts::cancel_charge(&mut self.redis, slot, &mut self.service) {
            Some(true) => Canceled::Done,
            Some(false) => Canceled::Pending,
            None if before == "canceled" => Canceled::Done,
            None => Canceled::Ended(before.to_owned()),
        };
        assert_eq!(really, expected, "cancel");
        format!("{expected:?}")
    }

    async fn stop(&mut self, dice: &mut Dice) -> String {
        self.redis.stop = !self.redis.stop && dice.roll(2) == 0;
        self.store.set_stop(self.redis.stop).await.unwrap();
        if self.redis.stop { "on" } else { "off" }.to_owned()
    }

    async fn close(&mut self) -> String {
        let really = self.store.request_close(&permission(), "moved", false).await.unwrap();
        let modelled = scripts::request_close(&mut self.redis, &self.service.rules);
        assert_eq!(really == CloseRequested::Asked, modelled, "close: {really:?}");
        format!("{really:?}")
    }

    fn time(&mut self, dice: &mut Dice) -> String {
        if dice.roll(2) == 0 && self.lapses < 5 {
            self.lapses += 1;
            self.clock.advance(LEASE + Duration::from_secs(1));
            if self.redis.leased {
                self.redis.leased = false;
                self.redis.score = 0;
            }
            return "the lease runs out".to_owned();
        }
        self.lapses = 0;
        self.clock.advance(X + Duration::from_mins(1));
        scripts::age(&mut self.redis, &mut self.service);
        for pair in self.workers.iter_mut().flatten() {
            let worker = &mut pair.model;
            worker.read.intents = worker.read.intents.map(|intent| self.service.age_intent(intent));
            worker.read.hints = self.service.age_hints(worker.read.hints);
            for intent in &mut pair.model_intents {
                *intent = super::values::aged_intent(intent);
            }
        }
        "X passes".to_owned()
    }

    async fn resolve(&mut self, slot: usize) -> String {
        if self.redis.intents[slot] == 0 {
            return "unknown".to_owned();
        }
        let stored = self.store.charge(&intent_id(slot as u8)).await.unwrap().unwrap();
        let policies = policies(false);
        let really = match new_number(&stored.intent, policies.default_policy(), self.clock.now()) {
            Ok(draft) => {
                let resolved = self.store.resolve_charge(&stored, Resolution::NewNumber, &draft.intent, &draft.events);
                resolved.await.unwrap() == Resolved::Yes
            }
            Err(_) => false,
        };
        let modelled = scripts::resolve_intent(&mut self.redis, slot, true, false, &mut self.service);
        assert_eq!(really, modelled, "resolve");
        if modelled { "a new number" } else { "refused" }.to_owned()
    }

    /// Whether both sides say the same.
    async fn compare(&self) -> Result<(), String> {
        let stored = self.store.permission(&permission()).await.unwrap();
        for slot in 0..SLOTS {
            let really = self.store.charge(&intent_id(slot as u8)).await.unwrap().map(|stored| shown(&stored.intent));
            let number = self.redis.intents[slot];
            let modelled = (number != 0).then(|| shown(&after_a_crash(self.service.intent(number).clone())));
            same("the intent", &really, &modelled)?;
        }
        let Some(stored) = stored else { return same("nothing stored", &NEVER, &self.redis.score) };
        let open: BTreeSet<_> = stored.intents.iter().map(|intent| intent.id.to_string()).collect();
        let is_open = |slot: &usize| {
            self.redis.intents[*slot] != 0 && !self.service.intent(self.redis.intents[*slot]).stage().is_terminal()
        };
        let modelled: BTreeSet<_> = (0..SLOTS).filter(is_open).map(|slot| intent_id(slot as u8).to_string()).collect();
        same("open", &open, &modelled)?;
        let named: BTreeSet<_> = stored.hints.iter().map(|hint| hint.object_id.to_string()).collect();
        let hints = self.service.hints.get(self.redis.hints).iter();
        let modelled: BTreeSet<_> = hints
            .map(|hint| hint.charge.map_or_else(|| permission().to_string(), |charge| charge.id().to_string()))
            .collect();
        same("hints", &named, &modelled)?;
        same("closed", &stored.closed, &self.redis.closed)?;
        same("the wish to close it", &stored.close.is_some(), &(self.redis.close != NEVER))?;
        same("leased", &stored.leased, &self.redis.leased)?;
        let due = stored.due.map(|due| due <= self.clock.now());
        same("due", &due, &(self.redis.score != NEVER).then_some(self.redis.score <= 0))?;
        let ends = self.redis.ends.map(|ends| ends.into_iter().filter(|end| *end != End::None).count());
        same("terminal events", &self.ends().await, &ends)
    }

    /// Terminal events of each intent in the stream.
    async fn ends(&self) -> [usize; SLOTS] {
        let mut connection = self.connection.clone();
        let mut read = ::redis::cmd("XRANGE");
        let entries: Vec<(String, HashMap<String, String>)> =
            read.arg(self.store.keys().events()).arg("-").arg("+").query_async(&mut connection).await.unwrap();
        let events: Vec<_> =
            entries.iter().map(|(_, fields)| (fields["type"].as_str(), fields["data"].as_str())).collect();
        std::array::from_fn(|slot| {
            let id = format!("\"id\":\"{}\"", intent_id(slot as u8));
            let terminal = |kind: &str| {
                ["captured", "canceled", "abandoned"].iter().any(|end| kind == format!("amazonpay.charge.{end}.v1"))
            };
            events.iter().filter(|(kind, data)| terminal(kind) && data.contains(&id)).count()
        })
    }
}

async fn walks(walks: std::ops::Range<u64>) -> BTreeMap<String, u32> {
    let server = RedisServer::start().unwrap();
    let mut came_to = BTreeMap::<String, u32>::new();
    for walk in walks {
        let mut twins = Twins::new(&server, walk).await;
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (walk + 1).wrapping_mul(0xD134_2543_DE82_EF95));
        let mut way = Vec::new();
        for _ in 0..STEPS {
            let (what, result) = twins.step(&mut dice).await;
            way.push(format!("{what}: {result}"));
            if let Err(difference) = twins.compare().await {
                panic!("walk {walk}: {difference}\nafter {way:#?}");
            }
            *came_to.entry(format!("{what}: {result}")).or_default() += 1;
        }
    }
    came_to
}

#[tokio::test]
async fn the_models_scripts_do_what_the_real_scripts_do() {
    let came_to = walks(0..40).await;
    super::explore::print(&format!("the scripts beside the model, so often: {came_to:?}\n"));
    // Walks that come to nothing would compare nothing.
    for outcome in [
        "claim: claimed",
        "claim: refused",
        "mark: marked",
        "mark: tainted",
        "mark: stopped",
        "mark: lost",
        "mark: refused: closing",
        "mark: refused: number",
        "mark: refused: state",
        "commit: committed",
        "commit: lost",
        "cancel: Done",
        "cancel: Pending",
        "submit: held",
        "submit: same",
    ] {
        assert!(came_to.contains_key(outcome), "no walk came to {outcome:?}: {came_to:?}");
    }
}

#[tokio::test]
#[ignore = "minutes, in release: make model"]
async fn larger_walks_of_the_models_scripts_and_the_real_ones() {
    let came_to = walks(40..1040).await;
    super::explore::print(&format!("the scripts beside the model, so often: {came_to:?}\n"));
}

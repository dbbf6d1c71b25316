//! The model for `stateright`, which explores it and checks the properties; and a pass of our own over the same graph, from the settled
//! states backwards: `stateright`'s `eventually` does not see a cycle that is never left.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use amazon_pay_ipn::model::permission::PermissionRecord;
use stateright::{Checker, Model, Property};

use super::amazon::{Amazon, Kinds, Reading};
use super::faults;
use super::properties::{Named, is_settled};
use super::redis::{Declared, submit_charge};
use super::rules::Rules;
use super::service::Service;
use super::state::{COPIES, Left, Redis, Seen, State, WORKERS, Worker};
use super::worker;

/// What a scenario explores.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub reading: Reading,
    pub workers: usize,
    pub left: Left,
    pub kinds: Kinds,
}

/// One step, as a trace shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub who: Option<u8>,
    pub what: &'static str,
    pub detail: &'static str,
    pub slot: u8,
    pub number: u8,
    /// Whether something went wrong, or somebody outside did something: a state that can settle only by such a step is stuck.
    pub fault: bool,
}

const NOBODY: u8 = u8::MAX;

impl Label {
    pub fn of(what: &'static str) -> Self {
        Self { who: None, what, detail: "", slot: NOBODY, number: NOBODY, fault: false }
    }

    pub fn worker(index: usize, what: &'static str) -> Self {
        Self { who: Some(index as u8), ..Self::of(what) }
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(who) = self.who {
            write!(f, "worker {} ", char::from(b'A' + who))?;
        }
        f.write_str(self.what)?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        if self.slot != NOBODY {
            write!(f, " [intent {}", self.slot)?;
            if self.number != NOBODY {
                write!(f, ", number {}", self.number)?;
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

/// The steps out of a state.
pub struct Steps(Vec<(Label, State)>);

impl Steps {
    pub fn add(&mut self, label: Label, state: State) {
        self.0.push((label, state));
    }

    pub fn fault(&mut self, label: Label, state: State) {
        self.0.push((Label { fault: true, ..label }, state));
    }

    pub fn either(&mut self, fault: bool, label: Label, state: State) {
        self.0.push((Label { fault, ..label }, state));
    }
}

/// The model of one scenario.
pub struct Protocol {
    pub bounds: Bounds,
    properties: Vec<Named>,
    service: Mutex<Service>,
}

impl Protocol {
    pub fn new(rules: Rules, bounds: Bounds, properties: Vec<Named>) -> Self {
        Self { bounds, properties, service: Mutex::new(Service::new(rules)) }
    }

    pub fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap()
    }

    pub fn first(&self) -> State {
        let mut service = self.service();
        let record = service.records.put(PermissionRecord::default());
        let hints = service.hints.put(Vec::new());
        let mut redis = Redis { record, hints, ..Redis::EMPTY };
        assert_eq!(submit_charge(&mut redis, 0, Declared::New, &mut service), "accepted");
        State {
            redis,
            workers: [Worker::IDLE; WORKERS],
            amazon: Amazon::NEW,
            copies: [None; COPIES],
            left: self.bounds.left,
            seen: Seen::default(),
            replica: 0,
            over: false,
        }
    }

    fn steps(&self, state: &State) -> Vec<(Label, State)> {
        let mut steps = Steps(Vec::new());
        let service = &mut *self.service();
        worker::steps(state, &self.bounds, service, &mut steps);
        faults::steps(state, &self.bounds, service, &mut steps);
        steps.0
    }
}

impl Model for Protocol {
    type State = State;
    /// The step, and where it leads.
    type Action = (Label, State);

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Self::Action>) {
        actions.extend(self.steps(state));
    }

    fn next_state(&self, _: &State, (_, next): Self::Action) -> Option<State> {
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties.iter().map(|named| Property::always(named.name, named.holds)).collect()
    }
}

/// What an exploration came to.
pub struct Explored {
    pub states: usize,
    /// Calls of the service's own functions that were not remembered.
    pub calls: u64,
    /// The first property that is broken, with the shortest way there.
    pub broken: Option<(&'static str, Vec<Label>)>,
}

/// Explores all states, or until one of the properties is broken.
pub fn explore(protocol: Protocol) -> Explored {
    let names: Vec<_> = protocol.properties.iter().map(|named| named.name).collect();
    let checker = protocol.checker().threads(1).finish_when(stateright::HasDiscoveries::Any).spawn_bfs().join();
    let broken = names.iter().find_map(|name| {
        let path = checker.discovery(name)?;
        Some((*name, path.into_actions().into_iter().map(|(label, _)| label).collect()))
    });
    assert!(checker.is_done());
    Explored { states: checker.unique_state_count(), calls: checker.model().service().calls, broken }
}

/// Whether from every state a settled one can be reached by steps that are no faults: the number of states, and the way to the first
/// from which none can.
pub fn settles(protocol: &Protocol, parks: bool) -> (usize, Option<Vec<Label>>) {
    let hasher = std::hash::BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default();
    let mut numbers: HashMap<u64, u32> = HashMap::new();
    let mut came_by: Vec<(u32, Label)> = Vec::new();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut settled: Vec<u32> = Vec::new();
    let mut queue = VecDeque::new();
    let first = protocol.first();
    numbers.insert(hasher.hash_one(first), 0);
    came_by.push((0, Label::of("begins")));
    queue.push_back((0_u32, first));
    while let Some((from, state)) = queue.pop_front() {
        if is_settled(&state, &protocol.service(), parks) {
            settled.push(from);
        }
        for (label, next) in protocol.steps(&state) {
            let count = u32::try_from(came_by.len()).unwrap();
            let to = *numbers.entry(hasher.hash_one(next)).or_insert(count);
            if to == count {
                came_by.push((from, label));
                queue.push_back((to, next));
            }
            if !label.fault {
                edges.push((to, from));
            }
        }
    }
    // Backwards: edges by where they lead.
    edges.sort_unstable();
    let mut reached = vec![false; came_by.len()];
    let mut stack = settled;
    stack.iter().for_each(|state| reached[*state as usize] = true);
    while let Some(to) = stack.pop() {
        let begin = edges.partition_point(|edge| edge.0 < to);
        for (_, from) in edges[begin..].iter().take_while(|edge| edge.0 == to) {
            if !reached[*from as usize] {
                reached[*from as usize] = true;
                stack.push(*from);
            }
        }
    }
    let stuck = reached.iter().position(|reached| !reached);
    let way = stuck.map(|mut at| {
        let mut way = Vec::new();
        while at != 0 {
            let (from, label) = came_by[at];
            way.push(label);
            at = from as usize;
        }
        way.reverse();
        way
    });
    (came_by.len(), way)
}

/// To the terminal of whoever runs the tests, also where they pass.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
}

pub fn trace(way: &[Label]) -> String {
    way.iter().enumerate().fold(String::new(), |text, (step, label)| format!("{text}    {:2}. {label}\n", step + 1))
}

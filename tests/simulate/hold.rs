//! Workers that stand still in the middle of a step: at a gate of the sandbox, or wherever their task was polled for the n-th time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use std::sync::Mutex;

use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::sandbox::Gate;
use amazon_pay_ipn::store::StoreError;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Step = Result<StepOutcome, StoreError>;

/// Stops a future from being polled. Clones are the same brake.
#[derive(Clone, Default)]
pub struct Brake(Arc<Inside>);

#[derive(Default)]
struct Inside {
    polls_left: AtomicU32,
    released: AtomicBool,
    stopped: AtomicBool,
    waker: Mutex<Option<Waker>>,
    stands: Notify,
}

impl Brake {
    pub fn after(polls: u32) -> Self {
        let brake = Self::default();
        brake.0.polls_left.store(polls, Ordering::SeqCst);
        brake
    }

    /// As many more polls from now on.
    pub fn stop_after(&self, polls: u32) {
        self.0.polls_left.store(polls, Ordering::SeqCst);
    }

    /// Waits until the future stands still.
    pub async fn reached(&self) {
        if !self.0.stopped.load(Ordering::SeqCst) {
            self.0.stands.notified().await;
        }
    }

    pub fn release(&self) {
        self.0.released.store(true, Ordering::SeqCst);
        let waker = self.0.waker.lock().expect("no panic under this lock").take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub fn hold<F: Future + Send + 'static>(&self, future: F) -> Braked<F> {
        Braked { inner: Box::pin(future), brake: self.clone() }
    }
}

pub struct Braked<F> {
    inner: Pin<Box<F>>,
    brake: Brake,
}

impl<F: Future> Future for Braked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let inside = Arc::clone(&self.brake.0);
        if !inside.released.load(Ordering::SeqCst) {
            let left = inside.polls_left.load(Ordering::SeqCst);
            if left == 0 {
                *inside.waker.lock().expect("no panic under this lock") = Some(context.waker().clone());
                inside.stopped.store(true, Ordering::SeqCst);
                inside.stands.notify_one();
                return Poll::Pending;
            }
            inside.polls_left.store(left - 1, Ordering::SeqCst);
        }
        self.inner.as_mut().poll(context)
    }
}

/// What keeps a worker where it is.
pub enum Stop {
    Gate(Gate, Place),
    Brake(Brake),
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Before,
    Inside,
    After,
}

/// A worker in the middle of a step.
pub struct Held {
    pub task: JoinHandle<Step>,
    pub stop: Stop,
    pub instance: usize,
}

impl Held {
    pub fn release(&self) {
        match &self.stop {
            Stop::Gate(gate, _) => gate.release(),
            Stop::Brake(brake) => brake.release(),
        }
    }

    /// A request that Amazon is working on: it may be slow, but not slower than we assume.
    pub fn is_inside_amazon(&self) -> bool {
        matches!(&self.stop, Stop::Gate(_, Place::Inside))
    }
}

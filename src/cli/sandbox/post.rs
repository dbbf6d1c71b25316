//! Posts notifications as SNS does: again and again for a while, unless the receiver says that it never will take it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::trigger::Target;
use super::{line, say};
use crate::sandbox::{Ipn, Sandbox, SandboxError, SignatureVersion, SignedMessage};

/// Between two looks whether anything changed.
const PAUSE: Duration = Duration::from_millis(100);
/// The time before each attempt after the first. SNS goes on for longer; here somebody waits.
const AGAIN_AFTER: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// Messages under way at a time.
const UNDER_WAY: usize = 256;
/// Notifications that are kept where nobody is notified.
const KEPT: usize = 10_000;

/// Never ends. Without a target what is queued is only kept within its bound.
pub(super) async fn deliver(sandbox: &Sandbox, target: Option<&Target>, version: SignatureVersion) {
    let slots = Arc::new(Semaphore::new(UNDER_WAY));
    let mut under_way = JoinSet::new();
    loop {
        if let Some(target) = target {
            for ipn in sandbox.notifications() {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let message = sandbox.sign(&ipn, version);
                let (sandbox, target) = (sandbox.clone(), target.clone());
                under_way.spawn(async move {
                    send(&sandbox, &target, &ipn, &message).await;
                    drop(slot);
                });
            }
            while under_way.try_join_next().is_some() {}
        } else {
            sandbox.forget_notifications_over(KEPT);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn send(sandbox: &Sandbox, target: &Target, ipn: &Ipn, message: &SignedMessage) {
    let mut pauses = AGAIN_AFTER.iter();
    loop {
        let answer = target.deliver(message).await;
        let (said, is_over) = match &answer {
            Ok(status @ 200..300) => (status.to_string(), true),
            // SNS takes these as the receiver's last word.
            Ok(status @ 400..500) if *status != 429 => (format!("{status}: not sent again"), true),
            Ok(status) => (status.to_string(), false),
            Err(SandboxError::NobodyListens(_)) => ("nobody listens".to_owned(), false),
            Err(error) => (error.to_string(), false),
        };
        let pause = pauses.next().filter(|_| !is_over);
        let again = match pause {
            Some(pause) => format!(", again in {}", humantime::format_duration(*pause)),
            None if is_over => String::new(),
            None => ", given up".to_owned(),
        };
        say(&line(sandbox.now(), &format!("IPN {ipn} → {said}{again}")));
        let Some(pause) = pause else { return };
        tokio::time::sleep(*pause).await;
    }
}

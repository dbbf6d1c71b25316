//! Distinct, signed notifications, made before the run: signing costs far more than verifying. A message whose answer is known can become
//! new again once its `seen` key is gone, so that a pool of some ten thousand lasts for as long as one likes.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::thread;

use amazon_pay_ipn::sandbox::{NotificationType, ObjectType, PermissionSpec, Sandbox, SignatureVersion, SignedMessage};

/// A request to `POST /ipn`, ready to be written.
pub struct Prepared {
    pub message_id: String,
    pub bytes: Vec<u8>,
}

pub fn request(message: &SignedMessage) -> Vec<u8> {
    let mut head = String::from("POST /ipn HTTP/1.1\r\nhost: ipn.example\r\n");
    for (name, value) in &message.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "content-length: {}\r\n\r\n", message.body.len());
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(message.body.as_bytes());
    bytes
}

/// Where the body of a request begins.
fn at_body(request: &[u8]) -> usize {
    request.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4)
}

pub fn body(request: &[u8]) -> &[u8] {
    &request[at_body(request)..]
}

/// The same request with a text in it changed, in the head and in the body.
pub fn altered(request: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let text = |bytes: &[u8]| change(&String::from_utf8_lossy(bytes));
    let (head, body) = request.split_at(at_body(request));
    let body = text(body);
    let head = text(head);
    let lines = head.lines().filter(|line| !line.is_empty() && !line.starts_with("content-length:"));
    let mut request = lines.fold(String::new(), |head, line| head + line + "\r\n");
    let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
    request.into_bytes()
}

/// So many notifications about so many permissions that exist.
pub fn sign(sandbox: &Sandbox, count: usize, permissions: usize) -> Vec<Prepared> {
    let permissions: Vec<String> =
        (0..permissions).map(|_| sandbox.create_permission(PermissionSpec::recurring("USD"))).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let done = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for first in 0..threads {
            let (done, permissions) = (&done, &permissions);
            scope.spawn(move || {
                for index in (first..count).step_by(threads) {
                    let permission = &permissions[index % permissions.len()];
                    let ipn = sandbox.ipn(
                        (ObjectType::ChargePermission, permission),
                        permission,
                        NotificationType::StateChange,
                    );
                    let message = sandbox.sign(&ipn, SignatureVersion::V2);
                    let prepared = Prepared { bytes: request(&message), message_id: message.message_id };
                    done.lock().expect("nobody panicked").push(prepared);
                }
            });
        }
    });
    done.into_inner().expect("nobody panicked")
}

/// Where each message is.
pub fn places(messages: &[Prepared]) -> HashMap<String, usize> {
    messages.iter().enumerate().map(|(place, message)| (message.message_id.clone(), place)).collect()
}

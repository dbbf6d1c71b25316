//! The AsyncAPI 3 document of the streams. A CloudEvent's attributes are the headers of a message, its `data` is the payload.

use serde_json::{Map, Value, json};

use super::EventType;
use super::schema::data_schema;

/// The document. `version` is the one of the service.
#[must_use]
pub fn document(version: &str) -> Value {
    let mut messages: Map<String, Value> =
        EventType::ALL.iter().map(|kind| (kind.as_str().to_owned(), event(*kind))).collect();
    let events: Vec<String> = messages.keys().cloned().collect();
    messages.insert("journalEntry".to_owned(), entry("An accepted notification", &JOURNAL));
    messages
        .insert("quarantineEntry".to_owned(), entry("A message, or a hint of one, that needs a person", &QUARANTINE));
    let named = |names: &[String]| -> Value {
        names
            .iter()
            .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })))
            .collect::<Map<_, _>>()
            .into()
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "amazon-pay-ipn: streams",
            "version": version,
            "description": "Redis streams that the service writes. An entry is a list of flat fields: `headers` below are the fields \
                            of an event besides `data`, which holds the payload as JSON text. Read with XREADGROUP, dedupe on `id`; \
                            see docs/EVENTS.md.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": channel("events", "What the service tells your other systems: CloudEvents 1.0", &named(&events)),
            "journal": channel("journal", "Every accepted notification, kept by age: a record, not a work queue", &named(&["journalEntry".to_owned()])),
            "quarantine": channel("quarantine", "What is genuine and could not be acted on", &named(&["quarantineEntry".to_owned()])),
        },
        "operations": {
            "sendEvents": sends("events", "Tells of a change, in the script that makes it"),
            "sendJournal": sends("journal", "Keeps a notification"),
            "sendQuarantine": sends("quarantine", "Keeps a message aside"),
        },
        "components": { "messages": messages },
    })
}

fn channel(name: &str, description: &str, messages: &Value) -> Value {
    json!({
        "address": format!("{{keyPrefix}}:{{account}}:{name}"),
        "description": description,
        "parameters": {
            "keyPrefix": { "description": "KEY_PREFIX of the service", "default": "amazon-pay" },
            "account": {
                "description": "The hash tag of the account, braces included: {<environment>:<merchant id>}",
                "examples": ["{live:A2K7NDRCTOTPW9}"],
            },
        },
        "messages": messages,
    })
}

fn sends(channel: &str, summary: &str) -> Value {
    json!({ "action": "send", "channel": { "$ref": format!("#/channels/{channel}") }, "summary": summary })
}

/// The fields of an event besides `data`, as a schema.
#[must_use]
pub fn attributes(kind: EventType) -> Value {
    let text = |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
    json!({
        "type": "object",
        "properties": {
            "specversion": { "type": "string", "const": "1.0" },
            "id": text("<subject>-<counter>-<milliseconds>. Given once. Dedupe on it."),
            "source": text("amazon-pay-ipn/<environment>/<merchant id>"),
            "type": { "type": "string", "const": kind.as_str() },
            "subject": text("The charge permission id; `account` for what concerns no permission"),
            "time": { "type": "string", "format": "date-time", "description": "When it was decided" },
            "datacontenttype": { "type": "string", "const": "application/json" },
        },
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype"],
    })
}

fn event(kind: EventType) -> Value {
    let mut payload = data_schema(kind);
    // In one piece with the document, which says itself what its schemas are.
    if let Some(payload) = payload.as_object_mut() {
        payload.retain(|key, _| key != "$schema" && key != "$id");
    }
    json!({
        "name": kind.as_str(),
        "title": kind.means(),
        "contentType": "application/json",
        "headers": attributes(kind),
        "payload": payload,
    })
}

/// Always there.
const ALWAYS: bool = true;
/// Where there is something to say.
const SOMETIMES: bool = false;

const JOURNAL: [(&str, bool); 9] = [
    ("message_id", ALWAYS),
    ("topic_arn", ALWAYS),
    ("published_at", ALWAYS),
    ("object_type", SOMETIMES),
    ("object_id", SOMETIMES),
    ("charge_permission_id", SOMETIMES),
    ("notification_type", SOMETIMES),
    ("notification_id", SOMETIMES),
    ("body", ALWAYS),
];

const QUARANTINE: [(&str, bool); 8] = [
    ("reason", ALWAYS),
    ("message_id", SOMETIMES),
    ("topic_arn", SOMETIMES),
    ("published_at", SOMETIMES),
    ("body", SOMETIMES),
    ("charge_permission_id", SOMETIMES),
    ("hint", SOMETIMES),
    ("note", SOMETIMES),
];

/// An entry whose fields are all there is.
fn entry(title: &str, fields: &[(&str, bool)]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, _)| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    let required: Vec<&str> = fields.iter().filter(|(_, always)| *always).map(|(name, _)| *name).collect();
    json!({
        "title": title,
        "payload": { "type": "object", "properties": properties, "required": required },
    })
}

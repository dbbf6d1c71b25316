//! What the service really sends, against the contracts in `docs/api/`. Every answer of the internal API and every event of every story
//! comes by here.

use std::collections::HashMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// By method and path as documented, status and media type.
type Answers = HashMap<(String, String, u16, String), Validator>;

static INTERNAL: LazyLock<Value> = LazyLock::new(|| document("openapi-internal.json"));
static PUBLIC: LazyLock<Value> = LazyLock::new(|| document("openapi-public.json"));
static ANSWERS: LazyLock<Answers> = LazyLock::new(answers);
static EVENTS: LazyLock<HashMap<String, (Validator, Validator)>> = LazyLock::new(events);

pub fn document(name: &str) -> Value {
    let path = format!("{}/docs/api/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a document")).expect("JSON")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).expect("a schema")
}

/// The methods and paths of the internal API.
pub fn operations() -> Vec<(String, String)> {
    let paths = INTERNAL["paths"].as_object().expect("paths");
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an item").keys();
        methods.map(move |method| (method.clone(), path.clone()))
    });
    each.collect()
}

fn answers() -> Answers {
    let mut answers = Answers::new();
    for (method, path) in operations() {
        let responses = INTERNAL["paths"][&path][&method]["responses"].as_object().expect("responses");
        for (status, response) in responses {
            for (kind, content) in response["content"].as_object().into_iter().flatten() {
                // References are to the whole document; no field may be there that it does not name.
                let schema = json!({
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "components": INTERNAL["components"],
                    "allOf": [content["schema"]],
                    "unevaluatedProperties": false,
                });
                let key = (method.clone(), path.clone(), status.parse().expect("a status"), kind.clone());
                answers.insert(key, validator(&schema));
            }
        }
    }
    answers
}

fn events() -> HashMap<String, (Validator, Validator)> {
    let messages = document("asyncapi.json")["components"]["messages"].clone();
    let messages = messages.as_object().expect("messages").iter();
    let events = messages.filter(|(name, _)| name.starts_with("amazonpay."));
    events
        .map(|(name, message)| (name.clone(), (validator(&message["headers"]), validator(&message["payload"]))))
        .collect()
}

fn is_path(documented: &str, path: &str) -> bool {
    let (documented, path): (Vec<&str>, Vec<&str>) = (documented.split('/').collect(), path.split('/').collect());
    documented.len() == path.len() && documented.iter().zip(path).all(|(one, other)| *one == "{id}" || *one == other)
}

/// Whether the internal API may answer so.
pub fn answered(method: &str, path: &str, status: u16, kind: &str, body: &Value) -> Result<(), String> {
    let what = format!("{method} {path} was answered {status} with {kind:?} {body}");
    let of_path: Vec<(String, String)> = operations().into_iter().filter(|(_, known)| is_path(known, path)).collect();
    let Some((_, documented)) = of_path.iter().find(|(known, _)| known == method) else {
        let expected = if of_path.is_empty() { 404 } else { 405 };
        return if status == expected { Ok(()) } else { Err(format!("{what}, which is not documented")) };
    };
    // The answer of a request that took too long.
    if status == 503 && *body == "" {
        return Ok(());
    }
    let key = (method.to_owned(), documented.clone(), status, kind.to_owned());
    let Some(validator) = ANSWERS.get(&key) else { return Err(format!("{what}, which is not documented")) };
    valid(validator, body).map_err(|wrong| format!("{what}: {wrong}"))
}

/// Whether the public listener may answer so.
pub fn is_public_status(status: u16) -> bool {
    PUBLIC["paths"]["/ipn"]["post"]["responses"].get(status.to_string()).is_some()
}

/// Whether an event may look so.
pub fn told(event: &HashMap<String, String>) -> Result<(), String> {
    let Some((attributes, data)) = event.get("type").and_then(|kind| EVENTS.get(kind)) else {
        return Err(format!("{event:?} is of no documented type"));
    };
    let mut fields = event.clone();
    let text = fields.remove("data").unwrap_or_default();
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{event:?}: {error}"))?;
    valid(attributes, &json!(fields)).and_then(|()| valid(data, &value)).map_err(|wrong| format!("{event:?}: {wrong}"))
}

fn valid(validator: &Validator, value: &Value) -> Result<(), String> {
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{error} at {:?}", error.instance_path().to_string()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

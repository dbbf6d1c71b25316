//! Reads the JSON body of a request of the internal API. Every wrong field is named, not only the first.

use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::FieldError;

/// Of all that is wrong so much is said.
const MAX_ERRORS: usize = 20;
/// Of a name that is not ours so much is shown.
const MAX_NAME_CHARS: usize = 80;
/// A message may quote what it found.
const MAX_MESSAGE_CHARS: usize = 500;

/// Reads one JSON object.
///
/// # Errors
/// Each field that is missing, unknown or of another type than expected.
pub(super) fn parse<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T, Vec<FieldError>> {
    // An array would be read as the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(vec![wrong("", "expected one JSON object")]);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let body = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let first = found(&error);
        let all = serde_json::from_slice(bytes).map(|body| all_wrong::<T>(&body)).unwrap_or_default();
        // What no part of it shows by itself, such as a field that is there twice.
        if all.is_empty() { vec![first] } else { all }
    })?;
    if deserializer.end().is_err() {
        return Err(vec![wrong("", "expected one JSON object and nothing after it")]);
    }
    Ok(body)
}

fn wrong(field: &str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), message: message.to_owned() }
}

/// Looks at each field by itself, and at each part of those that have parts: whoever reads an object as a whole stops at the first.
fn all_wrong<T: DeserializeOwned + JsonSchema>(body: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = required::<T>()
        .filter(|name| !body.contains_key(name))
        .map(|name| wrong(&name, "expected, and it is missing"))
        .collect();
    for (name, value) in body {
        if errors.len() >= MAX_ERRORS {
            break;
        }
        let known = errors.len();
        for (part, inner) in value.as_object().into_iter().flatten().take(MAX_ERRORS) {
            let alone = Value::Object([(part.clone(), inner.clone())].into_iter().collect());
            errors.extend(wrong_in::<T>(name, &alone, &format!("{name}.{part}")));
        }
        if errors.len() == known {
            errors.extend(wrong_in::<T>(name, value, name));
        }
    }
    errors.truncate(MAX_ERRORS);
    errors
}

/// The names that an object of this type must have.
fn required<T: JsonSchema>() -> impl Iterator<Item = String> {
    let schema = schema_for!(T).to_value();
    let names = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    names.into_iter().filter_map(|name| name.as_str().map(str::to_owned))
}

/// What is wrong at `path` or below it, in an object that has only this field. What it says of other places is nothing: they were taken away.
fn wrong_in<T: DeserializeOwned>(name: &str, value: &Value, path: &str) -> Option<FieldError> {
    let alone = Value::Object([(name.to_owned(), value.clone())].into_iter().collect());
    let error = found(&serde_path_to_error::deserialize::<_, T>(alone).err()?);
    let path: String = path.chars().take(MAX_NAME_CHARS).collect();
    let below = error.field.strip_prefix(&path)?;
    (below.is_empty() || below.starts_with(['.', '['])).then_some(error)
}

/// serde reports an unknown or missing field at its parent; the name is in the message.
fn found(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let (path, message) = (error.path().to_string(), error.inner().to_string());
    let named = |start: &str| Some(message.strip_prefix(start)?.split_once('`')?.0);
    let (unknown, missing) = (named("unknown field `"), named("missing field `"));
    let field = match (path.as_str(), unknown.or(missing)) {
        (".", name) => name.unwrap_or_default().to_owned(),
        (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    };
    let message = match (unknown, missing) {
        (Some(name), _) => message.replacen(name, &name.chars().take(MAX_NAME_CHARS).collect::<String>(), 1),
        (_, Some(_)) => "expected, and it is missing".to_owned(),
        _ => message,
    };
    let shown = |text: &str, most: usize| text.chars().take(most).collect();
    FieldError { field: shown(&field, MAX_NAME_CHARS), message: shown(&message, MAX_MESSAGE_CHARS) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct Body {
        some_id: String,
        amount: Amount,
        #[serde(default)]
        now: bool,
        count: Option<u32>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct Amount {
        value: String,
        code: String,
    }

    fn wrong_fields(text: &str) -> Vec<String> {
        match parse::<Body>(text.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.field).collect(),
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        assert!(wrong_fields(r#"{"someId":"a","amount":{"value":"1","code":"x"}}"#).is_empty());
        let all = r#"{"now":"yes","count":-1,"nope":1,"amount":{"value":1,"code":2,"more":3}}"#;
        let mut found = wrong_fields(all);
        found.sort();
        assert_eq!(found, ["amount.code", "amount.more", "amount.value", "count", "nope", "now", "someId"]);
        assert_eq!(wrong_fields(r#"{"amount":{"value":"1"}}"#), ["someId", "amount.code"]);
        assert_eq!(wrong_fields(r#"{"someId":"a","amount":"14.00"}"#), ["amount"]);
        assert_eq!(wrong_fields("{}"), ["someId", "amount"]);
    }

    #[test]
    fn each_message_says_what_was_expected() {
        let errors = parse::<Body>(br#"{"now":"yes","nope":1,"amount":{}}"#).unwrap_err();
        let said = |field: &str| errors.iter().find(|error| error.field == field).unwrap().message.as_str();
        assert_eq!(said("now"), "invalid type: string \"yes\", expected a boolean");
        assert!(said("nope").starts_with("unknown field `nope`, expected one of `someId`"), "{}", said("nope"));
        assert_eq!(said("amount.value"), "expected, and it is missing");
    }

    #[test]
    fn what_is_no_object_or_said_twice_is_refused() {
        for text in ["", "[]", "[\"a\"]", "1", "{", "{\"now\":", "{} {}"] {
            assert!(!wrong_fields(text).is_empty(), "{text}");
        }
        let twice = r#"{"someId":"a","someId":"b","amount":{"value":"1","code":"x"}}"#;
        let errors = parse::<Body>(twice.as_bytes()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].message.starts_with("duplicate field `someId`"), "{errors:?}");
    }

    #[test]
    fn however_much_is_wrong_the_answer_is_short() {
        let many: Vec<String> = (0..5_000).map(|number| format!("\"{number}\":1")).collect();
        assert_eq!(wrong_fields(&format!("{{{}}}", many.join(","))).len(), MAX_ERRORS);
        let long = "x".repeat(60_000);
        for part in ["{\"LONG\":1}", "{\"amount\":{\"LONG\":1}}", "{\"now\":\"LONG\"}"] {
            let body = part.replace("LONG", &long);
            let errors = parse::<Body>(body.as_bytes()).unwrap_err();
            let length: usize = errors.iter().map(|error| error.field.len() + error.message.len()).sum();
            assert!(length < 1_000, "{errors:?}");
        }
    }
}

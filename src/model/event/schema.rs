//! The contract of the events for machines: a JSON Schema for the data of each, and an AsyncAPI document for the streams.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use std::fmt;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::EventType;
use super::data::{ForData, for_data_of};

/// Why data is not what its event promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A field is missing or of another kind.
    #[error("the data of {kind} cannot be read: {why}")]
    Unreadable {
        /// The event.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It has fields that are not declared, or says `null` where a field is left out.
    #[error("the data of {kind} is declared as {declared}")]
    Undeclared {
        /// The event.
        kind: &'static str,
        /// What is left of it.
        declared: String,
    },
}

struct Read<'a>(EventType, &'a Value);

impl ForData for Read<'_> {
    type Done = Result<(), Broken>;

    fn with<T: Serialize + DeserializeOwned + JsonSchema>(self) -> Self::Done {
        let Self(event, data) = self;
        let kind = event.as_str();
        let unreadable = |error: &dyn fmt::Display| Broken::Unreadable { kind, why: format!("{error}: {data}") };
        let read: T = T::deserialize(data).map_err(|error| unreadable(&error))?;
        let again = serde_json::to_value(&read).map_err(|error| unreadable(&error))?;
        if again == *data { Ok(()) } else { Err(Broken::Undeclared { kind, declared: format!("{again}, not {data}") }) }
    }
}

/// Checks that data has the fields that its event promises, and no others.
///
/// # Errors
/// Says what is wrong.
pub fn check(kind: EventType, data: &Value) -> Result<(), Broken> {
    for_data_of(kind, Read(kind, data))
}

/// As [`check`], once for each shape (kind, names and kinds of fields): properties make millions of events that differ in values only.
///
/// # Errors
/// Says what is wrong.
pub fn check_shape(kind: EventType, data: &Value) -> Result<(), Broken> {
    thread_local! {
        static KNOWN: RefCell<HashSet<u64>> = RefCell::default();
    }
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    shape(data, &mut hasher);
    let shape = hasher.finish();
    if KNOWN.with_borrow(|known| known.contains(&shape)) {
        return Ok(());
    }
    check(kind, data)?;
    KNOWN.with_borrow_mut(|known| known.insert(shape));
    Ok(())
}

fn shape(value: &Value, hasher: &mut impl Hasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                name.hash(hasher);
                shape(field, hasher);
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| shape(part, hasher)),
        _ => {}
    }
}

struct Describe;

impl ForData for Describe {
    type Done = Value;

    fn with<T: Serialize + DeserializeOwned + JsonSchema>(self) -> Value {
        // What is written, not what would be read: a field that is always there is required. In one piece, for readers that follow no
        // references; draft 7, because AsyncAPI has no other.
        let settings = SchemaSettings::draft07().for_serialize().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        never_null_where_left_out(&mut schema);
        schema
    }
}

/// The JSON Schema (draft 7) of an event's data. It lets fields through that it does not know, as consumers must.
#[must_use]
pub fn data_schema(kind: EventType) -> Value {
    let described = for_data_of(kind, Describe);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), described["$schema"].clone());
    schema.insert("$id".to_owned(), json!(format!("urn:amazon-pay-ipn:event:{}", kind.as_str())));
    schema.insert("title".to_owned(), json!(kind.as_str()));
    let rest =
        described.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "$schema" | "title"));
    schema.extend(rest.map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(schema)
}

/// An optional field is left out, never `null`: only one that is always there may be.
pub fn never_null_where_left_out(schema: &mut Value) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(never_null_where_left_out),
        Value::Object(object) => {
            object.values_mut().for_each(never_null_where_left_out);
            let required: Vec<String> = object
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
            for (_, property) in properties.iter_mut().filter(|(name, _)| !required.contains(name)) {
                without_null(property);
            }
        }
        _ => {}
    }
}

fn without_null(property: &mut Value) {
    let Some(property) = property.as_object_mut() else { return };
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            property.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = property.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(any)) = property.get_mut("anyOf") {
        any.retain(|one| one["type"] != "null");
        if let [Value::Object(only)] = any.as_slice() {
            let only = only.clone();
            property.remove("anyOf");
            // What is said of the field goes before what is said of its type.
            for (key, value) in only {
                property.entry(key).or_insert(value);
            }
        }
    }
}

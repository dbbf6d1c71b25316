//! OpenAPI 3.1 documents of both listeners. The routers are built from the same tables, and the schemas are those of the types that the
//! handlers read and write.

use std::collections::BTreeMap;

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::ProblemBody;
use crate::model::event::schema::never_null_where_left_out;

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// One method of one path: what answers it, and what is said about it.
pub(super) struct Route<S> {
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<S>,
    method: &'static str,
    operation: Operation,
}

/// What is said about an operation.
pub(super) struct Operation {
    id: &'static str,
    summary: &'static str,
    /// The body, and whether it may be left out.
    body: Option<(Content, bool)>,
    /// The schema of the `{id}` in the path.
    path_id: Option<SchemaOf>,
    /// An object whose fields are the parameters of the query.
    query: Option<SchemaOf>,
    headers: &'static [(&'static str, &'static str)],
    answers: BTreeMap<u16, (&'static str, Vec<Content>)>,
}

/// A body: its media types, and its schema.
#[derive(Clone)]
struct Content {
    kinds: &'static [&'static str],
    schema: ContentSchema,
}

#[derive(Clone)]
enum ContentSchema {
    Of(SchemaOf),
    Given(Value),
}

fn of<T: JsonSchema>() -> SchemaOf {
    |generator| generator.subschema_for::<T>()
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    pub(super) fn get<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self { path, handler: routing::get(handler), method: "get", operation }
    }

    pub(super) fn post<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self { path, handler: routing::post(handler), method: "post", operation }
    }

    pub(super) fn delete<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self { path, handler: routing::delete(handler), method: "delete", operation }
    }

    /// Problem details that are the same for many.
    pub(super) fn refuses(self, status: u16, when: &'static str) -> Self {
        Self { operation: self.operation.refuses(status, when), ..self }
    }
}

impl Operation {
    pub(super) fn new(id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, body: None, path_id: None, query: None, headers: &[], answers: BTreeMap::new() }
    }

    /// Takes a body of JSON.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some((Content { kinds: &[JSON], schema: ContentSchema::Of(of::<T>()) }, true)), ..self }
    }

    /// Takes a body of JSON, or none.
    pub(super) fn may_take<T: JsonSchema>(self) -> Self {
        Self { body: Some((Content { kinds: &[JSON], schema: ContentSchema::Of(of::<T>()) }, false)), ..self }
    }

    /// Takes a body with this schema.
    pub(super) fn takes_given(self, kinds: &'static [&'static str], schema: Value) -> Self {
        Self { body: Some((Content { kinds, schema: ContentSchema::Given(schema) }, true)), ..self }
    }

    /// The `{id}` in its path.
    pub(super) fn of_id<T: JsonSchema>(self) -> Self {
        Self { path_id: Some(of::<T>()), ..self }
    }

    /// The fields of `T` are the parameters of its query.
    pub(super) fn asks<T: JsonSchema>(self) -> Self {
        Self { query: Some(of::<T>()), ..self }
    }

    /// Headers that it looks at, with what they say.
    pub(super) fn looks_at(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    /// Answers with JSON.
    pub(super) fn answers<T: JsonSchema>(self, status: u16, when: &'static str) -> Self {
        self.answer(status, when, Content { kinds: &[JSON], schema: ContentSchema::Of(of::<T>()) })
    }

    /// Answers with text.
    pub(super) fn answers_text(self, status: u16, when: &'static str) -> Self {
        let schema = ContentSchema::Given(json!({ "type": "string" }));
        self.answer(status, when, Content { kinds: &["text/plain"], schema })
    }

    /// Answers with problem details.
    pub(super) fn refuses(self, status: u16, when: &'static str) -> Self {
        self.answer(status, when, Content { kinds: &[PROBLEM], schema: ContentSchema::Of(of::<ProblemBody>()) })
    }

    /// The last word on a status counts; bodies of other kinds are kept beside it.
    fn answer(mut self, status: u16, when: &'static str, content: Content) -> Self {
        let (said, contents) = self.answers.entry(status).or_default();
        *said = when;
        if !contents.iter().any(|known| known.kinds == content.kinds) {
            contents.push(content);
        }
        self
    }
}

/// Collects schemas: what is read and what is written may look different, so each has a generator.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
        }
    }

    fn content(content: &Content, generator: &mut SchemaGenerator) -> Value {
        let schema = match &content.schema {
            ContentSchema::Of(of) => of(generator).to_value(),
            ContentSchema::Given(schema) => schema.clone(),
        };
        content.kinds.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect::<Map<_, _>>().into()
    }

    /// The parameters of a query, from the fields of an object.
    fn query(of: SchemaOf) -> Vec<Value> {
        let mut inline = SchemaSettings::draft2020_12()
            .for_deserialize()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator();
        let mut schema = of(&mut inline).to_value();
        never_null_where_left_out(&mut schema);
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let parameter = |(name, mut schema): (String, Value)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({ "name": name, "in": "query", "required": false, "description": description.unwrap_or_default(), "schema": schema })
        };
        properties.into_iter().map(parameter).collect()
    }

    fn operation(&mut self, operation: &Operation) -> Value {
        let mut parameters = Vec::new();
        if let Some(of) = operation.path_id {
            parameters.push(json!({ "name": "id", "in": "path", "required": true, "schema": of(&mut self.read) }));
        }
        parameters.extend(operation.query.into_iter().flat_map(Self::query));
        parameters.extend(operation.headers.iter().map(|(name, says)| {
            json!({ "name": name, "in": "header", "required": false, "description": says, "schema": { "type": "string" } })
        }));
        let mut said = json!({ "operationId": operation.id, "summary": operation.summary });
        if !parameters.is_empty() {
            said["parameters"] = json!(parameters);
        }
        if let Some((content, required)) = &operation.body {
            said["requestBody"] = json!({ "required": required, "content": Self::content(content, &mut self.read) });
        }
        let mut responses = Map::new();
        for (status, (when, contents)) in &operation.answers {
            let contents = contents.iter().flat_map(|content| match Self::content(content, &mut self.written) {
                Value::Object(content) => content,
                _ => Map::new(),
            });
            let answer = json!({ "description": when, "content": contents.collect::<Map<_, _>>() });
            responses.insert(status.to_string(), answer);
        }
        said["responses"] = responses.into();
        said
    }

    fn components(&mut self) -> Map<String, Value> {
        let mut written: Map<String, Value> = self.written.take_definitions(true);
        written.values_mut().for_each(never_null_where_left_out);
        for (name, schema) in self.read.take_definitions(true) {
            let other = written.insert(name.clone(), schema.clone());
            debug_assert!(
                other.is_none_or(|other| other == schema),
                "{name} is read and written in different ways: give one of them another name"
            );
        }
        written
    }
}

/// A document of these routes. Those of `behind_a_token` have the prefix `/v1` and need the bearer token.
pub(super) fn document<S>(
    title: &str,
    description: &str,
    version: &str,
    open: &[Route<S>],
    behind_a_token: &[Route<S>],
) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    let with_prefix = behind_a_token.iter().map(|route| (format!("/v1{}", route.path), route, true));
    for (path, route, token) in open.iter().map(|route| (route.path.to_owned(), route, false)).chain(with_prefix) {
        let mut operation = schemas.operation(&route.operation);
        operation["security"] = if token { json!([{ "token": [] }]) } else { json!([]) };
        paths.entry(path).or_insert_with(|| json!({}))[route.method] = operation;
    }
    let mut components = json!({ "schemas": schemas.components() });
    if !behind_a_token.is_empty() {
        let token = "The content of INTERNAL_API_TOKEN_FILE";
        components["securitySchemes"] =
            json!({ "token": { "type": "http", "scheme": "bearer", "description": token } });
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version, "description": description, "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

//! The CustomResourceDefinition: what it accepts, refuses and teaches. The same table of cases runs offline and, where
//! `TOKENWARD_KUBECONFIG` names a cluster, against its API server.

// Helpers of tests stop the test where they stand, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/crd_cases.rs"]
mod crd_cases;
#[path = "support/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, Resource as _};
use serde_json::{Value, json};
use tokenward::api::meaning::{self, Allowed, Key, Name};
use tokenward::api::{ApiToken, Reason, crds, crds_allowing};
use tokenward::domain::delivery::check_meaning;
use tokenward::domain::schedule::{Expiry, Rotation};

use crd_cases::Case;

fn crd() -> CustomResourceDefinition {
    crds().into_iter().find(|crd| crd.spec.names.kind == "ApiToken").unwrap()
}

/// The schema as it is installed.
fn installed_schema() -> Value {
    serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn the_schema_accepts_and_refuses_what_the_table_says() {
    let schema = installed_schema();
    let mut wrong = Vec::new();
    for case in crd_cases::all() {
        let (object, old) = case.objects();
        let found = schema::violations(&schema, &object, old.as_ref());
        let messages: Vec<_> = found.iter().map(|violation| violation.message.as_str()).collect();
        wrong.extend(complaint(&case, &messages.join("\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong if the API answered with this; an empty answer is acceptance.
fn complaint(case: &Case, answer: &str) -> Option<String> {
    match &case.reject {
        None => (!answer.is_empty()).then(|| format!("{}: refused: {answer}", case.name)),
        Some(_) if answer.is_empty() => Some(format!("{}: accepted", case.name)),
        Some(part) => {
            (!answer.contains(part.as_str())).then(|| format!("{}: no {part:?} in: {answer}", case.name))
        }
    }
}

#[test]
fn every_rule_and_bound_of_the_spec_refuses_something() {
    let schema = installed_schema();
    let mut untested = BTreeSet::new();
    schema::bounds(&schema["properties"]["spec"], "spec", &mut untested);
    for rule in schema["x-kubernetes-validations"].as_array().unwrap() {
        untested.insert(format!(" rule: {}", rule["rule"].as_str().unwrap()));
    }
    assert!(untested.len() > 60, "the bounds are read from the schema: {untested:#?}");
    for case in crd_cases::all() {
        let (object, old) = case.objects();
        for violation in schema::violations(&schema, &object, old.as_ref()) {
            untested.remove(&violation.bound);
        }
    }
    assert!(untested.is_empty(), "no case is refused by: {untested:#?}");
}

#[test]
fn the_controller_understands_whatever_is_accepted() {
    let created: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    for case in crd_cases::all().iter().filter(|case| case.reject.is_none()) {
        // As it is stored: nulls are dropped.
        let token: ApiToken = serde_json::from_value(case.objects().0)
            .unwrap_or_else(|error| panic!("{}: stored, and then understood by nobody: {error}", case.name));
        let rotation = Rotation::parse(token.spec.rotation.as_ref());
        let due = rotation.and_then(|rotation| rotation.due("uid", "id", created)).err();
        let expiry = Expiry::parse(token.spec.expiry.as_ref(), created).err();
        let reason = due
            .map(|_| Reason::RotationInvalid)
            .or_else(|| expiry.map(|_| Reason::ExpiryInvalid))
            .map(|reason| reason.as_str().to_owned());
        assert_eq!(reason, case.stalled, "{}", case.name);
    }
}

/// Every row of the tables, in the definition as in the operator: neither knows more than the other.
#[test]
fn the_definition_and_the_operator_refuse_the_same_meanings() {
    let installed = |allowed: &Allowed| {
        let crd = crds_allowing(allowed).into_iter().find(|crd| crd.spec.names.kind == "ApiToken").unwrap();
        serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    };
    let agree = |schema: &Value, allowed: &Allowed, secret: Value, refused: bool| {
        let object = json!({"metadata": {"name": "case"}, "spec": {"secret": secret}});
        let found = schema::violations(schema, &object, None);
        assert_eq!(!found.is_empty(), refused, "{object}");
        let token: ApiToken =
            serde_json::from_value(json!({"apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
                "metadata": object["metadata"], "spec": object["spec"]}))
            .unwrap();
        assert_eq!(check_meaning(&token, allowed).is_err(), refused, "{object}");
    };
    let nothing = Allowed::default();
    let schema = installed(&nothing);
    let mut all = Allowed { types: vec!["kubernetes.io/tls".into()], ..Allowed::default() };
    let mut asked = vec![json!({"type": "kubernetes.io/tls"})];
    for row in meaning::KEYS {
        let (key, value) = match row.what {
            Key::Domain(domain) => (format!("a.{domain}/some-key"), "x"),
            Key::Begin(begin) => (format!("{begin}x"), "x"),
            Key::With(key, value) => (key.to_owned(), value),
        };
        asked.extend(["labels", "annotations"].map(|field| json!({field: {key.clone(): value}})));
        all.keys.push(key);
    }
    for row in meaning::NAMES {
        let name = match row.what {
            Name::Is(name) => name.to_owned(),
            Name::Begin(begin) => format!("{begin}x"),
            Name::End(end) => format!("x{end}"),
        };
        asked.push(json!({"name": name.clone()}));
        all.names.push(name);
    }
    let allowing = installed(&all);
    for secret in asked {
        agree(&schema, &nothing, secret.clone(), true);
        agree(&allowing, &all, secret, false);
    }
    for never in meaning::NEVER_TYPES {
        let all = Allowed { types: vec![(*never).to_owned()], ..Allowed::default() };
        agree(&installed(&all), &all, json!({"type": never}), true);
    }
    // What the rules say where an installation adds its own is nothing that could be asked for.
    for secret in [
        json!({"type": meaning::MORE_TYPES}),
        json!({"name": meaning::MORE_NAMES}),
        json!({"labels": {meaning::MORE_KEYS: "x"}}),
    ] {
        let object = json!({"metadata": {"name": "case"}, "spec": {"secret": secret}});
        assert!(!schema::violations(&schema, &object, None).is_empty(), "{object}");
    }
}

#[test]
fn every_field_says_what_it_is_for() {
    fn check(path: &str, schema: &Value) {
        for (path, schema) in schema::children(schema, path) {
            let described = schema["description"].as_str().is_some_and(|text| text.len() > 10);
            // Entries are described by their list or map.
            assert!(described || path.ends_with(']') || path.ends_with('}'), "{path} has no description");
            check(&path, schema);
        }
    }
    let schema = installed_schema();
    check("", &schema);
    assert!(schema["description"].as_str().unwrap().len() > 10);
}

#[test]
fn everything_a_user_can_write_is_bounded() {
    fn check(path: &str, schema: &Value) {
        let bounded = |bound: &str| schema[bound].as_u64().is_some();
        let fine = match schema["type"].as_str() {
            Some("string") => {
                bounded("maxLength") || schema["format"] == "date-time" || schema.get("enum").is_some()
            }
            Some("array") => bounded("maxItems"),
            Some("object") => bounded("maxProperties") || schema.get("additionalProperties").is_none(),
            Some("boolean" | "integer") => true,
            _ => false,
        };
        assert!(fine, "{path} is not bounded: {schema}");
        schema::children(schema, path).iter().for_each(|(path, schema)| check(path, schema));
    }
    check("spec", &installed_schema()["properties"]["spec"]);
}

#[test]
fn kubectl_shows_what_matters() {
    let columns = crd().spec.versions[0].additional_printer_columns.clone().unwrap();
    let names = |wide: bool| {
        let shown = columns.iter().filter(|column| (column.priority.unwrap_or(0) > 0) == wide);
        shown.map(|column| column.name.to_uppercase()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["READY", "HEALTH", "OWNER", "LAST USED", "NEXT ROTATION", "EXPIRES", "AGE"]);
    assert_eq!(names(true), ["SECRET", "CREDENTIAL", "REQUESTS", "DELIVERED", "REASON"]);
    let schema = installed_schema();
    for column in &columns {
        // Every column leads to a field that exists: `.status.conditions[?(…)].status` to conditions, then status.
        let mut path = column.json_path.as_str();
        let mut at = &schema;
        while let Some((name, rest)) = path.trim_start_matches('.').split_once(['.', '[']).or_else(|| {
            let last = path.trim_start_matches('.');
            (!last.is_empty()).then_some((last, ""))
        }) {
            if name == "metadata" {
                break;
            }
            at = &at["properties"][name];
            assert!(at.is_object(), "{}: no {name}", column.json_path);
            path = rest;
            if let Some((_, rest)) = path.strip_prefix('?').and_then(|filter| filter.split_once(']')) {
                at = &at["items"];
                path = rest;
            }
        }
    }
}

#[test]
fn names_and_categories() {
    let names = crd().spec.names;
    assert_eq!((names.kind.as_str(), names.plural.as_str()), ("ApiToken", "apitokens"));
    assert_eq!(names.short_names.unwrap(), ["apitok"]);
    assert_eq!(names.categories.unwrap(), ["tokenward"]);
    assert!(crd().spec.versions[0].subresources.as_ref().unwrap().status.is_some());
}

// ---- The API server -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_api_server_agrees_with_the_table() {
    let Ok(path) = std::env::var("TOKENWARD_KUBECONFIG") else {
        println!("skipped: TOKENWARD_KUBECONFIG names no cluster");
        return;
    };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    install(&client).await;

    let millis = Timestamp::now().as_millisecond();
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": format!("crd-cases-{millis}")}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let name = namespace.meta().name.as_deref().unwrap();
    let tokens = Api::namespaced_with(client, name, &ApiResource::erase::<ApiToken>(&()));

    let mut wrong = Vec::new();
    let cases = crd_cases::all();
    // A definition that was just changed takes a moment to be the one that is enforced.
    let patience = Instant::now() + Duration::from_secs(10);
    for case in &cases {
        let mut complaint = complaint(case, &answer(&tokens, case).await);
        while complaint.is_some() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(250)).await;
            complaint = self::complaint(case, &answer(&tokens, case).await);
        }
        wrong.extend(complaint);
    }
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} cases agree", cases.len());
}

/// Applies the definition as an installation does: one that the API server refuses, or finds too costly, fails here.
async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let params = PatchParams::apply("tokenward-tests").force();
    let crd = crd();
    let name = crd.metadata.name.clone().unwrap();
    api.patch(&name, &params, &Patch::Apply(&crd)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let conditions = api.get(&name).await.unwrap().status.and_then(|status| status.conditions);
        let is = |kind: &str| {
            conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
        };
        assert!(!is("NonStructuralSchema"), "{conditions:?}");
        if is("Established") {
            return;
        }
        assert!(Instant::now() < deadline, "not established: {conditions:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the API server says to the case; empty if it accepts.
async fn answer(tokens: &Api<DynamicObject>, case: &Case) -> String {
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    let (object, old) = case.objects();
    let status = case.status.is_some();
    let parsed = |value: Value| serde_json::from_value::<DynamicObject>(value).unwrap();
    let mut object = parsed(object);
    let name = object.metadata.name.clone().unwrap();
    let first = old.map(parsed).or_else(|| status.then(|| object.clone()));
    let result = match first {
        None => tokens.create(&dry_run, &object).await,
        Some(first) => {
            let first = tokens.create(&PostParams::default(), &first).await.unwrap();
            object.metadata = first.metadata;
            let result = match status {
                true => tokens.replace_status(&name, &dry_run, &object).await,
                false => tokens.replace(&name, &dry_run, &object).await,
            };
            tokens.delete(&name, &DeleteParams::default()).await.unwrap();
            result
        }
    };
    match result {
        Ok(_) => String::new(),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => panic!("{}: {error}", case.name),
    }
}

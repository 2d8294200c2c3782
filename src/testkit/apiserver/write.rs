//! Create, replace, patch and apply: one road from a request to a stored object.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::managers::{ManagerId, Managers, Operation};
use super::request::{Call, PatchKind};
use super::resource::ResourceType;
use super::shape;
use super::status::{ApiError, Cause};
use super::store::{State, Stored, key};

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Arc<Value>,
}

impl Answer {
    pub(super) fn ok(body: Arc<Value>) -> Self {
        Self { code: 200, body }
    }
}

/// A request on its way through a table.
pub(super) struct Target<'a> {
    pub(super) call: &'a Call,
    pub(super) table: usize,
    pub(super) res: Arc<ResourceType>,
    /// Whether the status subresource is addressed.
    pub(super) status: bool,
}

impl Target<'_> {
    pub(super) fn name(&self) -> &str {
        self.call.info.name.as_deref().unwrap_or_default()
    }

    pub(super) fn key(&self) -> String {
        key(self.call.info.namespace.as_deref(), self.name())
    }

    fn manager(&self, operation: Operation) -> ManagerId {
        ManagerId {
            name: self.call.params.field_manager.clone().unwrap_or_else(|| "unknown".into()),
            operation,
            subresource: self.call.info.subresource.clone(),
        }
    }
}

/// How ownership follows from a write.
enum Owners {
    /// By comparison with what was there.
    Compare,
    /// Already settled by an apply.
    Settled(Managers),
}

/// What the server alone decides.
const SYSTEM: [&str; 6] =
    ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"];

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    let whole = match object {
        Value::Object(map) => map,
        other => {
            *other = json!({});
            other.as_object_mut().expect("just made an object")
        }
    };
    let metadata = whole.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("just made an object")
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn set_or_clear(map: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => map.insert(field.into(), value.clone()),
        None => map.remove(field),
    };
}

/// Drops what typed metadata would not carry.
fn tidy(object: &mut Value) {
    let metadata = metadata(object);
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
}

impl State {
    /// POST.
    pub(super) fn create(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let mut object = target.call.body.clone();
        self.check_identity(target, &object, true)?;
        if !text(&object, "resourceVersion").is_empty() {
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        if text(&object, "name").is_empty() {
            let prefix = text(&object, "generateName").to_owned();
            if prefix.is_empty() {
                let cause = Cause::required("metadata.name", "name or generateName is required");
                return Err(ApiError::invalid(&target.res, "", &[cause]));
            }
            const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
            let mut bits = self.mint();
            let mut name = prefix;
            for _ in 0..5 {
                name.push(char::from(ALPHABET[(bits % ALPHABET.len() as u64) as usize]));
                bits /= ALPHABET.len() as u64;
            }
            metadata(&mut object).insert("name".into(), name.into());
        }
        self.insert(target, object, Owners::Compare)
    }

    /// The body must be about the object in the URL.
    fn check_identity(&self, target: &Target<'_>, object: &Value, creating: bool) -> Result<(), ApiError> {
        let res = &target.res;
        for (field, want) in [("apiVersion", res.api_version()), ("kind", res.kind.clone())] {
            if let Some(have) = object.get(field).and_then(Value::as_str)
                && have != want
            {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the data ({have}) does not match the expected {field} ({want})"
                )));
            }
        }
        let namespace = text(object, "namespace");
        if let Some(want) = &target.call.info.namespace
            && !namespace.is_empty()
            && namespace != want
        {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let name = text(object, "name");
        if !creating && !name.is_empty() && name != target.name() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name()
            )));
        }
        Ok(())
    }

    /// Stores a new object.
    fn insert(&mut self, target: &Target<'_>, mut object: Value, owners: Owners) -> Result<Answer, ApiError> {
        let (res, table) = (target.res.clone(), target.table);
        let name = text(&object, "name").to_owned();
        let namespace = target.call.info.namespace.clone();
        if res.namespaced {
            let ns = namespace
                .as_deref()
                .ok_or_else(|| ApiError::bad_request("an empty namespace may not be set during creation"))?;
            self.admit_namespace(&res, ns, &name)?;
        }
        object["apiVersion"] = res.api_version().into();
        object["kind"] = res.kind.as_str().into();
        if res.has_status {
            object.as_object_mut().map(|map| map.remove("status"));
        }
        let (uid, now) = (self.uid(), self.now());
        let meta = metadata(&mut object);
        for field in SYSTEM.iter().chain(&["resourceVersion", "managedFields"]) {
            meta.remove(*field);
        }
        meta.insert("uid".into(), uid.into());
        meta.insert("creationTimestamp".into(), now.as_str().into());
        if let Some(ns) = &namespace {
            meta.insert("namespace".into(), ns.as_str().into());
        }
        if res.generation {
            meta.insert("generation".into(), json!(1));
        }
        self.mutate(table, &mut object);
        prepare(&res, &mut object)?;
        tidy(&mut object);
        self.validate(table, &object, None)?;
        if let Some(ns) = &namespace {
            self.admit_quota(table, ns, &name)?;
        }
        let at = key(namespace.as_deref(), &name);
        if self.tables[table].objects.contains_key(&at) {
            return Err(ApiError::already_exists(&res, &name));
        }
        let managers = match owners {
            Owners::Settled(managers) => managers,
            Owners::Compare => {
                let mut managers = Managers::default();
                let (zero, sent) = (zero(&res), sent(&res, &object));
                managers.update(&res, Some(&zero), &sent, &target.manager(Operation::Update), &now);
                managers
            }
        };
        let body = if target.call.params.dry_run {
            Arc::new(dressed(&res, object, &managers))
        } else {
            self.put(table, &at, object, managers, &target.call.info.client)
        };
        Ok(Answer { code: 201, body })
    }

    fn existing(&self, target: &Target<'_>) -> Result<Stored, ApiError> {
        let found = self.tables[target.table].objects.get(&target.key()).cloned();
        found.ok_or_else(|| ApiError::not_found(&target.res, target.name()))
    }

    /// PUT.
    pub(super) fn replace(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let mut object = target.call.body.clone();
        self.check_identity(target, &object, false)?;
        let old = match self.existing(target) {
            Ok(old) => old,
            Err(_) if target.res.create_on_update && !target.status && text(&object, "uid").is_empty() => {
                metadata(&mut object).insert("name".into(), target.name().into());
                return self.insert(target, object, Owners::Compare);
            }
            Err(err) => return Err(err),
        };
        let uid = text(&object, "uid");
        if !uid.is_empty() && uid != old.meta("uid") {
            return Err(self.wrong_uid(target, uid, &old));
        }
        self.update(target, &old, object, Owners::Compare)
    }

    pub(super) fn wrong_uid(&self, target: &Target<'_>, uid: &str, old: &Stored) -> ApiError {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.meta("uid")
        );
        ApiError::conflict(&target.res, target.name(), &why)
    }

    /// PATCH.
    pub(super) fn patch(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        match target.call.patch {
            Some(PatchKind::Apply) => self.apply(target),
            Some(PatchKind::Merge) => {
                let old = self.existing(target)?;
                let mut object = old.bare();
                json_patch::merge(&mut object, &target.call.body);
                self.check_identity(target, &object, false)?;
                self.update(target, &old, object, Owners::Compare)
            }
            Some(PatchKind::Json) => {
                let old = self.existing(target)?;
                let mut object = old.bare();
                let patch: json_patch::Patch = serde_json::from_value(target.call.body.clone())
                    .map_err(|e| ApiError::bad_request(e.to_string()))?;
                json_patch::patch(&mut object, &patch).map_err(|e| {
                    ApiError::new(
                        422,
                        "Invalid",
                        format!("the server rejected our request due to an error in our request: {e}"),
                    )
                })?;
                self.check_identity(target, &object, false)?;
                self.update(target, &old, object, Owners::Compare)
            }
            None => Err(ApiError::method_not_allowed()),
        }
    }

    /// Server-side apply.
    fn apply(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let (res, params) = (&target.res, &target.call.params);
        if params.field_manager.is_none() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid_options("PatchOptions", &cause));
        }
        let mut config = target.call.body.clone();
        for field in ["apiVersion", "kind"] {
            if config.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(ApiError::bad_request(format!("Object '{field}' is missing in the patch")));
            }
        }
        self.check_identity(target, &config, false)?;
        if config["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        restrict(target, &mut config);
        if let Some(list) = shape::duplicate(res, &config) {
            let why = format!("failed to create typed patch object: .{list}: duplicate entries for key");
            return Err(ApiError::new(500, "", why));
        }
        let me = target.manager(Operation::Apply);
        let now = self.now();
        let old = match self.existing(target) {
            Ok(old) => old,
            Err(err) if target.status => return Err(err),
            Err(_) => {
                let uid = text(&config, "uid");
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(ApiError::conflict(res, target.name(), &why));
                }
                let mut managers = Managers::default();
                let mut empty = json!({"metadata": {"name": target.name()}});
                empty["apiVersion"] = res.api_version().into();
                empty["kind"] = res.kind.as_str().into();
                let object = managers.apply(res, &empty, &config, &me, params.force, &now)?;
                return self.insert(target, object, Owners::Settled(managers));
            }
        };
        let mut managers = (*old.managers).clone();
        let object = managers.apply(res, &old.bare(), &config, &me, params.force, &now)?;
        self.update(target, &old, object, Owners::Settled(managers))
    }

    /// Stores a changed object, or does nothing if nothing changed.
    fn update(
        &mut self,
        target: &Target<'_>,
        old: &Stored,
        mut new: Value,
        owners: Owners,
    ) -> Result<Answer, ApiError> {
        let (res, table) = (target.res.clone(), target.table);
        self.check_version(target, old, &new)?;
        let uid = text(&new, "uid");
        if !uid.is_empty() && uid != old.meta("uid") {
            let cause = Cause::value_of("metadata.uid", &format!("\"{uid}\""), "field is immutable");
            return Err(ApiError::invalid(&res, target.name(), &[cause]));
        }
        let before = old.bare();
        let sent_managers = Some(Managers::from_value(&new["metadata"]["managedFields"]))
            .filter(|managers| !managers.is_empty() && !target.status);
        if target.status {
            let mut whole = before.clone();
            let map = whole.as_object_mut().expect("objects are objects");
            set_or_clear(map, "status", new.get("status"));
            new = whole;
        } else {
            new["apiVersion"] = res.api_version().into();
            new["kind"] = res.kind.as_str().into();
            if res.has_status {
                let map = new.as_object_mut().expect("has two fields at least");
                set_or_clear(map, "status", before.get("status"));
            }
            let meta = metadata(&mut new);
            meta.remove("managedFields");
            for field in SYSTEM.iter().chain(&["name", "namespace", "resourceVersion"]) {
                set_or_clear(meta, field, before["metadata"].get(field));
            }
            self.mutate(table, &mut new);
            prepare(&res, &mut new)?;
        }
        tidy(&mut new);
        let managers = match owners {
            Owners::Settled(managers) => managers,
            Owners::Compare => {
                let mut managers = sent_managers.unwrap_or_else(|| (*old.managers).clone());
                // An object that nobody tracks stays so until its first apply.
                if !managers.is_empty() {
                    let now = self.now();
                    managers.update(&res, Some(&before), &new, &target.manager(Operation::Update), &now);
                }
                managers
            }
        };
        self.validate(table, &new, Some(&before))?;
        if res.generation && !target.status && desired(&res, &new) != desired(&res, &before) {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or_default();
            metadata(&mut new).insert("generation".into(), json!(generation + 1));
        }
        if new == before && managers.same_owners(&old.managers) {
            return Ok(Answer::ok(old.value.clone()));
        }
        if target.call.params.dry_run {
            return Ok(Answer::ok(Arc::new(dressed(&res, new, &managers))));
        }
        let client = &target.call.info.client;
        let released = new["metadata"].get("deletionTimestamp").is_some()
            && new["metadata"].get("finalizers").is_none()
            && before["metadata"].get("finalizers").is_some();
        if released {
            self.remove(table, &target.key(), client);
            return Ok(Answer::ok(Arc::new(dressed(&res, new, &managers))));
        }
        Ok(Answer::ok(self.put(table, &target.key(), new, managers, client)))
    }

    fn check_version(&self, target: &Target<'_>, old: &Stored, new: &Value) -> Result<(), ApiError> {
        match text(new, "resourceVersion") {
            "" | "0" if target.res.unconditional_update => Ok(()),
            "" | "0" => Err(ApiError::version_required(&target.res, target.name())),
            version if version == old.meta("resourceVersion") => Ok(()),
            _ => Err(ApiError::stale(&target.res, target.name())),
        }
    }
}

/// An object that is answered without being stored.
fn dressed(res: &ResourceType, mut object: Value, managers: &Managers) -> Value {
    if !managers.is_empty() {
        object["metadata"]["managedFields"] = managers.to_value(res);
    }
    object
}

/// What an object of the kind holds before anybody sets anything: typed objects always carry their structs.
fn zero(res: &ResourceType) -> Value {
    match res.kind.as_str() {
        "Lease" => json!({"spec": {}}),
        "Event" => json!({"regarding": {}}),
        _ => json!({}),
    }
}

/// The part of a new object that belongs to its creator.
fn sent(res: &ResourceType, object: &Value) -> Value {
    let mut object = object.clone();
    if res.group.is_empty() && res.kind == "Namespace" {
        for field in ["spec", "status"] {
            object.as_object_mut().map(|map| map.remove(field));
        }
    }
    object
}

/// Leaves of an applied configuration only what the endpoint may set.
fn restrict(target: &Target<'_>, config: &mut Value) {
    let Some(map) = config.as_object_mut() else { return };
    if target.status {
        map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        if let Some(Value::Object(meta)) = map.get_mut("metadata") {
            meta.retain(|field, _| {
                matches!(field.as_str(), "name" | "namespace" | "uid" | "resourceVersion")
            });
        }
    } else if target.res.has_status {
        map.remove("status");
    }
}

/// The part of an object that `generation` counts.
fn desired(res: &ResourceType, object: &Value) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    map.remove("metadata");
    if res.has_status {
        map.remove("status");
    }
    map
}

/// What the server makes of an object before it stores it.
fn prepare(res: &ResourceType, object: &mut Value) -> Result<(), ApiError> {
    match (res.group.as_str(), res.kind.as_str()) {
        ("", "Secret") => super::secret::prepare(object),
        ("", "Namespace") => {
            let name = text(object, "name").to_owned();
            let meta = metadata(object);
            let labels = meta.entry("labels").or_insert_with(|| json!({}));
            labels["kubernetes.io/metadata.name"] = name.into();
            if object.get("spec").is_none_or(|s| s.as_object().is_none_or(Map::is_empty)) {
                object["spec"] = json!({"finalizers": ["kubernetes"]});
            }
            if object.get("status").is_none() {
                object["status"] = json!({"phase": "Active"});
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

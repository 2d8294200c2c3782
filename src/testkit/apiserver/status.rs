//! `metav1.Status`: every refusal of the server, worded like the real one so that clients classify it alike.

use serde_json::{Map, Value, json};

use super::resource::ResourceType;

/// One refusal: what becomes the HTTP code and the `Status` body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    /// The HTTP code.
    pub(super) code: u16,
    /// The machine-readable reason.
    pub(super) reason: &'static str,
    /// The human-readable message.
    pub(super) message: String,
    details: Map<String, Value>,
    continue_token: Option<String>,
    /// Seconds for the `Retry-After` header.
    pub(super) retry_after: Option<u64>,
    /// A path that no API group serves is answered in plain text, not by a `Status`.
    pub(super) plain: bool,
}

/// The message of every optimistic-lock failure.
const STALE: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl ApiError {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
            continue_token: None,
            retry_after: None,
            plain: false,
        }
    }

    fn about(mut self, res: &ResourceType, kind: &str, name: &str) -> Self {
        if !name.is_empty() {
            self.details.insert("name".into(), name.into());
        }
        if !res.group.is_empty() {
            self.details.insert("group".into(), res.group.as_str().into());
        }
        self.details.insert("kind".into(), kind.into());
        self
    }

    fn causes(mut self, causes: Vec<Value>) -> Self {
        if !causes.is_empty() {
            self.details.insert("causes".into(), Value::Array(causes));
        }
        self
    }

    /// No API group serves this path.
    pub(super) fn no_route() -> Self {
        Self { plain: true, ..Self::new(404, "", "404 page not found") }
    }

    /// The group serves no such resource. Groups of custom resources do not tell that from a missing group.
    pub(super) fn no_resource(group: &str) -> Self {
        match group {
            "" | "coordination.k8s.io" | "events.k8s.io" => {
                Self::new(404, "NotFound", "the server could not find the requested resource")
            }
            _ => Self::no_route(),
        }
    }

    pub(super) fn not_found(res: &ResourceType, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", res.qualified())).about(
            res,
            &res.plural,
            name,
        )
    }

    pub(super) fn already_exists(res: &ResourceType, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", res.qualified())).about(
            res,
            &res.plural,
            name,
        )
    }

    pub(super) fn conflict(res: &ResourceType, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", res.qualified());
        Self::new(409, "Conflict", message).about(res, &res.plural, name)
    }

    pub(super) fn stale(res: &ResourceType, name: &str) -> Self {
        Self::conflict(res, name, STALE)
    }

    /// Server-side apply met fields of other managers; `conflicts` are (manager as printed, path).
    pub(super) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes = conflicts
            .iter()
            .map(|(manager, path)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path})
            })
            .collect();
        let message = match conflicts {
            [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
            many => {
                let mut lines = Vec::new();
                let mut last = None;
                for (manager, path) in many {
                    if last != Some(manager) {
                        lines.push(format!("conflicts with {manager}:"));
                        last = Some(manager);
                    }
                    lines.push(format!("- {path}"));
                }
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        Self::new(409, "Conflict", message).causes(causes)
    }

    pub(super) fn forbidden(res: &ResourceType, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} \"{name}\" is forbidden: {why}", res.qualified())).about(
            res,
            &res.plural,
            name,
        )
    }

    /// Creation in a namespace that is on its way out.
    pub(super) fn namespace_terminating(res: &ResourceType, name: &str, ns: &str) -> Self {
        let why = format!("unable to create new content in namespace {ns} because it is being terminated");
        let cause = json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {ns} is being terminated"),
            "field": "metadata.namespace",
        });
        Self::forbidden(res, name, &why).causes(vec![cause])
    }

    /// A request that could succeed with other data; `causes` are (reason, field, message).
    pub(super) fn invalid(res: &ResourceType, name: &str, causes: &[Cause]) -> Self {
        let text = match causes {
            [one] => one.text(),
            many => format!("[{}]", many.iter().map(Cause::text).collect::<Vec<_>>().join(", ")),
        };
        let qualified =
            if res.group.is_empty() { res.kind.clone() } else { format!("{}.{}", res.kind, res.group) };
        Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {text}"))
            .about(res, &res.kind, name)
            .causes(causes.iter().map(Cause::value).collect())
    }

    /// Query parameters that are missing or contradict each other.
    pub(super) fn invalid_options(kind: &str, cause: &Cause) -> Self {
        let message = format!("{kind}.meta.k8s.io \"\" is invalid: {}", cause.text());
        let mut error = Self::new(422, "Invalid", message).causes(vec![cause.value()]);
        error.details.insert("group".into(), "meta.k8s.io".into());
        error.details.insert("kind".into(), kind.into());
        error
    }

    /// A write that must say which version it replaces, and does not.
    pub(super) fn version_required(res: &ResourceType, name: &str) -> Self {
        let cause = Cause::value_of("metadata.resourceVersion", "0", "must be specified for an update");
        let message = format!("{} \"{name}\" is invalid: {}", res.qualified(), cause.text());
        // The real server names the plural here, not the kind.
        Self::new(422, "Invalid", message).about(res, &res.plural, name).causes(vec![cause.value()])
    }

    /// A deletion whose preconditions do not hold.
    pub(super) fn precondition(res: &ResourceType, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", res.kind);
        Self::new(409, "Conflict", message).about(res, &res.kind, name)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn unsupported_media(kind: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {kind}"
            ),
        )
    }

    /// History before `have` is gone.
    pub(super) fn expired_watch(asked: u64, have: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({have})"))
    }

    /// The snapshot behind a continue token is gone; `fresh` restarts inconsistently at the same place.
    pub(super) fn expired_list(fresh: Option<String>) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
                       a new list without the continue parameter, or use the continue token in this response to \
                       retrieve the remainder of the results.";
        Self { continue_token: fresh, ..Self::new(410, "Expired", message) }
    }

    /// The asked resourceVersion lies in the future.
    pub(super) fn too_large(asked: u64, have: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {have}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        Self { retry_after: Some(1), ..Self::new(504, "Timeout", message).causes(vec![cause]) }
    }

    /// A fault that stands in for any answer of an ailing server.
    pub(super) fn fault(code: u16, retry_after: Option<u64>) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden"),
            409 => ("Conflict", STALE),
            410 => ("Expired", "the resource version is too old"),
            429 => ("TooManyRequests", "too many requests, please try again later"),
            500 => ("InternalError", "an error on the server has prevented the request from succeeding"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("", "fault"),
        };
        Self { retry_after, ..Self::new(code, reason, message) }
    }

    /// The `Status` body.
    #[must_use]
    pub(super) fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), token.as_str().into());
        }
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        let mut details = self.details.clone();
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        if !details.is_empty() {
            body["details"] = Value::Object(details);
        }
        body
    }
}

/// One entry of `details.causes` of an `Invalid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl Cause {
    pub(super) fn value_of(field: &str, value: &str, why: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {value}: {why}"),
        }
    }

    pub(super) fn required(field: &str, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(super) fn forbidden(field: &str, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }

    pub(super) fn too_long(field: &str, most: usize) -> Self {
        let message = format!("Too long: may not be more than {most} bytes");
        Self { reason: "FieldValueTooLong", field: field.into(), message }
    }

    /// What a validation hook said, as CEL rules are reported.
    pub(super) fn rule(message: String) -> Self {
        Self { reason: "FieldValueInvalid", field: String::new(), message }
    }

    fn text(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }

    fn value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_parses_every_status() {
        let secrets = super::super::resource::secrets();
        for err in [
            ApiError::not_found(&secrets, "a"),
            ApiError::stale(&secrets, "a"),
            ApiError::namespace_terminating(&secrets, "a", "ns"),
            ApiError::invalid(&secrets, "a", &[Cause::value_of("type", "\"x\"", "field is immutable")]),
            ApiError::apply_conflict(&[("\"m\"".into(), ".data.a".into())]),
            ApiError::expired_list(Some("t".into())),
        ] {
            let status: kube::core::Status = serde_json::from_value(err.to_value()).unwrap();
            assert_eq!((status.code, status.reason.as_str()), (err.code, err.reason));
        }
    }
}

//! From an HTTP request to what is asked for.

use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::Value;

use super::status::ApiError;

/// What a request does, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow many.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH of any kind.
    Patch,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
}

impl Verb {
    /// Whether the request can change something.
    #[must_use]
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }

    /// As RBAC names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// One request as faults, hooks and logs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Counts all requests of the server, from 1.
    pub id: u64,
    /// Which client handle sent it.
    pub client: Arc<str>,
    /// What it does.
    pub verb: Verb,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural of the resource.
    pub resource: String,
    /// Namespace in the URL.
    pub namespace: Option<String>,
    /// Name in the URL, or in the body of a create.
    pub name: Option<String>,
    /// Subresource in the URL.
    pub subresource: Option<String>,
    /// Whether this is server-side apply.
    pub apply: bool,
    /// Position among the writes of this client handle, from 1; 0 for reads.
    pub write: u64,
}

/// The dialects of PATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    Merge,
    Json,
    Apply,
}

/// The parameters of a request, whatever its verb.
#[derive(Clone, Debug, Default)]
pub(super) struct Params {
    pub(super) label_selector: Option<String>,
    pub(super) field_selector: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) version_match: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) continue_token: Option<String>,
    pub(super) bookmarks: bool,
    pub(super) initial_events: bool,
    pub(super) timeout: Option<u64>,
    pub(super) field_manager: Option<String>,
    pub(super) force: bool,
    pub(super) dry_run: bool,
    pub(super) propagation: Option<String>,
    watch: bool,
}

/// One parsed request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) info: RequestInfo,
    pub(super) params: Params,
    /// Parsed JSON body; null if there is none.
    pub(super) body: Value,
    pub(super) patch: Option<PatchKind>,
    /// Whether metadata alone is asked for.
    pub(super) metadata_only: bool,
}

fn params(query: &str) -> Params {
    let mut out = Params::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let on = matches!(value.as_ref(), "true" | "1");
        let text = (!value.is_empty()).then(|| value.to_string());
        match key.as_ref() {
            "labelSelector" => out.label_selector = text,
            "fieldSelector" => out.field_selector = text,
            "resourceVersion" => out.resource_version = text,
            "resourceVersionMatch" => out.version_match = text,
            "limit" => out.limit = value.parse().ok().filter(|limit| *limit > 0),
            "continue" => out.continue_token = text,
            "allowWatchBookmarks" => out.bookmarks = on,
            "sendInitialEvents" => out.initial_events = on,
            "timeoutSeconds" => out.timeout = value.parse().ok().filter(|seconds| *seconds > 0),
            "fieldManager" => out.field_manager = text,
            "force" => out.force = on,
            "dryRun" => out.dry_run = value == "All",
            "propagationPolicy" => out.propagation = text,
            "watch" => out.watch = on,
            _ => {}
        }
    }
    out
}

/// Splits a path into group, version and what follows.
fn route(path: &str) -> Option<(&str, &str, Vec<&str>)> {
    let mut parts = path.trim_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    Some((group, version, parts.collect()))
}

/// Parses a request of `client`; `id` and `write` are filled in by the caller.
pub(super) fn parse(parts: &http::request::Parts, body: &Bytes, client: Arc<str>) -> Result<Call, ApiError> {
    let (group, version, rest) = route(parts.uri.path()).ok_or_else(ApiError::no_route)?;
    // `/namespaces/x/status` is a subresource of the namespace; `/namespaces/x/secrets` a collection within it.
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", _, "status" | "finalize"] => (None, rest.as_slice()),
        ["namespaces", ns, tail @ ..] if !tail.is_empty() => (Some((*ns).to_owned()), tail),
        all => (None, all),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some((*name).to_owned()), None),
        [resource, name, sub] => (*resource, Some((*name).to_owned()), Some((*sub).to_owned())),
        _ => return Err(ApiError::no_route()),
    };
    let params = params(parts.uri.query().unwrap_or_default());
    let header = |name: http::header::HeaderName| {
        parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    };
    let verb = match (&parts.method, &name) {
        (&http::Method::GET, _) if params.watch => Verb::Watch,
        (&http::Method::GET, Some(_)) => Verb::Get,
        (&http::Method::GET, None) => Verb::List,
        (&http::Method::POST, None) => Verb::Create,
        (&http::Method::PUT, Some(_)) => Verb::Update,
        (&http::Method::PATCH, Some(_)) => Verb::Patch,
        (&http::Method::DELETE, Some(_)) => Verb::Delete,
        (&http::Method::DELETE, None) => Verb::DeleteCollection,
        _ => return Err(ApiError::method_not_allowed()),
    };
    let patch = match verb {
        Verb::Patch => Some(match header(http::header::CONTENT_TYPE) {
            // kube labels its JSON body as YAML; JSON is a subset of it.
            "application/apply-patch+yaml" => PatchKind::Apply,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/json-patch+json" => PatchKind::Json,
            _ => {
                return Err(ApiError::unsupported_media(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
        }),
        _ => None,
    };
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body)
            .map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")))?
    };
    let named = || body["metadata"]["name"].as_str().map(str::to_owned);
    let name = if verb == Verb::Create { name.or_else(named) } else { name };
    let metadata_only = header(http::header::ACCEPT).contains("as=PartialObjectMetadata");
    let info = RequestInfo {
        id: 0,
        client,
        verb,
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        namespace,
        name,
        subresource,
        apply: patch == Some(PatchKind::Apply),
        write: 0,
    };
    Ok(Call { info, params, body, patch, metadata_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str) -> Result<RequestInfo, ApiError> {
        let (parts, ()) = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/merge-patch+json")
            .body(())
            .unwrap()
            .into_parts();
        parse(&parts, &Bytes::new(), "c".into()).map(|c| c.info)
    }

    #[test]
    fn paths_become_verbs_and_names() {
        let show = |method, uri| {
            let i = call(method, uri).unwrap();
            format!(
                "{} {}/{} {} {} {}",
                i.verb.as_str(),
                i.group,
                i.resource,
                i.namespace.unwrap_or_default(),
                i.name.unwrap_or_default(),
                i.subresource.unwrap_or_default()
            )
        };
        assert_eq!(show("GET", "/api/v1/namespaces"), "list /namespaces   ");
        assert_eq!(show("GET", "/api/v1/namespaces/a"), "get /namespaces  a ");
        assert_eq!(show("PUT", "/api/v1/namespaces/a/status"), "update /namespaces  a status");
        assert_eq!(show("GET", "/api/v1/namespaces/a/secrets?watch=true"), "watch /secrets a  ");
        assert_eq!(
            show("PATCH", "/apis/g.dev/v1/namespaces/a/things/b/status?fieldManager=x"),
            "patch g.dev/things a b status"
        );
        assert_eq!(show("DELETE", "/apis/g.dev/v1/things"), "deletecollection g.dev/things   ");
        assert!(call("GET", "/healthz").unwrap_err().plain);
    }
}

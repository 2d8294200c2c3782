//! Bounded names for what is asked of the API server and how it answers.

use http::{Method, Request};

/// Whether the answer is a stream that must not be cut.
pub(super) fn is_stream<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| {
        matches!(pair, "watch=true" | "watch=1" | "watch" | "follow=true" | "follow=1" | "follow")
    })
}

/// The verb as the API server's own authorization and metrics name it, except that a server-side apply is told from
/// other patches.
pub(super) fn verb<B>(request: &Request<B>) -> &'static str {
    let many = || names_a_collection(request.uri().path());
    match *request.method() {
        Method::GET if is_stream(request) => "watch",
        Method::GET if many() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => {
            let kind = request.headers().get(http::header::CONTENT_TYPE);
            let apply = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
            if apply { "apply" } else { "patch" }
        }
        Method::DELETE if many() => "deletecollection",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// Whether the path ends in a resource (`…/secrets`) rather than in an object or a part of one (`…/secrets/x/status`).
fn names_a_collection(path: &str) -> bool {
    let mut segments = path.trim_matches('/').split('/');
    let skip = match segments.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return false,
    };
    let rest: Vec<&str> = segments.skip(skip).collect();
    match rest.as_slice() {
        [] => false,
        // Namespaces are resources themselves, and the way to others.
        ["namespaces", _, resource @ ..] if !resource.is_empty() => resource.len() == 1,
        resource => resource.len() == 1,
    }
}

/// The status as a label, without a series for each code that a proxy may invent.
#[expect(clippy::match_overlapping_arm, reason = "what is not named falls into its class")]
pub(super) fn code(status: u16) -> &'static str {
    match status {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        301 => "301",
        302 => "302",
        307 => "307",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, kind: &str) -> Request<()> {
        let builder = Request::builder().method(method).uri(uri).header("content-type", kind);
        builder.body(()).expect("a request")
    }

    #[test]
    fn verbs_are_those_of_kubernetes() {
        let tokens = "/apis/tokenward.dev/v1alpha1/namespaces/shop/apitokens";
        for (method, uri, kind, wanted) in [
            ("GET", format!("{tokens}?limit=500"), "", "list"),
            ("GET", "/apis/tokenward.dev/v1alpha1/apitokens".into(), "", "list"),
            ("GET", "/apis/tokenward.dev/v1alpha1/apitokens?watch=true&x=1".into(), "", "watch"),
            ("GET", format!("{tokens}/orders"), "", "get"),
            ("GET", format!("{tokens}/watch"), "", "get"),
            ("PUT", format!("{tokens}/orders/status"), "", "update"),
            ("PATCH", format!("{tokens}/orders/status"), "application/merge-patch+json", "patch"),
            ("PATCH", "/api/v1/namespaces/shop/secrets/x".into(), "application/apply-patch+yaml", "apply"),
            ("GET", "/api/v1/namespaces/shop/secrets/x".into(), "", "get"),
            ("GET", "/api/v1/namespaces".into(), "", "list"),
            ("GET", "/api/v1/namespaces/shop".into(), "", "get"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events".into(), "", "create"),
            ("DELETE", "/api/v1/namespaces/shop/secrets".into(), "", "deletecollection"),
            ("DELETE", "/api/v1/namespaces/shop/secrets/x".into(), "", "delete"),
            ("GET", "/version".into(), "", "get"),
            ("GET", "/apis".into(), "", "get"),
            ("OPTIONS", "/apis".into(), "", "other"),
        ] {
            assert_eq!(verb(&request(method, &uri, kind)), wanted, "{method} {uri}");
        }
    }

    #[test]
    fn codes_are_bounded() {
        let codes: std::collections::BTreeSet<_> = (0..=u16::MAX).map(code).collect();
        assert!(codes.len() < 40, "{codes:?}");
        assert_eq!((code(409), code(418), code(599)), ("409", "4xx", "5xx"));
    }
}

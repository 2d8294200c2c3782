//! Requests over HTTP, as hyper hands them to the gate: forward-auth of every dialect, and introspection.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::service::Service as _;
use serde_json::Value;

use super::reference::{self, Shown};
use super::scene::{Identity, Known, Scene};
use crate::gate::demand::{DEFAULT_HEADER, Demand, Places};
use crate::gate::dialect::answer::{CREDENTIAL, OWNER, SCOPES, TOKEN};
use crate::gate::dialect::introspect::MAX_FORM;
use crate::gate::extract::{self, Credential};
use crate::platform::target::Targets;

const REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Those that differ in nothing but their name.
const ALIKE: [&str; 3] = ["/authz/nginx", "/authz/traefik", "/authz/caddy"];

/// A request as text: its headers a line each, and after an empty line its body.
pub(super) struct Text<'a> {
    pub headers: HeaderMap,
    pub body: &'a [u8],
}

impl<'a> Text<'a> {
    /// Lines that are no header are left out: hyper would have refused the request, and there would be nothing to see.
    pub fn read(mut text: &'a [u8]) -> Self {
        let mut headers = HeaderMap::new();
        while !text.is_empty() {
            let (line, rest) = line(text);
            text = rest;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = header(line) else { continue };
            let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
                continue;
            };
            // A request with more headers than fit is refused before.
            let _ = headers.try_append(name, value);
        }
        Self { headers, body: text }
    }
}

/// The first line, and what follows it.
pub(super) fn line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    (&text[..end], text.get(end + 1..).unwrap_or_default())
}

/// Name and value of `name: value`.
pub(super) fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// The pairs of a map of headers.
pub(super) fn pairs(headers: &HeaderMap) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect()
}

/// What the gate answered.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    /// Everything that goes out.
    fn bytes(&self) -> Vec<u8> {
        let headers = self
            .headers
            .iter()
            .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        headers.chain(self.body.iter().copied()).collect()
    }

    /// It lets nothing through, and says nothing of anybody.
    fn denies(&self) {
        assert_ne!(self.status, 200);
        for name in [TOKEN, CREDENTIAL, OWNER, SCOPES, REMOVE] {
            assert!(!self.headers.contains_key(name), "a denial carries {name}");
        }
        if self.status == 401 {
            assert!(!self.all("www-authenticate").is_empty(), "a 401 without a challenge");
        }
    }

    /// It lets through as `shown`, and each identity header has one value.
    fn passes(&self, shown: &Shown<'_>, identity: &Identity) {
        assert_eq!(self.status, 200);
        assert_eq!(self.all(TOKEN), [identity.token.as_bytes()]);
        assert_eq!(self.all(CREDENTIAL), [shown.known.token.id().as_bytes()]);
        assert_eq!(self.all(OWNER), [identity.owner.as_bytes()]);
        assert_eq!(self.all(SCOPES), [identity.scopes.as_bytes()]);
    }
}

/// The gate's answer. It has no reason to wait for anything.
pub(super) fn ask(scene: &Scene, method: Method, uri: Uri, headers: &HeaderMap, body: &[u8]) -> Reply {
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    let answered = scene
        .http
        .call(request)
        .now_or_never()
        .expect("an answer at once")
        .unwrap_or_else(|never| match never {});
    let (head, body) = answered.into_parts();
    let body = body.collect().now_or_never().expect("a whole body").unwrap_or_else(|never| match never {});
    Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() }
}

/// The text of the credential in these places, if there is exactly one.
pub(super) fn presented(headers: &HeaderMap, query: Option<&str>, places: Places<'_>) -> Option<String> {
    let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    extract::credential(fields, query, places)
        .ok()
        .as_ref()
        .map(|credential| Credential::as_str(credential).to_owned())
}

/// A sub-request of a proxy: the path and the query in the first line, then the headers. Accepted: 200.
pub fn forward_auth(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let (sent, rest) = line(input);
    let mut line = [b"GET ", sent].concat();
    Targets::default().mend(&mut line);
    let uri = &line[4..];
    // What the route demands is taken as it is: a token in it would be the operator's own mistake.
    let Ok(uri) = Uri::try_from(uri) else { return false };
    let expanded = scene.expand(rest);
    let headers = Text::read(&expanded).headers;
    let reply = ask(&scene, Method::GET, uri.clone(), &headers, b"");

    the_client_takes_nothing_from_a_demand(&uri);
    let (path, query) = (uri.path(), uri.query());
    let envoy = path == "/authz/envoy" || path.starts_with("/authz/envoy/");
    let (demand, demanded) = if envoy {
        (Demand::from_envoy(path, query), reference::envoy_query(path, query))
    } else if ALIKE.contains(&path) {
        (Demand::from_url(query), query.unwrap_or_default().to_owned())
    } else {
        assert!(matches!(reply.status, 404 | 405), "{} at a path that is none", reply.status);
        reply.denies();
        scene.counted(None, None);
        return false;
    };
    let api_key = demand.as_ref().map_or(DEFAULT_HEADER, Demand::header);
    let below = path.starts_with("/authz/envoy/");
    assert!(!below || api_key == DEFAULT_HEADER, "there the client would say which header is spent");
    let demanded_pairs = reference::demanded(&demanded);
    let sources: Vec<&str> =
        demanded_pairs.iter().filter(|(key, _)| key == "source").map(|(_, value)| &**value).collect();
    let clients = reference::clients_query(&uri, &headers);
    let text = demand.as_ref().ok().and_then(|demand| presented(&headers, clients, demand.places()));
    let shown = reference::shown(&scene, &pairs(&headers), api_key, &sources);
    let may =
        |identity: &Identity| identity.may(demanded_pairs.iter().map(|(key, value)| (&**key, &**value)));
    let accepted = shown.as_ref().and_then(|shown| Some((shown, shown.known.living.filter(may)?)));
    let routes = if envoy { reference::before_the_clients(sent) } else { sent };
    // Before its path a target has no demand.
    let routes = if sent.starts_with(b"/") { routes } else { b"" };
    assert!(!routes.contains(&b'#') || reply.status != 200, "what stands behind a # was not demanded");
    scene.tells_no_secret(&reply.bytes(), text.as_deref(), demanded.as_bytes());
    assert!(reply.body.is_empty() && matches!(reply.status, 200 | 401 | 403), "{}", reply.status);

    if reply.status == 200
        && accepted.is_none()
        && sources.iter().any(|own| reference::ELSEWHERE.contains(own))
    {
        let known = reference::presented(&scene, text.as_deref());
        assert!(known.and_then(|known| known.living).is_some_and(|identity| may(&identity)));
        scene.counted(text.as_deref(), known);
        return true;
    }
    if reply.status == 200 {
        let (shown, identity) = accepted.expect("only a living token that may do this is accepted");
        reply.passes(shown, &identity);
        let spent = if shown.header.is_empty() { api_key } else { shown.header };
        let removed: &[&[u8]] = if envoy { &[spent.as_bytes()] } else { &[] };
        assert_eq!(reply.all(REMOVE), removed, "the credential would reach the upstream");
    } else {
        reply.denies();
        let due = accepted.is_some_and(|(shown, _)| shown.clear) && demand.is_ok();
        assert!(!due, "a living token that may do this was denied");
    }
    scene.counted(text.as_deref(), accepted.filter(|_| reply.status == 200).map(|(shown, _)| shown.known));
    // The query that a client asked with comes in another header from each.
    if ALIKE.contains(&path) && !sources.contains(&"query") {
        for other in ALIKE {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let uri = Uri::try_from(format!("{other}{query}")).expect("the same query");
            let same = ask(&scene, Method::POST, uri, &headers, b"");
            assert_eq!((same.status, same.headers), (reply.status, reply.headers.clone()), "{other} differs");
        }
    }
    reply.status == 200
}

/// Whatever a client writes into its path, a route of Envoy demands what it demands without it, or more.
fn the_client_takes_nothing_from_a_demand(client: &Uri) {
    let client = client.path_and_query().map_or("/", |own| own.as_str());
    let behind = |prefix: &str| Uri::try_from(format!("{prefix}{client}")).ok();
    let demand = |uri: &Uri| Demand::from_envoy(uri.path(), uri.query()).map(|demand| format!("{demand:?}"));
    for prefix in
        ["/authz/envoy?audience=orders&scope=orders:read&path=", "/authz/envoy/audience=orders&path="]
    {
        let alone = Uri::try_from(format!("{prefix}/")).expect("a prefix");
        assert!(behind(prefix).is_none_or(|uri| demand(&uri) == demand(&alone)), "{client} behind {prefix}");
    }
    // Nothing is demanded here, so there is nothing to take away; but it is not the client who says which header is spent.
    let Some(uri) = behind("/authz/envoy").filter(|_| client.starts_with('/')) else { return };
    let demand = Demand::from_envoy(uri.path(), uri.query());
    assert!(demand.is_err() || demand.is_ok_and(|demand| demand.header() == DEFAULT_HEADER), "{client}");
}

/// A question about a token: headers, an empty line, the form. Accepted: it is active.
pub fn introspection(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let expanded = scene.expand(input);
    let text = Text::read(&expanded);
    let reply = ask(&scene, Method::POST, Uri::from_static("/introspect"), &text.headers, text.body);

    let asker = reference::shown(&scene, &pairs(&text.headers), DEFAULT_HEADER, &[]).map(|shown| shown.known);
    let may_ask = asker.is_some_and(|asker| {
        asker.living.is_some_and(|identity| identity.may([("scope", "tokenward:introspect")]))
    });
    let mut tokens = form_urlencoded::parse(text.body).filter(|(key, _)| key == "token");
    let asked = tokens.next().filter(|_| tokens.next().is_none()).map(|(_, value)| value.into_owned());
    let known = scene.known.iter().find(|known| Some(known.token.expose()) == asked.as_deref());
    let living = known.and_then(|known| Some((known, known.living?)));
    let caller = presented(&text.headers, None, Places::usual(DEFAULT_HEADER));
    for presented in [asked.as_deref(), caller.as_deref()] {
        scene.tells_no_secret(&reply.bytes(), presented, b"");
    }
    for token in scene.gate.recorder().drain() {
        let ids = [asked.as_deref(), caller.as_deref()]
            .map(|text| Some(reference::token(text?).ok()?.1.to_owned()));
        let presented = |known: &Known| ids.iter().flatten().any(|id| id == known.token.id());
        let of = |known: &Known| known.of == Some(&token.token) && presented(known);
        assert!(scene.known.iter().any(of), "counted for a token that was not presented");
    }

    if reply.status != 200 {
        reply.denies();
        assert!(!holds_active(&reply.body), "an answer of {} says active", reply.status);
        let refused = [400, 401, 403, 413, 415];
        assert!(refused.contains(&reply.status), "{}", reply.status);
        assert!(!matches!(reply.status, 400 | 413 | 415) || may_ask, "a stranger's form was read");
        return false;
    }
    assert!(may_ask, "a stranger was answered");
    assert!(text.body.len() <= MAX_FORM, "a form that is too long was read");
    assert!(asked.is_some(), "an answer about no token, or about several");
    assert_eq!(reply.all("cache-control"), [b"no-store"]);
    let said: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let Some((known, identity)) = living else {
        assert_eq!(said, serde_json::json!({"active": false}), "about {known:?}");
        return false;
    };
    assert_eq!(said["active"], true, "about a living token");
    assert_eq!((&said["client_id"], &said["sub"]), (&identity.token.into(), &identity.token.into()));
    assert_eq!(said["jti"], known.token.id());
    assert_eq!(said.get("scope").and_then(Value::as_str).unwrap_or_default(), identity.scopes);
    let audiences: Vec<_> = identity.audiences.split(' ').filter(|word| !word.is_empty()).collect();
    assert_eq!(
        said.get("aud").cloned().unwrap_or_else(|| Value::Array(Vec::new())),
        serde_json::json!(audiences)
    );
    true
}

fn holds_active(body: &[u8]) -> bool {
    super::scene::holds(body, b"active")
}

//! Forward-auth over HTTP: nginx, Traefik, Caddy and Envoy. A sub-request with the client's headers, any method; the
//! answer is 200, 401 or 403, because each of them makes something else of other codes.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use ::http::header::{ALLOW, AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use futures::future::Either;
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::service::Service;

use super::Desk;
use super::answer::{self, Answer, answer};
use super::introspect::Introspection;
use crate::api::Outcome;
use crate::gate::demand::{Demand, ENVOY_PATH};
use crate::gate::extract::{self, Credential, Source};
use crate::gate::metrics::Dialect;

/// Where introspection is served.
pub const INTROSPECT_PATH: &str = "/introspect";

const TOKEN: HeaderName = HeaderName::from_static(answer::TOKEN);
const CREDENTIAL: HeaderName = HeaderName::from_static(answer::CREDENTIAL);
const OWNER: HeaderName = HeaderName::from_static(answer::OWNER);
const SCOPES: HeaderName = HeaderName::from_static(answer::SCOPES);
/// Tells Envoy what not to pass on.
const REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

const AUTHORIZATION_TEXT: HeaderValue = HeaderValue::from_static("authorization");
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// The body of every answer: empty but for introspection.
pub type Answered = Response<Full<Bytes>>;

/// The service behind `--http-listen`.
#[derive(Clone, Debug)]
pub struct HttpGate {
    desk: Desk,
    introspection: Arc<Introspection>,
}

impl HttpGate {
    /// Asks `desk` for verdicts.
    pub fn new(desk: Desk, introspection: Introspection) -> Self {
        Self { desk, introspection: Arc::new(introspection) }
    }

    /// The answer to a sub-request, `None` if that is not what it is.
    pub fn authorize<B>(&self, request: &Request<B>) -> Option<Answered> {
        let uri = request.uri();
        let path = uri.path();
        let (dialect, demand) = match path {
            "/authz/nginx" => (Dialect::Nginx, Demand::from_url(uri.query())),
            "/authz/traefik" => (Dialect::Traefik, Demand::from_url(uri.query())),
            "/authz/caddy" => (Dialect::Caddy, Demand::from_url(uri.query())),
            // Below it stands the client's path, appended by Envoy.
            _ => match path.strip_prefix(ENVOY_PATH) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    (Dialect::EnvoyHttp, Demand::from_envoy(path, uri.query()))
                }
                _ => return None,
            },
        };
        if demand.is_err() {
            self.desk.misrouted(dialect, || match dialect {
                Dialect::EnvoyHttp => "path_prefix",
                _ => Demand::misfit_in_query(uri.query().unwrap_or_default()),
            });
        }
        Some(self.judge(dialect, demand, request))
    }

    fn judge<B>(
        &self,
        dialect: Dialect,
        demand: Result<Demand<'_>, Outcome>,
        request: &Request<B>,
    ) -> Answered {
        let headers = request.headers();
        let (began, now) = (Instant::now(), self.desk.now());
        let gate = &self.desk.gate;
        let response = match &demand {
            // Fails closed: what the route demands is not known.
            Err(outcome) => respond(&answer(&gate.refuse(dialect, *outcome, now), &Demand::none()), EMPTY),
            Ok(demand) => {
                let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                let places = demand.places();
                // Only where it is read: what a proxy does not set, its client may.
                let query = places.query.map_or(Ok(None), |_| clients_query(dialect, request.uri(), headers));
                let credential = query.and_then(|query| extract::credential(fields, query, places));
                let address = self.desk.forwarded(forwarded(headers));
                // Nobody vouches for a principal here: a header that says so may be the client's.
                let caller = extract::caller(address, "", headers.get(USER_AGENT).map(HeaderValue::as_bytes));
                let presented = credential.as_ref().map(Credential::as_str).map_err(|outcome| *outcome);
                let verdict = gate.check(dialect, presented, demand, &caller, now);
                let source = credential.as_ref().ok().map(Credential::source);
                respond(&answer(&verdict, demand), spent(dialect, source, demand))
            }
        };
        gate.recorder().took(dialect, began.elapsed());
        response
    }
}

/// All lines of `X-Forwarded-For`.
fn forwarded(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &[u8]> {
    headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes)
}

/// The query that the client asked with, as each proxy passes it on.
fn clients_query<'r>(
    dialect: Dialect,
    uri: &'r ::http::Uri,
    headers: &'r HeaderMap,
) -> Result<Option<&'r str>, Outcome> {
    let name = match dialect {
        Dialect::Nginx => ORIGINAL_URI,
        Dialect::Traefik | Dialect::Caddy => FORWARDED_URI,
        _ => return Ok(Demand::clients_query(uri.query())),
    };
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        // Fails closed: one of them is not the proxy's.
        return Err(Outcome::Conflicting);
    }
    let text = value.to_str().map_err(|_| Outcome::Malformed)?;
    Ok(text.split_once('?').map(|(_, query)| query))
}

/// The header that held the credential, for Envoy to remove.
fn spent(dialect: Dialect, source: Option<Source>, demand: &Demand<'_>) -> HeaderValue {
    match (dialect, source) {
        (Dialect::EnvoyHttp, Some(Source::ApiKey)) => value(demand.header().as_bytes()),
        (Dialect::EnvoyHttp, Some(Source::Bearer | Source::Basic)) => AUTHORIZATION_TEXT,
        // A query, or a header that holds more than the credential: they stay.
        _ => EMPTY,
    }
}

/// A value that was checked where it came from. Should it be none all the same, it is said to be empty: that, too,
/// overwrites what the client sent.
fn value(bytes: &[u8]) -> HeaderValue {
    if bytes.is_empty() { EMPTY } else { HeaderValue::from_bytes(bytes).unwrap_or(EMPTY) }
}

fn respond(answer: &Answer<'_>, spent: HeaderValue) -> Answered {
    let mut response = Response::new(Full::default());
    match answer {
        Answer::Pass(identity) => {
            let mut headers = HeaderMap::with_capacity(8);
            // All four always: one that lacked would leave the client's own in its place.
            headers.append(TOKEN, value(identity.record.token().as_bytes()));
            headers.append(CREDENTIAL, value(identity.credential_text().as_bytes()));
            headers.append(OWNER, value(identity.record.owner().as_bytes()));
            headers.append(SCOPES, value(identity.record.scopes().as_bytes()));
            if !spent.is_empty() {
                headers.append(REMOVE, spent);
            }
            *response.headers_mut() = headers;
        }
        Answer::Unauthorized(challenges) => {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            for challenge in *challenges {
                response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        Answer::Scope(challenge) => {
            *response.status_mut() = StatusCode::FORBIDDEN;
            response.headers_mut().append(WWW_AUTHENTICATE, value(challenge.as_bytes()));
        }
        Answer::Forbidden => *response.status_mut() = StatusCode::FORBIDDEN,
    }
    response
}

/// An answer without a body.
pub(super) fn plain(status: StatusCode) -> Answered {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

type Introspected = Pin<Box<dyn Future<Output = Result<Answered, Infallible>> + Send>>;

impl<B> Service<Request<B>> for HttpGate
where
    B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + Unpin + 'static,
{
    type Response = Answered;
    type Error = Infallible;
    type Future = Either<Ready<Result<Answered, Infallible>>, Introspected>;

    fn call(&self, request: Request<B>) -> Self::Future {
        // Never logged: requests come by the ten thousand, and their headers hold credentials.
        if let Some(answered) = self.authorize(&request) {
            return Either::Left(ready(Ok(answered)));
        }
        if request.uri().path() != INTROSPECT_PATH {
            // Fails closed: no proxy takes this for a yes.
            return Either::Left(ready(Ok(plain(StatusCode::NOT_FOUND))));
        }
        if request.method() != ::http::Method::POST {
            let mut answered = plain(StatusCode::METHOD_NOT_ALLOWED);
            answered.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Either::Left(ready(Ok(answered)));
        }
        let (desk, introspection) = (self.desk.clone(), self.introspection.clone());
        Either::Right(Box::pin(async move { Ok(introspection.answer(&desk, request).await) }))
    }
}

/// The one `Authorization` header, if it is a bearer's.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next()?;
    if all.next().is_some() {
        // Fails closed: which one counts is anybody's guess.
        return None;
    }
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests;

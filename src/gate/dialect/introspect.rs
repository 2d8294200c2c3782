//! Introspection (RFC 7662), for what is no proxy: an API that asks about the token it was sent.
//!
//! Whoever asks has to say who he is: with a Tokenward token that has the scope `tokenward:introspect`, or with the token of a
//! Kubernetes ServiceAccount that is allowed to. About a token that is not accepted he learns nothing but that.

use std::fmt;
use std::time::Instant;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};
use parking_lot::Mutex;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Desk;
use super::answer::{self, BEARER, INVALID};
use super::http::{Answered, bearer, plain};
use crate::api::Outcome;
use crate::api::keys::INTROSPECT_SCOPE;
use crate::gate::callers::Caller;
use crate::gate::demand::{DEFAULT_HEADER, Demand, Places};
use crate::gate::extract::{self, Credential};
use crate::gate::index::Found;
use crate::gate::metrics::Dialect;
use crate::platform::reminder::Reminder;
use crate::platform::reviews::{ReviewError, Reviews};

/// Longest form, in bytes.
pub const MAX_FORM: usize = 8 * 1024;

const FORM: &str = "application/x-www-form-urlencoded";
const INACTIVE: &str = "{\"active\":false}";

/// Who may ask, besides tokens with the scope.
#[derive(Default)]
pub struct Introspection {
    reviews: Option<Reviews>,
    reminder: Mutex<Reminder>,
}

impl Introspection {
    /// Tokens with the scope only.
    pub fn by_scope() -> Self {
        Self::default()
    }

    /// Also the ServiceAccounts that these reviews allow.
    pub fn with_accounts(reviews: Reviews) -> Self {
        Self { reviews: Some(reviews), ..Self::default() }
    }

    /// Answers a POST.
    pub(super) async fn answer<B>(&self, desk: &Desk, request: Request<B>) -> Answered
    where
        B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + Unpin,
    {
        let began = Instant::now();
        let answered = self.reply(desk, request).await;
        desk.gate.recorder().took(Dialect::Introspect, began.elapsed());
        answered
    }

    async fn reply<B>(&self, desk: &Desk, request: Request<B>) -> Answered
    where
        B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + Unpin,
    {
        let (head, body) = request.into_parts();
        // Before the body is read: a stranger's is not.
        if let Err(refusal) = self.admit(desk, &head.headers).await {
            return refusal;
        }
        if !is_form(&head.headers) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let form = match Limited::new(body, MAX_FORM).collect().await {
            Ok(form) => Zeroizing::new(form.to_bytes().to_vec()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE);
            }
            // Cut off half-way.
            Err(_) => return plain(StatusCode::BAD_REQUEST),
        };
        match the_token(&form) {
            Some(token) => introspect(desk, &token, &head.headers),
            None => json(StatusCode::BAD_REQUEST, "{\"error\":\"invalid_request\"}".into()),
        }
    }

    /// Whether whoever sent these headers may ask.
    async fn admit(&self, desk: &Desk, headers: &HeaderMap) -> Result<(), Answered> {
        if let Some(token) = bearer(headers).filter(|token| is_jwt(token)) {
            // Fails closed: another credential beside it is a conflict.
            if headers.contains_key(DEFAULT_HEADER) {
                return Err(unauthorized(INVALID));
            }
            return self.admit_account(token).await;
        }
        let demand = Demand::scope(INTROSPECT_SCOPE);
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let credential = extract::credential(fields, None, Places::usual(DEFAULT_HEADER));
        let presented = credential.as_ref().map(Credential::as_str).map_err(|outcome| *outcome);
        let verdict = desk.gate.check(Dialect::Introspect, presented, &demand, &asker(headers), desk.now());
        match verdict.outcome() {
            Outcome::Accepted => Ok(()),
            Outcome::Missing => Err(unauthorized(BEARER)),
            Outcome::NotReady | Outcome::Stale => Err(later()),
            Outcome::MissingScope => {
                let mut refusal = plain(StatusCode::FORBIDDEN);
                if let Ok(challenge) = HeaderValue::from_str(&answer::insufficient(&demand)) {
                    refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                Err(refusal)
            }
            // Fails closed: everything else.
            _ => Err(unauthorized(INVALID)),
        }
    }

    async fn admit_account(&self, token: &str) -> Result<(), Answered> {
        // Fails closed, and asks nobody: no account is allowed.
        let Some(reviews) = &self.reviews else { return Err(unauthorized(INVALID)) };
        match reviews.user(token).await {
            Ok(_) => Ok(()),
            Err(ReviewError::Stranger) => Err(plain(StatusCode::FORBIDDEN)),
            Err(ReviewError::Refused) => Err(unauthorized(INVALID)),
            Err(error @ (ReviewError::Busy | ReviewError::Unanswered(_))) => {
                // Anybody can ask as often as he likes.
                if self.reminder.lock().is_due() {
                    tracing::warn!(%error, "who asks for an introspection cannot be reviewed");
                }
                // Fails closed: who asks is not known.
                Err(later())
            }
        }
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.reviews.iter().flat_map(Reviews::allowed)).finish()
    }
}

/// Whether it may be the token of a ServiceAccount: three parts of base64url. A Tokenward token has no dot in it.
fn is_jwt(token: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    token.split('.').count() == 3 && token.split('.').all(part)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// The parameter `token` of a form, if it is there once. All others are ignored, as the RFC asks.
fn the_token(form: &[u8]) -> Option<Zeroizing<String>> {
    let mut tokens = form_urlencoded::parse(form).filter(|(key, _)| key == "token").map(|(_, value)| value);
    let token = Zeroizing::new(tokens.next()?.into_owned());
    (tokens.next().is_none() && !token.is_empty()).then_some(token)
}

/// What RFC 7662 says of a token that is accepted. Times are Unix seconds. `scope` and `aud` are there also where they are
/// empty: some readers take a missing `aud` for "every audience".
#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    scope: &'a str,
    client_id: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    sub: &'a str,
    aud: Vec<&'a str>,
    jti: String,
}

impl<'a> Active<'a> {
    fn new(found: &'a Found) -> Self {
        let (record, held) = (found.record(), found.held());
        Self {
            active: true,
            scope: record.scopes(),
            client_id: record.token(),
            token_type: "Bearer",
            // Whichever comes first: the credential's deadline, or the end of the token itself.
            exp: held.not_after().into_iter().chain(record.expires()).min(),
            iat: Some(held.issued_at()).filter(|issued| *issued > 0),
            sub: record.token(),
            aud: record.audiences().split(' ').filter(|audience| !audience.is_empty()).collect(),
            jti: held.id().to_string(),
        }
    }
}

/// Whoever asks, by what it calls itself. Its address is not known: no proxy stands before it that would vouch for one.
fn asker(headers: &HeaderMap) -> Caller<'_> {
    extract::caller(None, "", headers.get(USER_AGENT).map(HeaderValue::as_bytes))
}

fn introspect(desk: &Desk, token: &str, headers: &HeaderMap) -> Answered {
    // A use of the token: whoever asks was sent it. From where is not known; by whose hand is.
    let verdict =
        desk.gate.check(Dialect::Introspect, Ok(token), &Demand::none(), &asker(headers), desk.now());
    let body = match verdict.found().filter(|_| verdict.is_accepted()) {
        Some(found) => serde_json::to_string(&Active::new(found)).map(Into::into),
        // Fails closed, and says nothing of the reason.
        None => Ok(INACTIVE.into()),
    };
    match (verdict.outcome(), body) {
        (Outcome::NotReady | Outcome::Stale, _) => later(),
        (_, Ok(body)) => json(StatusCode::OK, body),
        // Fails closed: strings and numbers can always be written.
        (_, Err(_)) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn json(status: StatusCode, body: Bytes) -> Answered {
    let mut answered = plain(status);
    *answered.body_mut() = Full::new(body);
    answered.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answered.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answered
}

fn unauthorized(challenge: &'static str) -> Answered {
    let mut answered = plain(StatusCode::UNAUTHORIZED);
    answered.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answered
}

/// Not now: the gate, or the API server, cannot say.
fn later() -> Answered {
    let mut answered = plain(StatusCode::SERVICE_UNAVAILABLE);
    answered.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answered
}

#[cfg(test)]
mod tests;

//! Who sends a ServiceAccount token? Asked by TokenReview, with the answers remembered for a while.
//!
//! Whoever can reach the listener can send garbage, as fast as it likes, so that the questions are few: what does not claim to be
//! a token that could be accepted is not asked about; few are asked at a time and in a second; and a refusal is remembered too.
//! What a token claims proves nothing: it only decides whether it is worth a question, and which budget that comes out of.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::words;

/// How long an accepted token is not asked about again. A token that is revoked may be accepted for so long.
const ACCEPTED: Duration = Duration::from_secs(60);
/// How long a refused one is not.
const REFUSED: Duration = Duration::from_secs(10);
/// How long a token that was accepted is asked about out of a budget that strangers do not share; as long as the kubelet lets
/// one live.
const FAMILIAR: Duration = Duration::from_secs(3_600);
/// Answers that are remembered.
const MOST: usize = 1_024;
/// Questions at a time.
const AT_ONCE: usize = 4;
/// Most bytes of a token; the API server's own are below 2 kB.
const LONGEST: usize = 8_192;
/// How far this clock may be ahead of the API server's before a token is taken for expired that is not.
const LEEWAY: Duration = Duration::from_secs(300);
/// Issuers that are known; an API server has one, or two while it changes.
const ISSUERS: usize = 4;

/// Why it is not known who asks, or why he may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not know the token, or it is not for this audience.
    #[error("not a token for this audience")]
    Refused,
    /// By its own account or the API server's, it is of a ServiceAccount that may not ask.
    #[error("not a ServiceAccount that may ask")]
    Stranger,
    /// More was asked than the API server is to be bothered with.
    #[error("too many tokens to review")]
    Busy,
    /// The API server did not say.
    #[error("the token cannot be reviewed: {0}")]
    Unanswered(String),
}

impl ReviewError {
    /// A bounded name for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Stranger => "Stranger",
            Self::Busy => "Busy",
            Self::Unanswered(_) => "Unanswered",
        }
    }
}

/// What a token says about itself (RFC 7519); Kubernetes writes all four of them.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audiences,
    /// Unix seconds.
    exp: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// `None` if the text has not the shape of such a token.
    fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if token.len() > LONGEST || parts.next().is_some() || header.is_empty() || signature.is_empty() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audiences::One(own) => own == audience,
            Audiences::Many(own) => own.iter().any(|own| own == audience),
        }
    }
}

/// Who issued a token, by its own account.
pub fn issuer(token: &str) -> Option<String> {
    Claims::read(token.trim()).map(|claims| claims.iss)
}

/// So many questions in a second, and some more at once after a quiet time.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    most: f64,
    left: f64,
    at: Option<Instant>,
}

impl Budget {
    fn new(per_second: f64, most: f64) -> Self {
        Self { per_second, most, left: most, at: None }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let since = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.left = (self.left + since * self.per_second).min(self.most);
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }
}

/// One budget for each kind of token, so that a flood of one does not take the others'.
#[derive(Debug)]
struct Budgets {
    /// Tokens that were accepted before.
    familiar: Budget,
    /// Others of an issuer that is known; all, while none is.
    fresh: Budget,
    /// Of other issuers. An API server that changes its issuer accepts tokens of both.
    foreign: Budget,
}

/// What was answered about a token.
#[derive(Debug, Clone)]
struct Answer {
    until: Instant,
    user: Option<String>,
}

/// Asks the API server who sends a token.
pub struct Reviews {
    api: Api<TokenReview>,
    audience: String,
    limit: Duration,
    /// Users that may ask.
    allowed: BTreeSet<String>,
    permits: Semaphore,
    issuers: Mutex<Vec<String>>,
    budgets: Mutex<Budgets>,
    /// By digest: no token is held.
    answers: Mutex<HashMap<[u8; 32], Answer>>,
}

impl Reviews {
    /// For tokens of this audience. Each question takes at most `limit`, the wait for its turn included. Nobody may ask yet.
    pub fn new(client: kube::Client, audience: impl Into<String>, limit: Duration) -> Self {
        let budgets = Budgets {
            familiar: Budget::new(10.0, 20.0),
            fresh: Budget::new(10.0, 20.0),
            foreign: Budget::new(1.0, 3.0),
        };
        Self {
            api: Api::all(client),
            audience: audience.into(),
            limit,
            allowed: BTreeSet::new(),
            permits: Semaphore::new(AT_ONCE),
            issuers: Mutex::default(),
            budgets: Mutex::new(budgets),
            answers: Mutex::default(),
        }
    }

    /// These ServiceAccounts may ask, as namespace and name.
    pub fn allowing<N: AsRef<str>>(mut self, accounts: impl IntoIterator<Item = (N, N)>) -> Self {
        let user = |(namespace, name): (N, N)| {
            format!("system:serviceaccount:{}:{}", namespace.as_ref(), name.as_ref())
        };
        self.allowed.extend(accounts.into_iter().map(user));
        self
    }

    /// The API server's tokens are issued so, as this process's own says.
    pub fn issued_by(self, issuer: Option<String>) -> Self {
        self.issuers.lock().extend(issuer);
        self
    }

    /// Those who may ask.
    pub fn allowed(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().map(String::as_str)
    }

    /// The user name of the token, one of those that may ask.
    pub async fn user(&self, token: &str) -> Result<String, ReviewError> {
        let claims = Claims::read(token).ok_or(ReviewError::Refused)?;
        if !claims.is_for(&self.audience) || expired(claims.exp) {
            return Err(ReviewError::Refused);
        }
        if !self.allowed.contains(&claims.sub) {
            return Err(ReviewError::Stranger);
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.remembered(&key) {
            return self.judge(user);
        }
        let unanswered = |said: String| ReviewError::Unanswered(said);
        let question = async {
            let _turn = self.permits.acquire().await.map_err(|error| unanswered(error.to_string()))?;
            // Somebody may have asked while this waited for its turn.
            if let Some(user) = self.remembered(&key) {
                return Ok(user);
            }
            if !self.may_ask(&key, &claims.iss) {
                return Err(ReviewError::Busy);
            }
            let user = self.ask(token).await.map_err(|error| unanswered(words::of(&error)))?;
            self.remember(key, user.clone(), claims.iss);
            Ok(user)
        };
        let answer = tokio::time::timeout(self.limit, question);
        self.judge(answer.await.map_err(|_| unanswered("no answer in time".to_owned()))??)
    }

    fn judge(&self, user: Option<String>) -> Result<String, ReviewError> {
        let user = user.ok_or(ReviewError::Refused)?;
        // Fails closed: whom the API server names counts, not what the token claims.
        if self.allowed.contains(&user) { Ok(user) } else { Err(ReviewError::Stranger) }
    }

    fn may_ask(&self, key: &[u8; 32], issuer: &str) -> bool {
        let familiar = self.answers.lock().get(key).is_some_and(|answer| answer.user.is_some());
        let issuers = self.issuers.lock();
        let known = issuers.is_empty() || issuers.iter().any(|known| known == issuer);
        let mut budgets = self.budgets.lock();
        match (familiar, known) {
            (true, _) => budgets.familiar.take(),
            (false, true) => budgets.fresh.take(),
            (false, false) => budgets.foreign.take(),
        }
    }

    async fn ask(&self, token: &str) -> kube::Result<Option<String>> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        // A server that knows nothing of audiences names none: the token is then one for the API server itself.
        let meant = status.audiences.is_some_and(|audiences| audiences.contains(&self.audience));
        let user = status.user.and_then(|user| user.username).filter(|name| !name.is_empty());
        Ok(user.filter(|_| status.authenticated == Some(true) && meant))
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Option<String>> {
        let answers = self.answers.lock();
        answers.get(key).filter(|answer| answer.until > Instant::now()).map(|answer| answer.user.clone())
    }

    fn remember(&self, key: [u8; 32], user: Option<String>, issuer: String) {
        let now = Instant::now();
        if user.is_some() {
            let mut issuers = self.issuers.lock();
            if issuers.len() < ISSUERS && !issuers.contains(&issuer) {
                issuers.push(issuer);
            }
        }
        let mut answers = self.answers.lock();
        if answers.len() >= MOST {
            answers.retain(|_, answer| {
                let kept = if answer.user.is_some() { FAMILIAR } else { Duration::ZERO };
                answer.until + kept > now
            });
        }
        if answers.len() >= MOST {
            // A flood: the answers to garbage go first.
            answers.retain(|_, answer| answer.user.is_some());
        }
        if answers.len() < MOST {
            let time = if user.is_some() { ACCEPTED } else { REFUSED };
            answers.insert(key, Answer { until: now + time, user });
        }
    }
}

/// Whether that time, in Unix seconds, has passed for certain.
fn expired(exp: u64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(exp).saturating_add(LEEWAY) < now
}

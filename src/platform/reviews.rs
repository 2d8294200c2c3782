//! Who sends a ServiceAccount token? Asked by TokenReview, with the answers remembered for a while.
//!
//! Whoever can reach the listener can send garbage, so that the questions are few: what has not the shape of such a token is
//! not asked about, few are asked at a time, and a refusal is remembered too.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long an accepted token is not asked about again. A token that is revoked may be accepted for so long.
const ACCEPTED: Duration = Duration::from_secs(60);
/// How long a refused one is not.
const REFUSED: Duration = Duration::from_secs(10);
/// Answers that are remembered.
const MOST: usize = 1_024;
/// Questions at a time.
const AT_ONCE: usize = 4;
/// Most bytes of a token; the API server's own are below 2 kB.
const LONGEST: usize = 8_192;

/// Why it is not known who asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not know the token, or it is not for this audience.
    #[error("not a token for this audience")]
    Refused,
    /// The API server did not say.
    #[error("the token cannot be reviewed: {0}")]
    Unanswered(String),
}

impl ReviewError {
    /// A bounded name for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Unanswered(_) => "Unanswered",
        }
    }
}

/// Until when an answer counts, and the user it names.
type Answer = (Instant, Option<String>);

/// Asks the API server who sends a token.
pub struct Reviews {
    api: Api<TokenReview>,
    audience: String,
    limit: Duration,
    permits: Semaphore,
    /// By digest: no token is held.
    answers: Mutex<HashMap<[u8; 32], Answer>>,
}

impl Reviews {
    /// For tokens of this audience. Each question takes at most `limit`, the wait for its turn included.
    pub fn new(client: kube::Client, audience: impl Into<String>, limit: Duration) -> Self {
        Self {
            api: Api::all(client),
            audience: audience.into(),
            limit,
            permits: Semaphore::new(AT_ONCE),
            answers: Mutex::default(),
        }
    }

    /// The user name of the token, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub async fn user(&self, token: &str) -> Result<String, ReviewError> {
        let parts = token.split('.').filter(|part| !part.is_empty()).count();
        if token.len() > LONGEST || parts != 3 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ReviewError::Refused);
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(answer) = self.remembered(&key) {
            return answer.ok_or(ReviewError::Refused);
        }
        let unanswered = |said: String| ReviewError::Unanswered(said);
        let question = async {
            let _turn = self.permits.acquire().await.map_err(|error| unanswered(error.to_string()))?;
            // Somebody may have asked while this waited for its turn.
            if let Some(answer) = self.remembered(&key) {
                return Ok(answer);
            }
            let answer = self.ask(token).await.map_err(|error| unanswered(error.to_string()))?;
            self.remember(key, answer.clone());
            Ok(answer)
        };
        let answer = tokio::time::timeout(self.limit, question);
        answer.await.map_err(|_| unanswered("no answer in time".to_owned()))??.ok_or(ReviewError::Refused)
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
        answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, key: [u8; 32], answer: Option<String>) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= MOST {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= MOST {
            // A flood: the answers to garbage go first.
            answers.retain(|_, (_, answer)| answer.is_some());
        }
        if answers.len() < MOST {
            let time = if answer.is_some() { ACCEPTED } else { REFUSED };
            answers.insert(key, (now + time, answer));
        }
    }
}

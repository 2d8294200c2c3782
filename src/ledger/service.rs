//! Who may report: the gates' ServiceAccounts, by TokenReview. Then the report goes to the desk.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::service::{Service as HyperService, service_fn};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;

use super::{Ledger, Refusal};
use crate::api::report::{METHOD, Receipt, Report};
use crate::platform::grpc;
use crate::platform::reminder::Reminder;
use crate::platform::reviews::{ReviewError, Reviews};

/// Longest report, in bytes.
pub const MAX_REPORT: usize = 4 << 20;
/// Reports that are read at the same time.
const AT_ONCE: usize = 16;

/// The gRPC side of a ledger.
pub struct Service {
    ledger: Ledger,
    reviews: Reviews,
    strangers: Mutex<Reminder>,
    unreviewed: Mutex<Reminder>,
    turns: Semaphore,
}

impl Service {
    /// Lets the ServiceAccounts report that `reviews` allow.
    pub fn new(ledger: Ledger, reviews: Reviews) -> Self {
        Self {
            ledger,
            reviews,
            strangers: Mutex::default(),
            unreviewed: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// For `runtime::serve`.
    pub fn serves(
        self: Arc<Self>,
    ) -> impl HyperService<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static {
        service_fn(move |request| {
            let service = self.clone();
            async move { Ok(service.answer(request).await) }
        })
    }

    /// Answers one call. Of whoever may not report, not a byte of the message is read.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        if let Err(status) = self.admit(request.headers()).await {
            return status.into_http();
        }
        let Ok(_turn) = self.turns.acquire().await else {
            return Status::internal("closed").into_http();
        };
        let handler = |request: tonic::Request<Report>| ready(self.report(request.into_inner()));
        grpc::answer::<Report, Receipt, _, _, _>(METHOD, MAX_REPORT, &handler, request).await
    }

    fn report(&self, report: Report) -> Result<tonic::Response<Receipt>, Status> {
        self.ledger.report(report).map(tonic::Response::new).map_err(status)
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        // Before the token is asked about: a standby asks the API server nothing on behalf of others.
        if !self.ledger.is_open() {
            self.count(Refusal::NotLeading.category());
            return Err(status(Refusal::NotLeading));
        }
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = sent.and_then(|value| value.strip_prefix("Bearer ")) else {
            self.count("Unauthenticated");
            return Err(Status::unauthenticated("send a ServiceAccount token of the ledger's audience"));
        };
        match self.reviews.user(token).await {
            Ok(_) => Ok(()),
            Err(ReviewError::Stranger) => {
                self.count("Forbidden");
                // What it claims to be is for nobody to read; and anybody can send any number of these.
                if self.strangers.lock().is_due() {
                    tracing::warn!(
                        "a ServiceAccount that is not among --ledger-gates reports; said once a minute"
                    );
                }
                Err(Status::permission_denied("this ServiceAccount is not among --ledger-gates"))
            }
            Err(error @ ReviewError::Refused) => {
                self.count("Unauthenticated");
                Err(Status::unauthenticated(error.to_string()))
            }
            Err(error @ (ReviewError::Busy | ReviewError::Unanswered(_))) => {
                self.count("Unreviewed");
                if self.unreviewed.lock().is_due() {
                    tracing::warn!(%error, "a gate's token cannot be reviewed; said once a minute");
                }
                // What the API server said is for the log, not for whoever asks.
                Err(Status::unavailable("the token cannot be reviewed now"))
            }
        }
    }

    fn count(&self, result: &'static str) {
        self.ledger.metrics().reports.inc([result]);
    }
}

/// As gRPC says it. To whoever does not lead, gates say so in their metrics; after any refusal they look for the leader again.
fn status(refusal: Refusal) -> Status {
    let said = refusal.to_string();
    match refusal {
        Refusal::NotLeading => Status::failed_precondition(said),
        Refusal::TooManyGates => Status::resource_exhausted(said),
        Refusal::Malformed(_) | Refusal::ClockAhead | Refusal::Outdated => Status::invalid_argument(said),
    }
}

//! The way to the ledger over the network: gRPC over TLS with the one certificate that the Lease names.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Mutex;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::locate::Ledger;
use super::reporter::{Connect, LedgerLink, LinkError};
use crate::api::report::{METHOD, Receipt, Report};
use crate::platform::grpc::Connection;
use crate::platform::pinned::{self, Fingerprint};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a receipt: it names what was sent, and that is bounded.
const MAX_RECEIPT: usize = 4 << 20;

/// Makes links that prove themselves with a ServiceAccount token.
#[derive(Clone, Debug)]
pub struct Network {
    token_file: PathBuf,
}

impl Network {
    /// With the token in this file. It is read for each report: whoever projects it there renews it.
    pub fn new(token_file: impl Into<PathBuf>) -> Self {
        Self { token_file: token_file.into() }
    }
}

impl Connect for Network {
    type Link = NetworkLink;

    fn connect(&self, ledger: &Ledger) -> NetworkLink {
        NetworkLink {
            ledger: ledger.clone(),
            token_file: self.token_file.clone(),
            connection: Mutex::default(),
        }
    }
}

/// One ledger over the network.
#[derive(Debug)]
pub struct NetworkLink {
    ledger: Ledger,
    token_file: PathBuf,
    /// Kept between reports.
    connection: Mutex<Option<Connection>>,
}

impl LedgerLink for NetworkLink {
    async fn report(&self, report: Report) -> Result<Receipt, LinkError> {
        let authorization = self.authorization().await?;
        let connection = self.connection().await?;
        let mut request = Request::new(report);
        request.metadata_mut().as_mut().insert(http::header::AUTHORIZATION, authorization);
        match connection.call::<Report, Receipt>(METHOD, MAX_RECEIPT, request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                // Whatever it was, the next attempt does not depend on this connection.
                *self.connection.lock().await = None;
                Err(link_error(&status))
            }
        }
    }
}

impl NetworkLink {
    async fn authorization(&self) -> Result<HeaderValue, LinkError> {
        let failed = |source| LinkError::TokenFile { path: self.token_file.clone(), source };
        let path = self.token_file.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path).map(Zeroizing::new));
        let token = read.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
        let value = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut value = HeaderValue::from_str(&value)
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn connection(&self) -> Result<Connection, LinkError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let fingerprint: Fingerprint =
            self.ledger.sha256.parse().map_err(|error| LinkError::Address(Box::new(error)))?;
        let tls = pinned::client_config(fingerprint).map_err(|error| LinkError::Address(Box::new(error)))?;
        let connection = Connection::connect(&self.ledger.address, tls, CONNECT_TIMEOUT).await;
        let connection = connection.map_err(|error| LinkError::Unreachable(Box::new(error)))?;
        Ok(kept.insert(connection).clone())
    }
}

fn link_error(status: &Status) -> LinkError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => LinkError::Denied(message),
        Code::FailedPrecondition => LinkError::NotLeading(message),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            LinkError::Unreachable(message.into())
        }
        _ => LinkError::Refused(message),
    }
}

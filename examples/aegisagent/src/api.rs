//! The HTTP face: receipts in, chain heads out, backups on request.
//!
//! `serve.rs` runs it; the tests run it on a port of 127.0.0.1. Every database call runs on a thread of its own, so
//! that a backup never holds up a receipt. An error is `{"error":{"code","message","hint"}}`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_sqlite::{BackupFile, BackupIntoOptions, backup_into};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::receipt::Action;
use crate::store::{MAX_RECEIPT_BYTES, Store};

/// Where backups go unless told.
pub const DEFAULT_BACKUP_DIR: &str = "backups";

/// What the handlers share.
#[derive(Debug)]
pub struct Service {
    /// The database.
    pub store: Store,
    /// Where backups go.
    pub backup_dir: PathBuf,
}

impl Service {
    /// Copies the database, as of one instant, to a new file of this bare name; receipts keep being written meanwhile.
    ///
    /// # Errors
    /// [`Error::Backup`]: a bad name, a name that exists, or whatever stopped the copy; nothing is then left behind.
    pub fn backup(&self, name: &str) -> Result<BackupFile> {
        let options = BackupIntoOptions::default();
        Ok(backup_into(self.store.path(), &self.backup_dir, name, &options, &Context::new())?)
    }
}

/// Returns the routes over a service.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/v1/receipts", post(append))
        .route("/v1/receipts/chain-head", get(chain_head))
        .route("/v1/admin/backup", post(backup))
        .layer(DefaultBodyLimit::max(2 * MAX_RECEIPT_BYTES))
        .with_state(service)
}

/// Serves on an address until `stop` resolves; `bound` is told the address, so that port 0 can be asked for.
///
/// # Errors
/// [`Error::Invalid`] for an address that others can reach (the service has no login), [`Error::Io`] when it cannot
/// be bound.
pub async fn serve(
    service: Arc<Service>,
    address: SocketAddr,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    if !address.ip().is_loopback() {
        return Err(Error::Invalid(format!(
            "{address} is not a loopback address: the service has no login, so it listens on 127.0.0.1 or ::1 only"
        )));
    }
    let io = |action| move |source| Error::Io { action, path: PathBuf::from(address.to_string()), source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(io("listen on"))?;
    bound(listener.local_addr().map_err(io("listen on"))?);
    axum::serve(listener, router(service)).with_graceful_shutdown(stop).await.map_err(io("serve on"))
}

/// A failure on its way to the client.
struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let hint = if let Error::Backup(error) = &error { error.hint() } else { None };
        Self { status, code: error.kind().code(), message: error.to_string(), hint }
    }
}

impl Failure {
    /// A body or query that could not be read as what it should be.
    fn unread(status: StatusCode, message: String) -> Self {
        Self { status, code: ErrorKind::InvalidInput.code(), message, hint: None }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::unread(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::unread(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = json!({"code": self.code, "message": self.message, "hint": self.hint});
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}

/// Runs a database call on a thread that may block.
async fn blocking<T: Send + 'static>(
    service: Arc<Service>,
    call: impl FnOnce(&Service) -> Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(move || call(&service)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: ErrorKind::Internal.code(),
            message: error.to_string(),
            hint: None,
        }),
    }
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Response, Failure> {
    let schema = blocking(service, |service| service.store.ready()).await?;
    Ok(Json(json!({"ready": true, "schema_version": schema})).into_response())
}

async fn append(
    State(service): State<Arc<Service>>,
    body: Result<Json<Action>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(action) = body?;
    let receipt = blocking(service, |service| service.store.append(action)).await?;
    Ok((StatusCode::CREATED, Json(receipt)).into_response())
}

#[derive(Deserialize)]
struct HeadOf {
    tenant_id: String,
}

async fn chain_head(
    State(service): State<Arc<Service>>,
    query: Result<Query<HeadOf>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(of) = query?;
    let head = blocking(service, move |service| service.store.chain_head(&of.tenant_id)).await?;
    Ok(Json(head).into_response())
}

#[derive(Deserialize)]
struct BackupAs {
    filename: String,
}

async fn backup(
    State(service): State<Arc<Service>>,
    body: Result<Json<BackupAs>, JsonRejection>,
) -> Result<Json<BackupFile>, Failure> {
    let Json(BackupAs { filename }) = body?;
    Ok(Json(blocking(service, move |service| service.backup(&filename)).await?))
}

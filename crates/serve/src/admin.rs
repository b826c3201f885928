//! The admin routes: reload the project, and see what is served. They listen apart from the graphs, and ask for a token.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    features,
    reload::{Outcome, Reload, Reloader},
    service::json_answer,
};

/// A shorter token could be guessed.
const LEAST_TOKEN: usize = 16;

/// What a caller of the admin routes must know. Only its digest is kept.
#[derive(Clone)]
pub struct AdminToken {
    digest: [u8; 32],
}

impl AdminToken {
    /// A token; white space around it, such as a line's end in a file, does not belong to it.
    ///
    /// # Errors
    /// When it is too short, or has characters that a header cannot carry.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        if token.len() < LEAST_TOKEN {
            return Err(TokenError::Short);
        }
        Ok(Self { digest: Sha256::digest(token).into() })
    }

    /// Whether a header carries the token, in a time that does not tell how much of it is right.
    fn is_in(&self, header: Option<&HeaderValue>) -> bool {
        let Some(header) = header else { return false };
        let Some((scheme, token)) = header.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        let digest: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(digest.ct_eq(&self.digest))
    }
}

/// Why a token is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It could be guessed.
    #[error("an admin token has at least {LEAST_TOKEN} characters; `openssl rand -hex 32` makes a good one")]
    Short,
    /// It cannot be sent.
    #[error("an admin token has letters, digits and punctuation of ASCII, and no spaces")]
    Characters,
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// The admin routes, for callers with the token: `POST /admin/reload`, `GET /admin/status`, and `DELETE /v1/features/{set}`, which
/// erases keys.
pub fn admin_router(reloader: Reloader, token: AdminToken) -> Router {
    let features = features::admin_routes().with_state(Arc::clone(reloader.shared()));
    Router::new()
        .route("/admin/reload", post(reload))
        .route("/admin/status", get(status))
        .with_state(reloader)
        .merge(features)
        .layer(middleware::from_fn_with_state(token, authorized))
}

async fn authorized(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    if token.is_in(request.headers().get(header::AUTHORIZATION)) {
        return next.run(request).await;
    }
    let message = json!({ "error": "header `authorization` must be `Bearer` and the admin token", "code": "unauthorized" });
    let mut answer = json_answer(StatusCode::UNAUTHORIZED, &message).into_response();
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

async fn reload(State(reloader): State<Reloader>) -> Response {
    let reload = reloader.reload().await;
    let mut body = described(&reload);
    let mut status = StatusCode::OK;
    if let Outcome::Failed(mistakes) = &reload.outcome {
        status = StatusCode::UNPROCESSABLE_ENTITY;
        body["error"] = mistakes.join("\n").into();
        body["code"] = "reload_failed".into();
    }
    json_answer(status, &body).into_response()
}

async fn status(State(reloader): State<Reloader>) -> Response {
    let last = reloader.last().borrow().clone();
    let shared = reloader.shared();
    let served = shared.live.load_full();
    let graphs: Vec<&str> = served.graphs.iter().map(|(name, _)| name.as_str()).collect();
    let body = json!({
        "project": served.project,
        "version": served.version,
        "since": served.since.to_rfc3339(),
        "graphs": graphs,
        "stopping": shared.is_stopping(),
        "reloads": reloader.counts(),
        "last_reload": last.as_deref().map(described),
        "retiring": shared.retiring(),
    });
    json_answer(StatusCode::OK, &body).into_response()
}

fn described(reload: &Reload) -> Value {
    let mistakes: &[String] = match &reload.outcome {
        Outcome::Failed(mistakes) => mistakes,
        _ => &[],
    };
    json!({
        "outcome": reload.outcome.name(),
        "version": reload.version,
        "at": reload.at.to_rfc3339(),
        "took_ms": u64::try_from(reload.took.as_millis()).unwrap_or(u64::MAX),
        "mistakes": mistakes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_lets_in() {
        let token = AdminToken::new(" 0123456789abcdef\n").unwrap();
        for (header, lets_in) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcdee", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("", false),
        ] {
            assert_eq!(token.is_in(Some(&HeaderValue::from_static(header))), lets_in, "{header}");
        }
        assert!(!token.is_in(None));
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
    }

    #[test]
    fn a_token_that_could_be_guessed_or_not_be_sent_is_none() {
        assert_eq!(AdminToken::new("short").unwrap_err(), TokenError::Short);
        assert_eq!(AdminToken::new("").unwrap_err(), TokenError::Short);
        assert_eq!(AdminToken::new("0123456789 abcdef").unwrap_err(), TokenError::Characters);
        assert_eq!(AdminToken::new("0123456789äbcdefg").unwrap_err(), TokenError::Characters);
    }
}

//! What `serve` does beside serving: reloads, the admin listener, and how it ends.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;

use super::{Failure, ServeArgs};
use crate::{Access, AdminToken, CompatMetrics, ConnectionLimits, Reloader, Server, TlsFiles, admin_router};

/// The token, where it is not in a file. No flag has it: arguments can be seen by others.
const TOKEN: &str = "MILLSTREAM_ADMIN_TOKEN";

/// How the project is reloaded.
#[derive(Args)]
pub(super) struct ReloadArgs {
    /// Reload the project when one of its files changes.
    #[arg(long, env = "MILLSTREAM_WATCH")]
    watch: bool,
    /// Where to listen for POST /admin/reload and GET /admin/status; nowhere by default. Needs a token.
    #[arg(long, env = "MILLSTREAM_ADMIN", value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// The file with the token that admin callers send; MILLSTREAM_ADMIN_TOKEN has it otherwise.
    #[arg(long, env = "MILLSTREAM_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Whether clients may change what is served.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModelControl {
    /// They may not.
    None,
    /// Whoever reaches the server may, by the calls of the protocol.
    Explicit,
}

/// Whose metrics are written beside our own.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Compat {
    /// `nv_inference_...`
    Triton,
    /// `request_..._seconds`
    Kserve,
}

impl From<Compat> for CompatMetrics {
    fn from(compat: Compat) -> Self {
        match compat {
            Compat::Triton => Self::Triton,
            Compat::Kserve => Self::KServe,
        }
    }
}

/// Who may ask, and over what.
#[derive(Args)]
pub(super) struct AccessArgs {
    /// The file with the keys of callers and rules for their tokens. Without it, nobody is asked who they are.
    #[arg(long, env = "MILLSTREAM_ACCESS", value_name = "FILE")]
    access: Option<PathBuf>,
    /// Where changes and refused requests are written down; nowhere by default. Needs --access.
    #[arg(long, env = "MILLSTREAM_AUDIT_LOG", value_name = "FILE", requires = "access")]
    audit_log: Option<PathBuf>,
    /// Serve without asking anybody who they are, also on an address that others can reach.
    #[arg(long, env = "MILLSTREAM_NO_AUTH", conflicts_with = "access")]
    no_auth: bool,
    /// The certificate that clients are shown, with those between it and an authority, in PEM. Without it, no TLS is spoken.
    #[arg(long, env = "MILLSTREAM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, env = "MILLSTREAM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities whose certificates clients must have, in PEM; by default they need none.
    #[arg(long, env = "MILLSTREAM_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
}

impl AccessArgs {
    /// The server with its keys and its certificate.
    ///
    /// # Errors
    /// When it would be open to others although nobody said so, or a file is wrong.
    pub(super) fn secure(&self, server: Server, bind: SocketAddr) -> Result<Server, Failure> {
        // Whoever must show a certificate is known.
        let asks = self.access.is_some() || self.tls_client_ca.is_some();
        if !asks && !self.no_auth && !bind.ip().is_loopback() {
            let problem = "can be reached by others, and nobody is asked who they are: name a file of keys by --access, or say --no-auth";
            return Err(format!("{bind} {problem}").into());
        }
        let server = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => server.tls(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                clients: self.tls_client_ca.clone(),
            })?,
            _ => server,
        };
        match &self.access {
            Some(file) => Ok(server.access(&Access { file: file.clone(), audit: self.audit_log.clone() })?),
            None => Ok(server),
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }
}

/// What connections may take.
#[derive(Args)]
pub(super) struct ConnectionArgs {
    /// Connections at once; further ones wait.
    #[arg(long, env = "MILLSTREAM_MAX_CONNECTIONS", default_value_t = 16_384)]
    max_connections: usize,
    /// The time that a connection is kept without a request, in seconds. Longer than the load balancer in front keeps it.
    #[arg(long, env = "MILLSTREAM_IDLE_S", default_value_t = 75)]
    idle_s: u64,
    /// The time that connections are still accepted after SIGTERM, in seconds, within the grace. After SIGINT it is none.
    #[arg(long, env = "MILLSTREAM_DRAIN_DELAY_S", default_value_t = 5)]
    pub(super) drain_delay_s: u64,
}

impl ConnectionArgs {
    pub(super) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.max_connections.max(1),
            idle: Duration::from_secs(self.idle_s.max(1)),
            ..ConnectionLimits::default()
        }
    }
}

impl ReloadArgs {
    /// The token that the admin listener asks for.
    ///
    /// # Errors
    /// When there is to be a listener but no token.
    pub(super) fn token(&self) -> Result<Option<AdminToken>, Failure> {
        if self.admin.is_none() {
            return Ok(None);
        }
        let text = match &self.admin_token_file {
            Some(file) => fs::read_to_string(file).map_err(|error| {
                format!("the admin token cannot be read from {}: {error}", file.display())
            })?,
            None => std::env::var(TOKEN)
                .map_err(|_| format!("--admin needs a token: set --admin-token-file or {TOKEN}"))?,
        };
        Ok(Some(AdminToken::new(&text)?))
    }

    /// The server with its admin routes, and the reloader, where anything asks for one.
    pub(super) async fn attach(
        &self,
        server: Server,
        args: &ServeArgs,
        token: Option<AdminToken>,
    ) -> Result<(Server, Option<Reloader>), Failure> {
        if !self.watch && self.admin.is_none() {
            return Ok((server, None));
        }
        let reloader = Reloader::new(&server, &args.project, Duration::from_secs(args.grace_s))?;
        let server = match (self.admin, token) {
            (Some(address), Some(token)) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|error| format!("cannot listen on {address} for admin calls: {error}"))?;
                tracing::info!("admin routes on http://{}", listener.local_addr()?);
                server.admin(listener, admin_router(reloader.clone(), token))
            }
            _ => server,
        };
        Ok((server, self.watch.then_some(reloader)))
    }
}

/// Watches the project's files for as long as it is polled.
pub(super) async fn watching(reloader: Option<Reloader>) {
    if let Some(reloader) = reloader
        && let Err(error) = crate::watch(reloader).await
    {
        tracing::error!(%error, "the project's files cannot be watched: changes are not seen");
    }
    std::future::pending().await
}

/// Signals that ask the process to stop.
pub(super) struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A supervisor, which tells others too, in its own time.
    Terminate,
    /// A person at a terminal.
    Interrupt,
}

impl StopSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Ready when the process is asked to stop.
    pub(super) async fn next(&mut self) -> Stop {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
        #[cfg(not(unix))]
        {
            // Without a handler the process is killed, which is what was asked for.
            let _ = tokio::signal::ctrl_c().await;
            Stop::Interrupt
        }
    }
}

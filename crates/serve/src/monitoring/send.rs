//! Sends the messages of alerts.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header::CONTENT_TYPE};
use http_body_util::Full;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    address::Envelope,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue as MailHeader},
    },
    transport::smtp::{Error as SmtpError, authentication::Credentials, response::Category},
};
use millstream_graph::ErrorKind;
use millstream_monitor::{
    SmtpSpec, SmtpTls,
    alert::{Level, Message, Secret, Source},
};
use tokio::sync::mpsc;

use crate::remote::{Client, Trust};

#[cfg(test)]
mod tests;

/// A receiver that takes longer is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a message is tried, and how long after the first failure; the next waits are longer.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// A message on its way, and who takes it if it is mail.
pub(crate) struct Outgoing {
    pub(super) message: Message,
    pub(super) mail: Option<Arc<Mail>>,
    /// The project's folder, in which files of secrets lie.
    pub(super) root: Arc<Path>,
}

/// Sends what comes, one after another, until nobody is left who could send more.
pub(super) async fn send_all(mut outbox: mpsc::Receiver<Outgoing>) {
    let mut client = None;
    while let Some(Outgoing { message, mail, root }) = outbox.recv().await {
        match message {
            Message::Log { level, line } => log(level, &line),
            Message::Http { url, headers, body, secrets } => {
                let filled = fill(&root, (&url, &headers), body, &secrets);
                let sent = match filled {
                    Ok(request) => post(&mut client, request).await,
                    Err(problem) => Err(problem),
                };
                if let Err(problem) = sent {
                    tracing::error!(channel = ?url, problem, "an alert could not be sent");
                }
            }
            Message::Email { to, subject, text, html } => {
                let sent = match mail {
                    Some(mail) => mail.send(&root, &to, (subject, text, html)).await,
                    None => Err("there is no mail server".to_owned()),
                };
                if let Err(problem) = sent {
                    tracing::error!(?to, problem, "an alert could not be mailed");
                }
            }
            _ => {}
        }
    }
}

/// A server that takes mail.
pub(crate) struct Mail {
    server: SmtpSpec,
    from: Mailbox,
}

impl Mail {
    /// Checks what can be checked without asking the server.
    pub(super) fn new(server: &SmtpSpec) -> Result<Self, String> {
        let from = server.from.parse().map_err(|error| format!("`from`: {error}"))?;
        let known =
            server.password.as_ref().is_none_or(|password| !matches!(password.source(), Source::Plain(_)));
        if !known {
            return Err("`password` is a reference: `env:NAME` or `file:PATH`".to_owned());
        }
        Ok(Self { server: server.clone(), from })
    }

    async fn send(
        &self,
        root: &Path,
        to: &[String],
        (subject, text, html): (String, String, String),
    ) -> Result<(), String> {
        let mut mail = lettre::Message::builder().from(self.from.clone()).subject(subject).message_id(None);
        for address in to {
            mail = mail.to(address.parse::<Mailbox>().map_err(|error| format!("{address}: {error}"))?);
        }
        // Nobody's notice of absence is an answer to it.
        let automatic =
            MailHeader::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let mail = mail.raw_header(automatic).multipart(MultiPart::alternative_plain_html(text, html));
        let mail = mail.map_err(|error| error.to_string())?;
        let (transport, bytes) = (self.transport(root)?, mail.formatted());
        let (mut left, mut problems) = (vec![mail.envelope().clone()], Vec::new());
        while let Some(envelope) = left.pop() {
            let Err(untaken) = deliver(&transport, &envelope, &bytes).await else { continue };
            match envelope.to() {
                _ if !untaken.mailbox => {
                    problems.push(format!("{}: {}", self.server.host, untaken.problem));
                    break;
                }
                [only] => problems.push(format!("{only}: {}", untaken.problem)),
                // Whoever is refused keeps the mail from all others of an envelope, but not from those of another.
                many => {
                    let alone = |to: &Address| Envelope::new(envelope.from().cloned(), vec![to.clone()]);
                    let alone: Result<Vec<_>, _> = many.iter().rev().map(alone).collect();
                    left = alone.map_err(|error| error.to_string())?;
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    fn transport(&self, root: &Path) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
        let host = &self.server.host;
        let made = match self.server.tls {
            SmtpTls::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host),
            SmtpTls::Implicit => AsyncSmtpTransport::<Tokio1Executor>::relay(host),
            SmtpTls::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)),
        };
        let mut transport = made.map_err(|error| error.to_string())?.timeout(Some(PATIENCE));
        if let Some(port) = self.server.port {
            transport = transport.port(port);
        }
        if let Some((user, password)) = self.server.user.as_ref().zip(self.server.password.as_ref()) {
            transport = transport.credentials(Credentials::new(user.clone(), text(root, password)?));
        }
        Ok(transport.build())
    }
}

/// Why a mail was not taken.
struct Untaken {
    problem: String,
    /// Whether it is about those who get it: the same mail to others may be taken.
    mailbox: bool,
}

impl Untaken {
    fn of(error: &SmtpError) -> Self {
        let mailbox = error.status().is_some_and(|code| code.category == Category::MailSystem);
        Self { problem: error.to_string(), mailbox }
    }
}

/// Mails to all of an envelope, several times if the server has no time.
async fn deliver(
    transport: &AsyncSmtpTransport<Tokio1Executor>,
    envelope: &Envelope,
    mail: &[u8],
) -> Result<(), Untaken> {
    let (mut pause, mut tried) = (PAUSE, 1);
    loop {
        let problem = match tokio::time::timeout(PATIENCE, transport.send_raw(envelope, mail)).await {
            Ok(Ok(_)) => return Ok(()),
            // Who refuses a mail, or has no STARTTLS, does so again.
            Ok(Err(error)) if error.is_permanent() || error.is_client() || tried == TRIES => {
                return Err(Untaken::of(&error));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        if tried == TRIES {
            return Err(Untaken { problem: format!("{problem}, {tried} times"), mailbox: false });
        }
        tracing::warn!(problem, "an alert is mailed again");
        tokio::time::sleep(pause).await;
        (pause, tried) = (pause * 4, tried + 1);
    }
}

fn log(level: Level, line: &str) {
    match level {
        Level::Info => tracing::info!(target: "millstream::alert", "{line}"),
        Level::Warn => tracing::warn!(target: "millstream::alert", "{line}"),
        Level::Error => tracing::error!(target: "millstream::alert", "{line}"),
    }
}

/// A call that can be made more than once.
struct Call {
    url: String,
    headers: Vec<(String, HeaderValue)>,
    body: Bytes,
}

fn fill(
    root: &Path,
    (url, headers): (&Secret, &BTreeMap<String, Secret>),
    mut body: serde_json::Value,
    secrets: &[(String, Secret)],
) -> Result<Call, String> {
    for (place, secret) in secrets {
        if let Some(place) = body.pointer_mut(place) {
            *place = text(root, secret)?.into();
        }
    }
    let header = |(name, secret): (&String, &Secret)| {
        let value = HeaderValue::from_str(&text(root, secret)?);
        let mut value = value.map_err(|_| format!("header `{name}` has characters that no header has"))?;
        value.set_sensitive(true);
        Ok((name.clone(), value))
    };
    Ok(Call {
        url: text(root, url)?,
        headers: headers.iter().map(header).collect::<Result<_, String>>()?,
        body: body.to_string().into(),
    })
}

/// The text of a secret, which is looked up each time, so that it can be changed while the server runs.
fn text(root: &Path, secret: &Secret) -> Result<String, String> {
    match secret.source() {
        Source::Plain(text) => Ok(text.to_owned()),
        Source::Env(name) => std::env::var(name).map_err(|_| format!("the environment has no {name}")),
        Source::File(path) => {
            let read =
                std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
            Ok(read.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

async fn post(client: &mut Option<Client>, call: Call) -> Result<(), String> {
    let client = match client {
        Some(client) => client,
        None => {
            let trust = if call.url.starts_with("https:") { Trust::Machine } else { Trust::Nobody };
            let made = Client::new(&trust).map_err(|error| error.to_string())?;
            // One that trusts nobody serves plain calls only.
            if trust == Trust::Nobody { &mut made.clone() } else { client.insert(made) }
        }
    };
    let mut pause = PAUSE;
    let mut tried = 1;
    loop {
        let mut request = Request::builder().method(Method::POST).uri(&call.url);
        if let Some(headers) = request.headers_mut() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for (name, value) in &call.headers {
                if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
                    headers.insert(name, value.clone());
                }
            }
        }
        // The URL may be a secret: what is wrong with it is not said by itself.
        let request = request.body(Full::new(call.body.clone())).map_err(|_| "its URL is none".to_owned())?;
        let answer = tokio::time::timeout(PATIENCE, client.call(request, ANSWER)).await;
        let problem = match answer {
            Ok(Ok(_)) => return Ok(()),
            // Who refuses a message refuses it again.
            Ok(Err(error)) if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Overloaded) => {
                return Err(error.to_string());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        if tried == TRIES {
            return Err(format!("{problem}, {tried} times"));
        }
        tokio::time::sleep(pause).await;
        (pause, tried) = (pause * 4, tried + 1);
    }
}

//! `millstream top`: how the graphs of a server do, second by second.

mod frame;
mod screen;

use std::{
    io::IsTerminal,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use futures_util::FutureExt;
use http::{Method, StatusCode, Uri};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Failure, print};
use crate::{ask::Ask, project::chain, stats::GraphStats};
use frame::{Frame, frame};
use screen::Screen;

/// The time that a server has for each answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer.
const ANSWER: usize = 4 << 20;
/// Graphs of a server that are shown.
const GRAPHS: usize = 256;
/// How often it is looked whether the process is asked to stop.
const SLICE: Duration = Duration::from_millis(100);
/// Columns and rows where no terminal says how many there are.
const SIZE: (u16, u16) = (110, u16::MAX);

#[derive(Args)]
pub(super) struct TopArgs {
    /// The server, such as http://127.0.0.1:8080.
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: Uri,
    /// The graph whose steps are shown first.
    #[arg(long)]
    graph: Option<String>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Prints one frame as plain text and ends.
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=3600.0).contains(&number) => Ok(number),
        _ => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

#[derive(Deserialize)]
struct Listed {
    graphs: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

pub(super) fn top(args: &TopArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let graphs = runtime.block_on(look(&args.url))?;
    let selected = match &args.graph {
        None => 0,
        Some(name) => graphs.iter().position(|graph| graph.graph == *name).ok_or_else(|| {
            millstream_graph::suggest::unknown("graph", name, graphs.iter().map(|graph| graph.graph.as_str()))
        })?,
    };
    let server = args.url.to_string();
    let mut shown = Frame { server, graphs, selected, problem: None };
    if args.once || !std::io::stdout().is_terminal() {
        return print(frame(&shown, SIZE).join("\n").trim_end());
    }
    let interval = Duration::from_secs_f64(args.interval);
    let mut screen = Screen::enter()?;
    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        screen.draw(&frame(&shown, screen.size()))?;
        let next = Instant::now() + interval;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            // Whatever comes of the signal, the process was not to be killed without leaving the screen.
            if runtime.block_on(async { stop.as_mut().now_or_never() }).is_some() {
                return Ok(());
            }
            if crossterm::event::poll(left.min(SLICE))? {
                match Act::of(&crossterm::event::read()?) {
                    Act::End => return Ok(()),
                    Act::Choose(by) => shown.choose(by),
                    Act::Nothing => {}
                }
                screen.draw(&frame(&shown, screen.size()))?;
            }
        }
        match runtime.block_on(look(&args.url)) {
            Ok(graphs) => shown.renew(graphs),
            Err(problem) => shown.problem = Some(chain(&*problem)),
        }
    }
}

/// What a key does.
enum Act {
    End,
    Choose(isize),
    Nothing,
}

impl Act {
    fn of(event: &Event) -> Self {
        let Event::Key(KeyEvent { code, modifiers, .. }) = event else { return Self::Nothing };
        match code {
            KeyCode::Char('q') | KeyCode::Esc => Self::End,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Self::End,
            KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => Self::Choose(1),
            KeyCode::Up | KeyCode::Char('k') | KeyCode::BackTab => Self::Choose(-1),
            _ => Self::Nothing,
        }
    }
}

/// How every graph of a server does.
async fn look(url: &Uri) -> Result<Vec<GraphStats>, Failure> {
    let listed: Listed = get(url, "/v1/graphs").await?;
    let mut graphs = Vec::new();
    for Named { name } in listed.graphs.into_iter().take(GRAPHS) {
        graphs.push(get(url, &format!("/v1/graphs/{name}/stats")).await?);
    }
    Ok(graphs)
}

async fn get<T: DeserializeOwned>(server: &Uri, path: &str) -> Result<T, Failure> {
    let url: Uri = format!("{}{path}", server.to_string().trim_end_matches('/')).parse()?;
    let ask = Ask {
        method: Method::GET,
        url,
        media: "application/json",
        body: Bytes::new(),
        key: super::key()?,
        within: PATIENCE,
        most: ANSWER,
    };
    let (status, body) = ask.send().await?;
    if status != StatusCode::OK {
        return Err(format!("{server} answers {path} with {status}").into());
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("{server} answers {path} with something else: {error}").into())
}

//! Replies in parts, as a file declares them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Stream;

/// How replies come in parts, to those who ask for a stream: the graph is run again and again, and each run's reply is a part.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// The columns of the input that are columns of the reply before, from the second part on.
    pub feed: BTreeMap<String, String>,
    /// The column of the reply that is true for rows that are done.
    pub until: String,
    /// The most parts that there are: 256 by default, at most 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<usize>,
}

impl From<&StreamSpec> for Stream {
    fn from(spec: &StreamSpec) -> Self {
        let feed = spec.feed.iter().map(|(input, reply)| (input.clone(), reply.clone())).collect();
        Self { feed, until: spec.until.clone(), most: spec.most.unwrap_or(Self::MOST) }
    }
}

impl From<&Stream> for StreamSpec {
    fn from(stream: &Stream) -> Self {
        Self {
            feed: stream.feed.iter().cloned().collect(),
            until: stream.until.clone(),
            most: Some(stream.most).filter(|most| *most != Stream::MOST),
        }
    }
}

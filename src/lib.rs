#![doc = include_str!("../README.md")]

pub use millstream_featurestore as features;
pub use millstream_graph::*;
pub use millstream_models as models;
pub use millstream_monitor as monitor;
pub use millstream_runtime::{
    Append, Degraded, Distribution, Door, Engine, EngineError, Gather, Limits, Metrics, Part, Portion, Reply,
    ReplyStream, RunError, StepTotals, Totals, layers, run_serially, testkit,
};
pub use millstream_serve::{
    ARROW_STREAM, GraphService, MetricError, Observe, ObserveError, Outside, Project, ProjectError,
    ServeError, Server, Traces, cli, kinds, project_schema, remote, sink, wire,
};
pub use millstream_transform as transform;

/// What most services need.
pub mod prelude {
    pub use crate::{
        DecodeLimits, Engine, Graph, GraphService, JoinOn, Limits, OnError, PortRef, Project, Step, fields,
        models::{Ensemble, ModelStep},
        rows,
        transform::{Filter, OneHot, Select, Validate, When, With},
    };
}

pub use millstream_serve::DecodeLimits;

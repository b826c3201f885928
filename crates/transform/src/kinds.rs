//! The words that a spec file may use for the steps of this crate.

use std::sync::Arc;

use millstream_graph::{SchemaError, Step, spec::StepKind};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    buckets::{Bucketize, BucketizeSettings},
    columns::{Cast, CastSettings, Drop, DropSettings, Rename, RenameSettings},
    dates::{DateParts, DatePartsSettings},
    encode::{OneHot, OneHotSettings},
    impute::{Impute, ImputeSettings},
    map::{Map, MapSettings},
    ordinal::{Ordinal, OrdinalSettings},
    pack::{Pack, PackSettings},
    select::{Filter, FilterSettings, Select, SelectSettings, With, WithSettings},
    split::{Split, SplitSettings},
    validate::{Validate, ValidateSettings},
    when::{When, WhenSettings},
};

/// The kinds of steps that spec files may name: `bucketize`, `cast`, `date_parts`, `drop`, `filter`, `impute`, `map`,
/// `one_hot`, `ordinal`, `pack`, `rename`, `select`, `split`, `validate`, `when` and `with`.
pub fn kinds() -> Vec<StepKind> {
    vec![
        kind::<BucketizeSettings, Bucketize>("bucketize"),
        kind::<CastSettings, Cast>("cast"),
        kind::<DatePartsSettings, DateParts>("date_parts"),
        kind::<DropSettings, Drop>("drop"),
        kind::<FilterSettings, Filter>("filter"),
        kind::<ImputeSettings, Impute>("impute"),
        kind::<MapSettings, Map>("map"),
        kind::<OneHotSettings, OneHot>("one_hot"),
        kind::<OrdinalSettings, Ordinal>("ordinal"),
        kind::<PackSettings, Pack>("pack"),
        kind::<RenameSettings, Rename>("rename"),
        kind::<SelectSettings, Select>("select"),
        kind::<SplitSettings, Split>("split"),
        kind::<ValidateSettings, Validate>("validate"),
        kind::<WhenSettings, When>("when"),
        kind::<WithSettings, With>("with"),
    ]
}

fn kind<S, T>(name: &'static str) -> StepKind
where
    S: DeserializeOwned + JsonSchema,
    T: From<S> + Step,
{
    StepKind::new(name, |settings: S| Ok::<_, SchemaError>(Arc::new(T::from(settings)) as Arc<dyn Step>))
}
